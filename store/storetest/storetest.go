// Package storetest makes stores for tests, and checks every one of them when its
// test is over: whatever the test did, all contents hash to their names, all links
// lead somewhere, modes are right and nothing unfinished lies about.
//
// It reads the directory with package os alone, so that what package store
// believes of itself is not what it is checked by.
package storetest

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
)

// New makes a store in a directory of its own and opens it. When the test ends it
// is closed and checked.
func New(t testing.TB, o store.InitOptions) *store.Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := store.Init(dir, o); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(dir, store.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		Check(t, dir)
		if err := s.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	return s
}

// Check reports whatever is wrong with the store in dir as errors of t.
func Check(t testing.TB, dir string) {
	t.Helper()
	for _, problem := range Problems(dir) {
		t.Errorf("store %s: %s", dir, problem)
	}
}

// Problems lists what is wrong with the store in dir.
func Problems(dir string) []string {
	c := &checker{dir: dir}
	c.mode(".", fs.ModeDir|0o700)
	c.mode("meta.json", 0o644)
	c.settings()
	for _, e := range c.list(".") {
		switch e.Name() {
		case "meta.json":
		case "objects":
			c.objects()
		case "images", "streams":
			c.entries(e.Name())
		case "flatroot":
			c.private("flatroot")
		default:
			c.report("%s: left over", e.Name())
		}
	}
	return c.problems
}

type checker struct {
	dir       string
	algorithm fsverity.Algorithm
	problems  []string
}

func (c *checker) report(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

func (c *checker) path(name string) string { return filepath.Join(c.dir, name) }

func (c *checker) list(name string) []fs.DirEntry {
	es, err := os.ReadDir(c.path(name))
	if err != nil {
		c.report("%v", err)
	}
	return es
}

// mode tells whether name is of the type and has the permissions wanted.
func (c *checker) mode(name string, want fs.FileMode) bool {
	fi, err := os.Lstat(c.path(name))
	if err != nil {
		c.report("%v", err)
		return false
	}
	if fi.Mode() != want {
		c.report("%s: mode %v, want %v", name, fi.Mode(), want)
		return false
	}
	return true
}

// settings finds the algorithm without reading JSON.
func (c *checker) settings() {
	b, err := os.ReadFile(c.path("meta.json"))
	if err != nil {
		c.report("%v", err)
	}
	for _, a := range []fsverity.Algorithm{fsverity.SHA256, fsverity.SHA512} {
		if strings.Contains(string(b), fmt.Sprintf("%q", "fsverity-"+a.String()+"-12")) {
			c.algorithm = a
		}
	}
	if c.algorithm == 0 {
		c.report("meta.json: no algorithm in %q", b)
		c.algorithm = fsverity.SHA256
	}
}

func (c *checker) objects() {
	c.mode("objects", fs.ModeDir|0o755)
	for _, e := range c.list("objects") {
		xx := e.Name()
		if len(xx) != 2 || strings.Trim(xx, "0123456789abcdef") != "" {
			c.report("objects/%s: left over", xx)
			continue
		}
		if !c.mode("objects/"+xx, fs.ModeDir|0o755) {
			continue
		}
		for _, e := range c.list("objects/" + xx) {
			c.object(xx, e.Name())
		}
	}
}

func (c *checker) object(xx, rest string) {
	name := "objects/" + xx + "/" + rest
	if !c.mode(name, 0o644) {
		return
	}
	f, err := os.Open(c.path(name))
	if err != nil {
		c.report("%v", err)
		return
	}
	defer f.Close()
	h := fsverity.NewHasher(c.algorithm)
	if _, err := io.Copy(h, f); err != nil {
		c.report("%v", err)
	}
	if got := h.Sum().String(); got != xx+rest {
		c.report("%s: its content has the digest %s", name, got)
	}
}

func (c *checker) entries(kind string) {
	c.mode(kind, fs.ModeDir|0o755)
	for _, e := range c.list(kind) {
		name := kind + "/" + e.Name()
		if e.Name() == "refs" {
			c.refs(kind, name, "../")
			continue
		}
		text, ok := c.link(name)
		if rest, isObject := strings.CutPrefix(text, "../objects/"); ok && (!isObject || strings.Count(rest, "/") != 1) {
			c.report("%s: link to %s, which is no object", name, text)
		}
		if hex := strings.ReplaceAll(strings.TrimPrefix(text, "../objects/"), "/", ""); ok && kind == "images" && hex != e.Name() {
			c.report("%s: link to %s", name, text)
		}
	}
}

// refs checks a directory of refs; up is the way from there to the entries.
func (c *checker) refs(kind, at, up string) {
	c.mode(at, fs.ModeDir|0o755)
	for _, e := range c.list(at) {
		name := at + "/" + e.Name()
		if e.IsDir() {
			c.refs(kind, name, up+"../")
			continue
		}
		text, ok := c.link(name)
		if entry, hasUp := strings.CutPrefix(text, up); ok && (!hasUp || strings.Contains(entry, "/") || entry == "refs") {
			c.report("%s: link to %s, which is no entry of %s", name, text, kind)
		}
	}
}

// link reads a symlink and checks that a regular file is at its end.
func (c *checker) link(name string) (string, bool) {
	text, err := os.Readlink(c.path(name))
	if err != nil {
		c.report("%v", err)
		return "", false
	}
	if fi, err := os.Stat(c.path(name)); err != nil || !fi.Mode().IsRegular() {
		c.report("%s: link to %s leads nowhere: %v", name, text, err)
	}
	return text, true
}

// private allows notes and files, but nothing unfinished: what is in flatroot/tmp
// is for a later process to go on with, and has to be taken up by the test. In
// quarantine anything may lie.
func (c *checker) private(at string) {
	c.mode(at, fs.ModeDir|0o755)
	if at == "flatroot/quarantine" {
		return
	}
	for _, e := range c.list(at) {
		name := at + "/" + e.Name()
		switch {
		case e.IsDir():
			c.private(name)
		case strings.HasPrefix(e.Name(), ".") || at == "flatroot/tmp":
			c.report("%s: left over", name)
		case e.Type() != fs.ModeSymlink:
			c.mode(name, 0o644)
		}
	}
}
