package erofstest

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
)

const (
	bigFiles = 19  // files in each directory; a symlink follows them
	bigDirs  = 200 // directories in each of the root's
)

// Big writes the dump of a tree of about n entries that looks like an installed system's: directories of twenty names, one
// of them a symlink, the others files with digests of their own.
func Big(w io.Writer, n int) error {
	b := bufio.NewWriterSize(w, 1<<20)
	r := rand.New(rand.NewPCG(1, 1))
	const dir = "%s 4096 40755 2 0 0 0 1700000000.0 - - -\n"
	fmt.Fprintf(b, dir, "/")
	top := ""
	for i, d := 0, 0; i < n; d++ {
		if d%bigDirs == 0 {
			top = fmt.Sprintf("/usr%05d", d/bigDirs)
			fmt.Fprintf(b, dir, top)
			i++
		}
		path := fmt.Sprintf("%s/directory%04d", top, d%bigDirs)
		fmt.Fprintf(b, dir, path)
		i++
		for k := range bigFiles {
			sum := sha256.Sum256(fmt.Append(nil, i))
			digest := hex.EncodeToString(sum[:])
			fmt.Fprintf(b, "%s/file-name-%02d.conf %d 100644 1 0 0 0 17000%05d.0 %s/%s - %s\n",
				path, k, 65+r.IntN(200000), i%100000, digest[:2], digest[2:], digest)
			i++
		}
		fmt.Fprintf(b, "%s/link 20 120777 1 0 0 0 1700000000.0 ../target/of/the/link - -\n", path)
		i++
	}
	return b.Flush()
}
