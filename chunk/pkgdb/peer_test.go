package pkgdb

import (
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/tests/testenv"
)

// What dpkg says of the machine that the test runs on is what is read.
func TestDpkgPeer(t *testing.T) {
	query := testenv.Peer(t, "dpkg-query")
	dbs, err := Read(os.DirFS("/"), ReadOptions{})
	must(t, err)
	at := slices.IndexFunc(dbs, func(d Database) bool { return d.Kind == "dpkg" })
	if at < 0 {
		t.Fatal("no database of dpkg, but dpkg-query")
	}
	var got, want []string
	arguments := []string{"--listfiles"}
	for _, p := range dbs[at].Packages {
		got = append(got, strings.Join([]string{p.Name, p.Version, p.Arch, p.Source}, " "))
		arguments = append(arguments, p.Name+":"+p.Arch)
	}
	const format = `${db:Status-Status} ${Package} ${Version} ${Architecture} ${source:Package}\n`
	for line := range strings.Lines(run(t, query, "--show", "--showformat", format)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "installed "); ok {
			want = append(want, rest)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
	for i, list := range strings.Split(run(t, query, arguments...), "\n\n") {
		comparePaths(t, dbs[at].Packages[i], list)
	}
}

func run(t *testing.T, program string, arguments ...string) string {
	t.Helper()
	c := exec.Command(program, arguments...)
	c.Env = append(os.Environ(), "LC_ALL=C")
	out, err := c.Output()
	must(t, err)
	return string(out)
}

// comparePaths compares with what --listfiles prints, which tells of diversions below a path.
func comparePaths(t *testing.T, p Package, list string) {
	t.Helper()
	var want []string
	for _, line := range strings.Split(strings.TrimSpace(list), "\n") {
		note, to, diverted := strings.Cut(line, " to: ")
		switch {
		case strings.HasPrefix(line, "/"):
			want = append(want, path.Clean(line))
		case diverted && !strings.HasPrefix(note, "package diverts others"):
			want[len(want)-1] = path.Clean(to)
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	got := slices.DeleteFunc(slices.Clone(p.Paths), func(name string) bool { return strings.HasPrefix(name, "/var/lib/dpkg/info/") })
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %s\nwant %s", p.Name, got, want)
	}
}
