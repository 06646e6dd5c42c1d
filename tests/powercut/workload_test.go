package powercut

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// promise is what flatroot has said to be so.
type promise struct {
	Store  bool              // there is a store
	Names  map[string]string // images and their digests
	Pushed bool              // the layout on the same disk has the image web
	// Damaged are objects of web that may be damaged: by the workload itself, and not repaired yet.
	Damaged []string
}

func (p promise) with(name, digest string) promise {
	p.Names = maps.Clone(p.Names)
	if p.Names == nil {
		p.Names = map[string]string{}
	}
	p.Names[name] = digest
	return p
}

func (p promise) without(name string) promise {
	p.Names = maps.Clone(p.Names)
	delete(p.Names, name)
	return p
}

// world is a directory of the disk that is tested, and what does not lie on it: where images come from.
type world struct {
	at      string // on the disk
	sources string
}

func (w world) store() string  { return filepath.Join(w.at, "store") }
func (w world) layout() string { return filepath.Join(w.at, "layout") }

func (w world) source(tag string) string {
	return "oci:" + filepath.Join(w.sources, "layout") + ":" + tag
}

// flatroot runs the program, and returns the last line that it prints: the digest, of commands that have one.
func (w world) flatroot(args ...string) (string, error) {
	out, err := w.command(args...)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1], err
}

