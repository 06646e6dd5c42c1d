package mounts

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
)

// How many mounts in all are made while their image changes, of all modes and ways of changing it.
const (
	swaps        = 500
	swapsNightly = 10_000
)

// enough mounts leave no doubt that each of two images is met.
const enough = 20

// variants are the images that take each other's place. Both have the size and the layout in common, so that a mixture of
// their blocks would be read without complaint by what doesn't check them.
var variants = []string{"one", "two"}

// swapped is a path at which one image after another is found.
type swapped struct {
	dir    string
	images map[string]image // by variant
	bytes  map[string][]byte
}

func newSwapped(t *testing.T) *swapped {
	t.Helper()
	s := &swapped{t.TempDir(), map[string]image{}, map[string][]byte{}}
	for _, v := range variants {
		img := writeVariant(t, s.dir, v)
		b, err := os.ReadFile(img.path)
		must(t, err)
		s.bytes[v] = b
		img.path = filepath.Join(s.dir, "image")
		s.images[v] = img
	}
	if len(s.bytes["one"]) != len(s.bytes["two"]) {
		t.Fatal("images differ in size")
	}
	return s
}

// writeVariant makes an image whose every file and directory tells which it is of.
func writeVariant(t *testing.T, dir, name string) image {
	t.Helper()
	b := newBuilder(t, newObjects(t, filepath.Join(dir, "objects")))
	for d := range 20 {
		b.dir(fmt.Sprintf("/%s-%02d", name, d), 0o755)
		for f := range 20 {
			path := fmt.Sprintf("/%s-%02d/%s-%02d", name, d, name, f)
			b.file(path, 0o644, []byte(path))
		}
		b.file(fmt.Sprintf("/%s-%02d/object", name, d), 0o644, []byte(strings.Repeat(name, 1000)))
	}
	b.tree.Canonicalize()
	return writeImage(t, dir, "image-"+name, b.tree, b.objects, erofs.Format1)
}

// variantAt reads a mounted tree and tells of which variants what it shows is. Whatever can't be read says nothing.
func variantAt(root string) (found map[string]bool, failed error) {
	found = map[string]bool{}
	dirs, err := os.ReadDir(root)
	failed = errors.Join(failed, err)
	for _, d := range dirs {
		found[firstWord(d.Name())] = true
		files, err := os.ReadDir(filepath.Join(root, d.Name()))
		failed = errors.Join(failed, err)
		for _, f := range files {
			path := filepath.Join(d.Name(), f.Name())
			b, err := os.ReadFile(filepath.Join(root, path))
			failed = errors.Join(failed, err)
			switch {
			case err != nil:
			case f.Name() == "object":
				found[string(b[:3])] = true
			default:
				found[firstWord(f.Name())] = true
				found[firstWord(strings.TrimPrefix(string(b), "/"))] = true
			}
		}
	}
	return found, failed
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(s, "-")
	return word
}

// swapper changes what is at the path until it is stopped.
type swapper struct {
	name     string
	readable bool // what was mounted stays readable: the file that was opened never changes
	swap     func(s *swapped, v string) error
}

