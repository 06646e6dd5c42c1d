//go:build amd64

package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// target is the object that a link of the store leads to.
func (g ground) target(link string) (string, error) {
	text, err := os.Readlink(filepath.Join(g.store(), link))
	if err != nil {
		return "", err
	}
	return filepath.Join(g.store(), strings.TrimPrefix(text, "../")), nil
}

// first is the first name in a directory of the store that begins with a prefix.
func (g ground) first(dir, prefix string) (string, error) {
	es, err := os.ReadDir(filepath.Join(g.store(), dir))
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(es, func(e os.DirEntry) bool { return e.Name() != "refs" && strings.HasPrefix(e.Name(), prefix) })
	if i < 0 {
		return "", fmt.Errorf("nothing in %s begins with %q", dir, prefix)
	}
	return dir + "/" + es[i].Name(), nil
}

// spoil changes a file and keeps its length.
func spoil(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 1
	return os.WriteFile(path, b, 0o644)
}

func (g ground) spoilTarget(dir, prefix string) error {
	link, err := g.first(dir, prefix)
	if err != nil {
		return err
	}
	path, err := g.target(link)
	if err != nil {
		return err
	}
	return spoil(path)
}

func damageStream(g ground) error { return g.spoilTarget("streams", "oci-layer-") }
func damageConfig(g ground) error { return g.spoilTarget("streams", "oci-config-") }
func damageImage(g ground) error  { return g.spoilTarget("images", "") }

// fileObjects are the objects of files, in order: no link leads to them, and they are no JSON.
func (g ground) fileObjects() ([]string, error) {
	linked := map[string]bool{}
	for _, dir := range []string{"streams", "images"} {
		es, err := os.ReadDir(filepath.Join(g.store(), dir))
		if err != nil {
			return nil, err
		}
		for _, e := range es {
			if path, err := g.target(dir + "/" + e.Name()); err == nil {
				linked[path] = true
			}
		}
	}
	all, err := filepath.Glob(filepath.Join(g.store(), "objects/*/*"))
	if err != nil {
		return nil, err
	}
	var files []string
	for _, path := range all {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if !linked[path] && len(b) > 0 && b[0] != '{' {
			files = append(files, path)
		}
	}
	if len(files) < 3 {
		return nil, fmt.Errorf("only %d files", len(files))
	}
	return files, nil
}

// damageObject spoils two files, and takes one away.
func damageObject(g ground) error {
	files, err := g.fileObjects()
	if err != nil {
		return err
	}
	for _, path := range files[:2] {
		if err := spoil(path); err != nil {
			return err
		}
	}
	return os.Remove(files[2])
}

// loseObject takes a file away, and cuts one short.
func loseObject(g ground) error {
	files, err := g.fileObjects()
	if err != nil {
		return err
	}
	if err := os.Remove(files[0]); err != nil {
		return err
	}
	return os.Truncate(files[1], 1)
}
