package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tests/testenv"
)

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// news makes new files in both ways: of those that file systems can, and of those that can't.
var news = map[string]func(root *os.Root) (*New, error){
	"as it can": NewFile,
	"named": func(root *os.Root) (*New, error) {
		f, tmp, err := NewTmp(root)
		return &New{File: f, root: root, tmp: tmp}, err
	},
}

func TestPublish(t *testing.T) {
	for how, make := range news {
		for name, c := range map[string]struct{ there, replace bool }{
			"new": {false, false}, "taken": {true, false}, "replaced": {true, true}, "gone meanwhile": {false, true},
		} {
			t.Run(how+"/"+name, func(t *testing.T) {
				dir := t.TempDir()
				root, err := os.OpenRoot(dir)
				check(t, err)
				defer root.Close()
				if c.there {
					check(t, os.WriteFile(filepath.Join(dir, "f"), []byte("old"), 0o644))
				}
				f, err := make(root)
				check(t, err)
				_, err = f.Write([]byte("new"))
				check(t, err)
				check(t, Sweep(root)) // beside somebody who writes
				err = f.Publish("f", c.replace, 0o640)
				want := "new"
				if c.there && !c.replace {
					want = "old"
					if !errors.Is(err, fs.ErrExist) {
						t.Errorf("got %v", err)
					}
				} else {
					check(t, err)
					st, err := os.Stat(filepath.Join(dir, "f"))
					if err != nil || st.Mode() != 0o640 {
						t.Errorf("mode %v, %v", st.Mode(), err)
					}
				}
				check(t, f.Close())
				if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(got) != want {
					t.Errorf("got %q, %v; want %q", got, err, want)
				}
				onlyFile(t, dir, "f")
			})
		}
	}
}

// onlyFile makes sure that nothing but a file is in a directory.
func onlyFile(t *testing.T, dir, name string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range list {
		if e.Name() != name {
			t.Errorf("%s is left", e.Name())
		}
	}
}

func TestNotPublished(t *testing.T) {
	for how, make := range news {
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		check(t, err)
		f, err := make(root)
		check(t, err, f.Close(), root.Close())
		if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
			t.Errorf("%s: left %v, %v", how, list, err)
		}
	}
}

// TestSweepOthers has a file that may not be opened.
func TestSweepOthers(t *testing.T) {
	testenv.Need(t, "user")
	dir := t.TempDir()
	other := filepath.Join(dir, tmpPrefix+"OTHER")
	root, err := os.OpenRoot(dir)
	check(t, err)
	check(t, os.WriteFile(other, nil, 0o000))
	check(t, Sweep(root), root.Close())
	if _, err := os.Lstat(other); err != nil {
		t.Error(err)
	}
}

func TestUnnamed(t *testing.T) {
	dir := t.TempDir()
	for how, make := range map[string]func(dir string) (*os.File, error){"as it can": NewUnnamed, "named": newRemoved} {
		check(t, os.WriteFile(filepath.Join(dir, tmpPrefix+"LEFT"), nil, 0o600))
		f, err := make(dir)
		check(t, err)
		if how == "named" {
			onlyFile(t, dir, "")
		} else {
			onlyFile(t, dir, tmpPrefix+"LEFT")
		}
		_, err = f.WriteAt([]byte("x"), 10)
		check(t, err, f.Close())
	}
	if _, err := NewUnnamed(filepath.Join(dir, "nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	for err, want := range map[error]bool{unix.EOPNOTSUPP: true, unix.EISDIR: true, unix.EACCES: false, nil: false} {
		if noTmpfile(err) != want {
			t.Errorf("%v: want %v", err, want)
		}
	}
}
