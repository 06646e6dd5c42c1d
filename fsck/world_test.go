package fsck_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsck"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/layout"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
	"github.com/flatroot/flatroot/tree"
)

// world is a store with random images, and the layout that they came from.
type world struct {
	t      testing.TB
	rng    *rand.Rand
	layout string
	s      *store.Store
	images []worldImage
	keep   bool // blobs of what is pulled
}

type worldImage struct {
	name   string
	report *index.Report
	config string
	layers []oci.DiffID
}

func imageWriter(w io.Writer, t *tree.Tree) error {
	_, err := erofs.Write(w, t, erofs.WriteOptions{Format: erofs.Format1})
	return err
}

// newWorld makes a store with up to three images that share layers, all of it decided by the seed.
func newWorld(t testing.TB, seed uint64) *world {
	t.Helper()
	dir := fastDir(t)
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), layout: filepath.Join(dir, "layout")}
	path := filepath.Join(dir, "store")
	alg := fsverity.SHA256
	if seed%5 == 4 {
		alg = fsverity.SHA512
	}
	if err := store.Init(path, store.InitOptions{Algorithm: alg}); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.s, err = store.Open(path, store.OpenOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.s.Close() })
	base := w.randomLayer(nil)
	for i := range 1 + w.rng.IntN(3) {
		layers := [][]byte{base}
		for range w.rng.IntN(3) {
			layers = append(layers, w.randomLayer([]string{"d0", "f0", "d1/f1"}))
		}
		rules := index.OCI1
		if w.rng.IntN(4) == 0 {
			rules = index.Faithful1
		}
		w.pull(fmt.Sprintf("image%d", i), layers, rules)
	}
	return w
}

// fastDir is a directory in memory where there is one: thousands of stores are made and synced.
func fastDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "fsck-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// randomLayer is a tar of files small and large, hard links, symlinks, and whiteouts of some names.
func (w *world) randomLayer(hide []string) []byte {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	put := func(h *tar.Header, data []byte) {
		h.Format, h.ModTime, h.Size = tar.FormatPAX, time.Unix(1700000000+w.rng.Int64N(1e6), 0), int64(len(data))
		if err := errors.Join(tw.WriteHeader(h), second(tw.Write(data))); err != nil {
			w.t.Fatal(err)
		}
	}
	put(&tar.Header{Typeflag: tar.TypeDir, Name: "usr/", Mode: 0o755}, nil)
	for _, name := range hide {
		if w.rng.IntN(3) == 0 {
			dir, base := filepath.Split(name)
			put(&tar.Header{Typeflag: tar.TypeReg, Name: dir + ".wh." + base, Mode: 0o644}, nil)
		}
	}
	var files []string
	for i := range 3 + w.rng.IntN(12) {
		name := fmt.Sprintf("f%d", i)
		if d := w.rng.IntN(3); d > 0 {
			name = fmt.Sprintf("d%d/%s", d, name)
		}
		switch {
		case len(files) > 0 && w.rng.IntN(8) == 0:
			put(&tar.Header{Typeflag: tar.TypeLink, Name: name + "l", Linkname: files[w.rng.IntN(len(files))], Mode: 0o644}, nil)
		case w.rng.IntN(10) == 0:
			put(&tar.Header{Typeflag: tar.TypeSymlink, Name: name + "s", Linkname: "f0", Mode: 0o777}, nil)
		default:
			put(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, w.randomData())
			files = append(files, name)
		}
	}
	if err := tw.Close(); err != nil {
		w.t.Fatal(err)
	}
	return b.Bytes()
}

func second(_ int, err error) error { return err }

func (w *world) randomData() []byte {
	sizes := []int{0, 1, 64, 65, 100, 4095, 4096, 4097, 10000, 70000}
	b := make([]byte, sizes[w.rng.IntN(len(sizes))])
	for i := range b {
		b[i] = byte(w.rng.Uint32())
	}
	return b
}

func (w *world) pull(name string, layers [][]byte, rules index.Rules) {
	w.t.Helper()
	m := ocitest.Image{Layers: layers, Labels: map[string]string{"name": name}}
	if _, err := m.WriteLayout(w.layout, name); err != nil {
		w.t.Fatal(err)
	}
	src := w.open(name)
	defer src.Close()
	r, err := index.Import(context.Background(), w.s, src, index.ImportOptions{Image: imageWriter, Name: name, Rules: rules, KeepBlobs: w.keep})
	if err != nil {
		w.t.Fatal(err)
	}
	i := worldImage{name: name, report: r, config: r.Config.String()}
	for _, l := range layers {
		i.layers = append(i.layers, oci.DiffID(digestOf(l)))
	}
	w.images = append(w.images, i)
}