var swappers = []swapper{
	{"renamed over", true, func(s *swapped, v string) error {
		tmp := filepath.Join(s.dir, "new")
		if err := os.WriteFile(tmp, s.bytes[v], 0o644); err != nil {
			return err
		}
		return os.Rename(tmp, filepath.Join(s.dir, "image"))
	}},
	{"overwritten", false, func(s *swapped, v string) error {
		f, err := os.OpenFile(filepath.Join(s.dir, "image"), os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt(s.bytes[v], 0)
		return err
	}},
	{"emptied and written", false, func(s *swapped, v string) error {
		return os.WriteFile(filepath.Join(s.dir, "image"), s.bytes[v], 0o644)
	}},
}

// run swaps until the returned function is called, which gives the number of swaps.
func (w swapper) run(t *testing.T, s *swapped) (stop func() int) {
	t.Helper()
	must(t, w.swap(s, variants[0]))
	var wg sync.WaitGroup
	end := make(chan struct{})
	n := 0
	wg.Go(func() {
		for ; ; n++ {
			select {
			case <-end:
				return
			default:
			}
			if err := w.swap(s, variants[n%2]); err != nil {
				t.Errorf("swap: %v", err)
				return
			}
			time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
		}
	})
	return func() int {
		close(end)
		wg.Wait()
		return n
	}
}

// TestSwappedImage mounts by digest while the image at the path is another now and then: either the tree is mounted that was
// asked for, or none.
func TestSwappedImage(t *testing.T) {
	needMounts(t)
	s := newSwapped(t)
	each := times(swaps, swapsNightly) / (len(allModes()) * (len(swappers) + 1))
	for _, m := range allModes() {
		for _, w := range swappers {
			t.Run(m.name+", "+w.name, func(t *testing.T) {
				stop := w.run(t, s)
				mounted := 0
				for i := range each {
					if swapMount(t, m, w, s, variants[i%2]) {
						mounted++
					}
				}
				t.Logf("%d mounts of %d, %d swaps", mounted, each, stop())
				if mounted == 0 && each >= enough {
					t.Error("never mounted: that proves nothing")
				}
			})
		}
	}
}

// swapMount mounts a variant, tells whether that worked, and looks at the tree.
func swapMount(t *testing.T, m mode, w swapper, s *swapped, v string) bool {
	t.Helper()
	target := t.TempDir()
	if err := m.tryMount(s.images[v], target); err != nil {
		var e *exec.ExitError
		if !asError(err, &e) || e.ExitCode() != 32 || strings.Contains(err.Error(), "panic") {
			t.Errorf("refused with: %v", err)
		}
		return false
	}
	defer unix.Unmount(target, unix.MNT_DETACH)
	found, err := variantAt(target)
	delete(found, v)
	if len(found) > 0 {
		t.Errorf("asked for %s, found %v as well", v, found)
	}
	if err != nil && (w.readable || !errors.Is(err, unix.EIO)) {
		t.Errorf("read %s: %v", v, err)
	}
	return true
}

// TestSwappedName mounts by a name that means another image now and then: the tree is all of one of them, and the one of
// which the mount says that it is.
func TestSwappedName(t *testing.T) {
	needMounts(t)
	st := storetest.New(t, store.InitOptions{})
	s := newSwapped(t)
	digests := map[fsverity.Digest]string{}
	for _, v := range variants {
		digests[s.images[v].digest] = v
		storeVariant(t, st, s, v)
	}
	retag := swapper{"named", true, func(s *swapped, v string) error {
		return st.SetRef(store.Images, "name", s.images[v].digest.String())
	}}
	each := times(swaps, swapsNightly) / (len(allModes()) * (len(swappers) + 1))
	for _, m := range allModes() {
		t.Run(m.name, func(t *testing.T) {
			stop := retag.run(t, s)
			seen := map[string]int{}
			for range each {
				seen[nameMount(t, m, st.Dir(), digests)]++
			}
			t.Logf("mounted %v, %d times named", seen, stop())
			if each >= enough && (seen["one"] == 0 || seen["two"] == 0) {
				t.Errorf("mounted %v: that proves nothing", seen)
			}
		})
	}
}

func storeVariant(t *testing.T, st *store.Store, s *swapped, v string) {
	t.Helper()
	put := func(b []byte) fsverity.Digest {
		d := fsverity.Sum(fsverity.SHA256, b)
		_, err := st.PutObject(d, b)
		must(t, err)
		return d
	}
	put([]byte(strings.Repeat(v, 1000)))
	d := put(s.bytes[v])
	_, err := st.Link(store.Images, d.String(), d)
	must(t, err)
}

// nameMount mounts by name and returns which variant that is.
func nameMount(t *testing.T, m mode, storeDir string, digests map[fsverity.Digest]string) string {
	t.Helper()
	target := t.TempDir()
	text, err := exec.Command(helper, "name", target, "-o", m.options+",store="+storeDir).CombinedOutput()
	if err != nil {
		t.Errorf("mount by name: %v: %s", err, text)
		return "none"
	}
	defer unix.Unmount(target, unix.MNT_DETACH)
	list, err := mount.List()
	must(t, err)
	said := ""
	for _, e := range list {
		if e.Target == target {
			said = digests[e.Digest]
		}
	}
	found, err := variantAt(target)
	must(t, err)
	if len(found) != 1 || !found[said] {
		t.Errorf("found %v in a mount that says it is %q", found, said)
	}
	return said
}
