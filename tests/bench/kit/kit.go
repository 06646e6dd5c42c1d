// Package kit has what the benchmarks share: running what prepares a measurement, the peers, synthetic dumps, figures.
package kit

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Env is the environment variable's value, or value where it is not set.
func Env(name, value string) string { return cmp.Or(os.Getenv(name), value) }

// Command runs a command that is not measured. What it printed is in the error.
func Command(args ...string) error {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// Native is the command that runs a program of an unpacked root by the root's own dynamic loader, without the shell around
// it that the peers' bin directory has.
func Native(root, name string) []string {
	usr := filepath.Join(root, "usr")
	program := filepath.Join(usr, "bin", name)
	if _, err := os.Stat(program); err != nil {
		program = filepath.Join(usr, "sbin", name)
	}
	return []string{
		filepath.Join(usr, "lib64", "ld-linux-x86-64.so.2"), "--argv0", name,
		"--library-path", filepath.Join(usr, "lib", "x86_64-linux-gnu"), program,
	}
}

// Median is the middle value, the upper one of two.
func Median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// WriteDump writes a composefs-dump of about n entries to path: directories of 19 files that have objects, which need not
// exist, and a symlink. FirstFile is in all of them.
func WriteDump(path string, n int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	random := rand.New(rand.NewPCG(1, 2)) // the same dump every time
	fmt.Fprintln(w, "/ 4096 40755 2 0 0 0 1700000000.0 - - -")
	for i, dir := 1, 0; i < n; dir++ {
		top := fmt.Sprintf("/usr%05d", dir/200)
		if dir%200 == 0 {
			fmt.Fprintf(w, "%s 4096 40755 2 0 0 0 1700000000.0 - - -\n", top)
			i++
		}
		i += writeDirectory(w, fmt.Sprintf("%s/directory%04d", top, dir%200), i, random)
	}
	return w.Flush()
}

// FirstFile is the path of a file three levels deep in any tree of WriteDump.
const FirstFile = "usr00000/directory0000/file-name-00.conf"

// writeDirectory gives each file an object of its own, by the number of its entry, and returns how many entries it wrote.
func writeDirectory(w io.Writer, dir string, number int, random *rand.Rand) int {
	const files = 19
	fmt.Fprintf(w, "%s 4096 40755 2 0 0 0 1700000000.0 - - -\n", dir)
	for k := range files {
		i := number + 1 + k
		d := fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, i)))
		fmt.Fprintf(w, "%s/file-name-%02d.conf %d 100644 1 0 0 0 17000%05d.0 %s/%s - %s\n",
			dir, k, 65+random.IntN(200_000), i%100_000, d[:2], d[2:], d)
	}
	fmt.Fprintf(w, "%s/link 20 120777 1 0 0 0 1700000000.0 ../target/of/the/link - -\n", dir)
	return files + 2
}