func (w *world) open(name string) oci.Source {
	w.t.Helper()
	ref, err := oci.ParseReference("oci:" + w.layout + ":" + name)
	if err != nil {
		w.t.Fatal(err)
	}
	src, err := layout.Open(ref, layout.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	return src
}

// path is a path in the store.
func (w *world) path(name string) string { return filepath.Join(w.s.Dir(), name) }

func (w *world) object(d fsverity.Digest) string { return w.path("objects/" + d.ObjectPath()) }

// pick gives one of a list at random.
func pick[T any](w *world, list []T) T {
	w.t.Helper()
	if len(list) == 0 {
		w.t.Fatal("there is nothing to pick from")
	}
	return list[w.rng.IntN(len(list))]
}

// fileObjects are the objects of the files of an image, with the paths where its tree has them.
func (w *world) fileObjects(i worldImage) map[fsverity.Digest][]string {
	w.t.Helper()
	f, err := w.s.OpenObject(i.report.Image)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		w.t.Fatal(err)
	}
	img, err := erofs.Open(f, st.Size())
	if err != nil {
		w.t.Fatal(err)
	}
	found := map[fsverity.Digest][]string{}
	w.walkImage(img, img.Root(), "", found)
	return found
}

// walkImage goes through the image as the kernel would, without the tree that package fsck uses.
func (w *world) walkImage(img *erofs.Image, nid erofs.Nid, path string, found map[fsverity.Digest][]string) {
	i, err := img.Inode(nid)
	if err != nil {
		w.t.Fatal(err)
	}
	if !i.IsDir() {
		if b, ok, err := i.Backing(); err != nil {
			w.t.Fatal(err)
		} else if ok {
			found[b.Digest] = append(found[b.Digest], path)
		}
		return
	}
	for e, err := range i.Dirents() {
		if err != nil {
			w.t.Fatal(err)
		}
		if e.Name != "." && e.Name != ".." {
			w.walkImage(img, e.Nid, path+"/"+e.Name, found)
		}
	}
}

// hitsOf says which images have an object in their trees, and where.
func (w *world) hitsOf(d fsverity.Digest) map[string][]string {
	hits := map[string][]string{}
	for _, i := range w.images {
		if paths := w.fileObjects(i)[d]; len(paths) > 0 {
			slices.Sort(paths)
			hits[i.name] = paths
		}
	}
	return hits
}

// allFileObjects are those that occur in some image's tree, in order.
func (w *world) allFileObjects() []fsverity.Digest {
	seen := map[fsverity.Digest]bool{}
	var list []fsverity.Digest
	for _, i := range w.images {
		for d := range w.fileObjects(i) {
			if !seen[d] {
				seen[d] = true
				list = append(list, d)
			}
		}
	}
	slices.SortFunc(list, fsverity.Digest.Compare)
	return list
}

func (w *world) allFileObjectsOf(i worldImage) []fsverity.Digest {
	return slices.SortedFunc(maps.Keys(w.fileObjects(i)), fsverity.Digest.Compare)
}

func (w *world) entry(k store.Kind, name string) fsverity.Digest {
	w.t.Helper()
	d, err := w.s.Entry(k, name)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// lead points an entry of streams at another object.
func (w *world) lead(name string, to fsverity.Digest) {
	w.t.Helper()
	w.must(os.Remove(w.path(name)))
	w.must(os.Symlink("../objects/"+to.ObjectPath(), w.path(name)))
}

func (w *world) check(o fsck.Options) *fsck.Report {
	w.t.Helper()
	r, err := fsck.Check(context.Background(), w.s, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// putStream stores a stream of any content.
func (w *world) putStream(kind stream.ContentType, refs []stream.NamedRef, data []byte) fsverity.Digest {
	w.t.Helper()
	sw := stream.NewWriter(w.s.Algorithm(), kind, stream.WriterOptions{})
	defer sw.Close()
	for _, r := range refs {
		w.must(sw.NamedRef(r.Name, r.ID))
	}
	d := fsverity.Sum(w.s.Algorithm(), data)
	_, err := w.s.PutObject(d, data)
	w.must(err)
	w.must(sw.External(d, int64(len(data))))
	var b bytes.Buffer
	_, err = sw.WriteTo(&b)
	w.must(err)
	id := fsverity.Sum(w.s.Algorithm(), b.Bytes())
	_, err = w.s.PutObject(id, b.Bytes())
	w.must(err)
	return id
}

func (w *world) namedRefs(id fsverity.Digest) []stream.NamedRef {
	w.t.Helper()
	f, err := w.s.OpenObject(id)
	w.must(err)
	defer f.Close()
	st, err := f.Stat()
	w.must(err)
	s, err := stream.Open(f, st.Size())
	w.must(err)
	refs, err := s.NamedRefs()
	w.must(err)
	return refs
}

// describe is a report as text, for failures.
func describe(r *fsck.Report) string {
	var b strings.Builder
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "%s %s %s: %v", p.Severity, p.Code, p.Subject, p.Err)
		for _, h := range p.Images {
			fmt.Fprintf(&b, " [%s %v]", h.Name, h.Paths)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// overwrite changes a file in place, whatever its permissions.
func (w *world) overwrite(path string, b []byte) { w.must(os.WriteFile(path, b, 0o644)) }

func (w *world) read(path string) []byte {
	w.t.Helper()
	b, err := os.ReadFile(path)
	w.must(err)
	return b
}

// flip flips a random bit of a file.
func (w *world) flip(path string) {
	w.t.Helper()
	b := w.read(path)
	bit := w.rng.IntN(8 * len(b))
	b[bit/8] ^= 1 << (bit % 8)
	w.overwrite(path, b)
}
