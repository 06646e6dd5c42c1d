package index

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/tests/testenv"
)

// loopMount makes a file system in a file and mounts it.
func loopMount(t *testing.T, mkfs string) string {
	t.Helper()
	testenv.Need(t, "root", "mount", "loop", mkfs)
	file, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	check(t, os.WriteFile(file, nil, 0o600), os.Truncate(file, 400<<20)) // xfs takes no less than 300 MiB
	for _, args := range [][]string{{mkfs, "-q", file}, {"mount", "-o", "loop", file, dir}} {
		path, err := exec.LookPath(args[0])
		if err != nil {
			path = "/usr/sbin/" + args[0]
		}
		if out, err := exec.Command(path, args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() { check(t, unix.Unmount(dir, 0)) })
	return dir
}

// used is how much of a file system is in use, in bytes, once all is written.
func used(t *testing.T, dir string) int64 {
	t.Helper()
	f, err := os.Open(dir)
	check(t, err)
	defer f.Close()
	var st unix.Statfs_t
	check(t, unix.Syncfs(int(f.Fd())), unix.Statfs(dir, &st))
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

// randomFile writes a file that no other one is like.
func randomFile(t *testing.T, path string, size int) []byte {
	t.Helper()
	b := make([]byte, size)
	_, _ = rand.Read(b)
	check(t, os.WriteFile(path, b, 0o644))
	return b
}

// readObjects reads all objects of a store.
func readObjects(t *testing.T, s *store.Store) {
	t.Helper()
	for o, err := range s.Objects() {
		check(t, err)
		checkObjects(t, s, o.Digest)
	}
}

// TestClone builds from directories on the store's file system, which that can clone or can't.
func TestClone(t *testing.T) {
	const large, middle = 16 << 20, 100 << 10
	src := t.TempDir()
	randomFile(t, src+"/large", large)
	randomFile(t, src+"/middle", middle)
	randomFile(t, src+"/small", 1000)
	sparse := append(make([]byte, 1<<20), randomFile(t, src+"/sparse", 5000)...)
	check(t, os.WriteFile(src+"/sparse", sparse, 0o644))
	for _, c := range []struct {
		mkfs   string
		cloned int64
	}{{"mkfs.ext4", 0}, {"mkfs.btrfs", large + middle + int64(len(sparse))}, {"mkfs.xfs", large + middle + int64(len(sparse))}} {
		t.Run(c.mkfs, func(t *testing.T) {
			at := loopMount(t, c.mkfs)
			dir := filepath.Join(at, "src")
			check(t, os.CopyFS(dir, os.DirFS(src)))
			check(t, store.Init(filepath.Join(at, "store"), store.InitOptions{}))
			s, err := store.Open(filepath.Join(at, "store"), store.OpenOptions{})
			check(t, err)
			defer s.Close()
			before := used(t, at)
			tarOf := OpenDirTar(context.Background(), dir, DirOptions{})
			defer tarOf.Close()
			r, err := Build(context.Background(), s, tarOf, dir, ImportOptions{Image: writeImage, Name: "image"})
			check(t, err)
			if r.Bytes.ObjectsCloned != c.cloned {
				t.Errorf("%d bytes cloned, want %d", r.Bytes.ObjectsCloned, c.cloned)
			}
			if grown := used(t, at) - before; (grown > large/2) != (c.cloned == 0) {
				t.Errorf("the file system has %d bytes more in use", grown)
			}
			// What becomes of the files is not the store's business.
			randomFile(t, dir+"/large", large)
			readObjects(t, s)

			// Again: nothing is new.
			check(t, os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(src)))
			again := OpenDirTar(context.Background(), dir, DirOptions{})
			defer again.Close()
			r, err = Build(context.Background(), s, again, dir, ImportOptions{Image: writeImage, Name: "image"})
			check(t, err)
			if r.Bytes.ObjectsNew != 0 || r.Bytes.ObjectsCloned != 0 {
				t.Errorf("again: %+v", r.Bytes)
			}
		})
	}
}

// fileBlob is a blob of which any stretches are said to be files.
type fileBlob struct {
	io.Reader
	files func(via oci.CloneFunc)
}

func (fileBlob) Close() error { return nil }

func (b fileBlob) Through(via oci.CloneFunc) { b.files(via) }

// fakeClones is a place for contents that takes note of what becomes of clones.
type fakeClones struct {
	hashed
	made, committed, aborted int
}

func (c *fakeClones) clone(f *os.File) (contentWriter, *os.File, error) {
	c.made++
	again, err := os.Open(f.Name())
	return &fakeClone{hashWriter{fsverity.NewHasher(c.alg)}, c}, again, err
}

type fakeClone struct {
	hashWriter
	of *fakeClones
}

func (c *fakeClone) Commit() (fsverity.Digest, bool, error) {
	if c.of != nil {
		c.of.committed++
		c.of = nil
	}
	return c.hashWriter.Commit()
}

func (c *fakeClone) Abort() {
	if c.of != nil {
		c.of.aborted++
		c.of = nil
	}
}

// TestClaim has blobs whose files are contents of the tar, or are not, though they stand where one is.
func TestClaim(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	data := randomFile(t, path, cloneMin)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	check(t, w.WriteHeader(&tar.Header{Name: "f", Mode: 0o644, Size: cloneMin}))
	_, err := w.Write(data)
	check(t, err, w.Close())
	plainTar := b.Bytes()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err = z.Write(plainTar)
	check(t, err, z.Close())

	for name, c := range map[string]struct {
		blob            []byte
		offsets         []int64
		size            int64
		committed, made int
	}{
		"whole":        {plainTar, []int64{512}, cloneMin, 1, 1},
		"elsewhere":    {plainTar, []int64{0, 511, 513}, cloneMin, 0, 3},
		"twice":        {plainTar, []int64{512, 512}, cloneMin, 1, 2},
		"other length": {plainTar, []int64{512}, cloneMin + 1, 0, 1},
		"small":        {plainTar, []int64{512}, cloneMin - 1, 0, 0},
		// Offsets of a compressed blob are not the tar's, whatever wrote it may say.
		"compressed": {packed.Bytes(), []int64{512}, cloneMin, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			to := &fakeClones{hashed: hashed{fsverity.SHA256}}
			f, err := os.Open(path)
			check(t, err)
			defer f.Close()
			blob := fileBlob{bytes.NewReader(c.blob), func(via oci.CloneFunc) {
				for _, at := range c.offsets {
					if clone := via(f, at, c.size); clone != nil {
						clone.Close()
					}
				}
			}}
			h := startHashers(to)
			defer h.stop()
			r, err := (&layerJob{hashers: h, to: to, alg: fsverity.SHA256}).read(context.Background(), blob, -1)
			check(t, err)
			if d, err := r.layer.objects.at(0); err != nil || d != fsverity.Sum(fsverity.SHA256, data) {
				t.Errorf("the object is %s, %v", d, err)
			}
			if to.made != c.made || to.committed != c.committed || to.aborted != to.made-to.committed {
				t.Errorf("%d made, %d committed, %d aborted", to.made, to.committed, to.aborted)
			}
		})
	}
}

// TestImportThrough has the files cloned of a blob that a source puts together from files.
func TestImportThrough(t *testing.T) {
	src := newSource(t, ocitest.Image{Layers: text(t, sampleText), Compression: []ocitest.Compression{ocitest.None}})
	layer := src.built.Blobs[0]
	offered := 0
	src.open[layer.Descriptor.Digest] = func(context.Context) io.ReadCloser {
		return fileBlob{bytes.NewReader(layer.Data), func(oci.CloneFunc) { offered++ }}
	}
	s := fastStore(t, fsverity.SHA256)
	if _, err := Import(context.Background(), s, src, ImportOptions{Image: writeImage}); err != nil || offered != 1 {
		t.Errorf("offered %d times, %v", offered, err)
	}
}
