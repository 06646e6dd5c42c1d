//go:build amd64

package crash

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// makeInputs makes the directory and the dump that scenarios build from.
func makeInputs(t *testing.T) {
	t.Helper()
	tree := filepath.Join(scratch, "tree")
	if _, err := os.Stat(tree); err == nil {
		return
	}
	must(t, os.MkdirAll(filepath.Join(tree, "usr", "bin"), 0o755))
	for name, size := range map[string]int{"usr/small": 10, "usr/bin/a": 500, "usr/bin/b": 70_000, "usr/large": 1<<20 + 1} {
		must(t, os.WriteFile(filepath.Join(tree, name), []byte(strings.Repeat(name, size/len(name))), 0o644))
	}
	must(t, os.Symlink("bin/a", filepath.Join(tree, "usr", "link")))
	must(t, os.Link(filepath.Join(tree, "usr", "bin", "a"), filepath.Join(tree, "usr", "hard")))

	g := ground(filepath.Join(scratch, "inputs"))
	must(t, os.Mkdir(string(g), 0o700))
	for _, line := range []string{initStore, pullV1} {
		_, err := g.must(line)
		must(t, err)
	}
	dump, err := g.must("dump --store {store} web")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(scratch, "v1.dump"), []byte(dump), 0o644))
}