func (w world) command(args ...string) ([]byte, error) {
	cmd := exec.Command(program, append([]string{"--store", w.store(), "--progress", "none"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("flatroot %s: %w: %.400s%.400s", strings.Join(args, " "), err, stderr.Bytes(), out)
	}
	return out, err
}

// step is a command of the workload. What it has announced is the promise that it makes of the one before.
type step struct {
	name string
	run  func(w world, p promise) (promise, error)
}

func pull(tag, name string) step {
	return step{"pull " + tag, func(w world, p promise) (promise, error) {
		digest, err := w.flatroot("pull", w.source(tag), "--name", name)
		return p.with(name, digest), err
	}}
}

var push = step{"push", func(w world, p promise) (promise, error) {
	_, err := w.flatroot("push", "web", "oci:"+w.layout()+":web")
	p.Pushed = true
	return p, err
}}

const numSteps = 10

// steps is the workload.
var steps = [numSteps]step{
	{"init", func(w world, p promise) (promise, error) {
		_, err := w.flatroot("init")
		p.Store = true
		return p, err
	}},
	pull("v1", "web"),
	{"tag", func(w world, p promise) (promise, error) {
		_, err := w.flatroot("tag", "web", "old")
		return p.with("old", p.Names["web"]), err
	}},
	pull("v2", "web"),
	{"build", func(w world, p promise) (promise, error) {
		digest, err := w.flatroot("build", filepath.Join(w.sources, "tree"), "--name", "built")
		return p.with("built", digest), err
	}},
	push,
	{"rm", func(w world, p promise) (promise, error) {
		// After a cut the name may be gone, and can't be removed once more.
		err := w.has("old")
		if err == nil {
			_, err = w.flatroot("rm", "old")
		}
		if errors.Is(err, index.ErrNoImage) {
			err = nil
		}
		return p.without("old"), err
	}},
	{"gc", func(w world, p promise) (promise, error) {
		_, err := w.flatroot("gc")
		return p, err
	}},
	{"damage", func(w world, p promise) (promise, error) {
		var err error
		p.Damaged, err = w.damage("web")
		return p, err
	}},
	{"repair", func(w world, p promise) (promise, error) {
		p.Damaged = nil
		return p, w.repair()
	}},
}

// repair repairs the store from where its images came from. What is damaged may be repaired already.
func (w world) repair() error {
	_, err := w.flatroot("fsck", "--repair", "--from", w.source("v2"))
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == exitRepaired {
		return nil
	}
	return err
}

const exitRepaired = 1 // of fsck: there were problems, and all of them are repaired

// damage overwrites the begin of an image, of the stream of its last layer, and of a file's object, durably.
func (w world) damage(name string) (damaged []string, err error) {
	s, err := store.Open(w.store(), store.OpenOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	i, err := index.Find(s, name)
	if err != nil {
		return nil, err
	}
	layer := i.Layers[len(i.Layers)-1].Stream
	file, err := lastObject(s, layer)
	if err != nil {
		return nil, err
	}
	for _, d := range []fsverity.Digest{i.Image, layer, file} {
		f, err := os.OpenFile(filepath.Join(s.Dir(), "objects", d.ObjectPath()), os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		_, err = f.WriteAt([]byte("damage"), 0)
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return nil, err
		}
		damaged = append(damaged, d.String())
	}
	return damaged, nil
}

// lastObject is the last object that a layer's stream refers to.
func lastObject(s *store.Store, layer fsverity.Digest) (fsverity.Digest, error) {
	f, err := s.OpenObject(layer)
	if err != nil {
		return fsverity.Digest{}, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fsverity.Digest{}, err
	}
	st, err := stream.Open(f, fi.Size())
	if err != nil {
		return fsverity.Digest{}, err
	}
	return st.Object(st.NumObjects() - 1), nil
}

var madeAt = time.Unix(1_700_000_000, 0)

// sources makes two versions of an image, of which the second has one layer in common with the first, and a directory to
// build one from. They are the same whenever they are made.
func sources(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(2, 3))
	base := layer(rng, "usr/", 260, 4)
	for _, tag := range []string{"v1", "v2"} {
		image := ocitest.Image{Layers: [][]byte{base, layer(rng, "usr/"+tag+"/", 60, 2)}, Compression: []ocitest.Compression{ocitest.None}}
		if _, err := image.WriteLayout(filepath.Join(dir, "layout"), tag); err != nil {
			t.Fatal(err)
		}
	}
	tree := filepath.Join(dir, "tree")
	for _, f := range files(rng, "", 40, 1) {
		path := filepath.Join(tree, f.Name)
		err := errors.Join(os.MkdirAll(tree, 0o755), os.WriteFile(path, []byte(f.Data), 0o644), os.Chtimes(path, madeAt, madeAt))
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(tree, madeAt, madeAt); err != nil {
		t.Fatal(err)
	}
	return dir
}

func layer(rng *rand.Rand, dir string, small, large int) []byte {
	all := []ocitest.File{{Name: "usr/"}}
	if dir != "usr/" {
		all = append(all, ocitest.File{Name: dir})
	}
	return ocitest.Tar(append(all, files(rng, dir, small, large)...)...)
}

// files makes files of some hundred bytes to 16 KiB, and large ones.
func files(rng *rand.Rand, dir string, small, large int) (out []ocitest.File) {
	random := rand.NewChaCha8([32]byte{byte(rng.Uint32())})
	for i := range small + large {
		size := 65 + rng.IntN(4096<<rng.IntN(3))
		if i >= small {
			size = 400_000 + rng.IntN(1_000_000)
		}
		data := make([]byte, size)
		_, _ = random.Read(data)
		out = append(out, ocitest.File{Name: fmt.Sprintf("%sf%d", dir, i), Data: string(data)})
	}
	return out
}

// neighbour is a program that has nothing to do with the store and syncs a file of its own on the same disk, again and again
// until it is told to stop. What others sync makes the file system write its journal in the middle of our work.
func neighbour(f filesystem, dir string) (stop func() error, err error) {
	file, err := os.Create(filepath.Join(dir, "neighbour"))
	if err != nil {
		return nil, err
	}
	done, ended := make(chan struct{}), make(chan error)
	go func() {
		var err error
		for err == nil {
			select {
			case <-done:
				ended <- file.Close()
				return
			case <-time.After(neighbourPause):
			}
			_, err = file.WriteAt([]byte(time.Now().String()), 0)
			if err == nil {
				err = file.Sync()
			}
			if err == nil && f.name == "btrfs" {
				err = commitBtrfs(file)
			}
		}
		<-done
		ended <- err
	}()
	return func() error { close(done); return <-ended }, nil
}

const neighbourPause = 3 * time.Millisecond

const btrfsIoctlStartSync = 0x8008_9418 // BTRFS_IOC_START_SYNC

// commitBtrfs commits a transaction, as making a snapshot does: btrfs has a log of its own for what is synced file by file.
func commitBtrfs(file *os.File) error {
	var transaction [8]byte
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), btrfsIoctlStartSync, uintptr(unsafe.Pointer(&transaction)))
	if errno != 0 {
		return fmt.Errorf("have btrfs commit: %w", errno)
	}
	return nil
}
