package chunk_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/chunk"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/tree"
	"github.com/flatroot/flatroot/tree/dump"
)

func check(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// world is a tree, and the contents of its files that are not inline.
type world struct {
	t        testing.TB
	tree     *tree.Tree
	contents map[fsverity.Digest][]byte
}

// notUTF8 is what some programs have trouble with.
const notUTF8 = "\xff\xfe"

var dirAttr = tree.Attr{Mode: tree.Directory | 0o755, MtimeSec: 1_700_000_000, MtimeNsec: 5}

func newWorld(t testing.TB) *world {
	return &world{t: t, tree: tree.New(fsverity.SHA256, dirAttr), contents: map[fsverity.Digest][]byte{}}
}

// at finds a path, which must be there unless it is the last name of it.
func (w *world) at(path string) (dir tree.Node, name []byte) {
	w.t.Helper()
	parts := strings.Split(path, "/")
	for _, p := range parts[:len(parts)-1] {
		next, ok := w.tree.Lookup(dir, []byte(p))
		if !ok {
			w.t.Fatalf("%q: no %q", path, p)
		}
		dir = next
	}
	return dir, []byte(parts[len(parts)-1])
}

func (w *world) node(path string) tree.Node {
	w.t.Helper()
	dir, name := w.at(path)
	n, ok := w.tree.Lookup(dir, name)
	if !ok {
		w.t.Fatalf("%q is missing", path)
	}
	return n
}

func (w *world) add(path string, a tree.Attr) tree.Node {
	w.t.Helper()
	dir, name := w.at(path)
	n, err := w.tree.Add(dir, name, a)
	check(w.t, err)
	return n
}

func (w *world) dir(path string) tree.Node {
	w.t.Helper()
	return w.add(path, dirAttr)
}

func (w *world) file(path, content string) tree.Node {
	w.t.Helper()
	n := w.add(path, tree.Attr{Mode: tree.Regular | 0o644, MtimeSec: 1_600_000_000})
	w.fill(n, []byte(content))
	return n
}

// fill gives a file content, by the rule that small ones are inline.
func (w *world) fill(n tree.Node, content []byte) {
	w.t.Helper()
	a := w.tree.Attr(n)
	a.Size = uint64(len(content))
	check(w.t, w.tree.SetAttr(n, a))
	if len(content) <= index.InlineMax {
		check(w.t, w.tree.SetObject(n, fsverity.Digest{}), w.tree.SetContent(n, content))
		return
	}
	d := fsverity.Sum(fsverity.SHA256, content)
	w.contents[d] = content
	check(w.t, w.tree.SetObject(n, d))
}

func (w *world) link(path, target string) {
	w.t.Helper()
	dir, name := w.at(path)
	check(w.t, w.tree.Link(dir, name, w.node(target)))
}

func (w *world) touch(path string, sec int64) {
	w.t.Helper()
	n := w.node(path)
	a := w.tree.Attr(n)
	a.MtimeSec = sec
	check(w.t, w.tree.SetAttr(n, a))
}

func (w *world) remove(path string) {
	w.t.Helper()
	dir, name := w.at(path)
	if !w.tree.Remove(dir, name) {
		w.t.Fatalf("%q is missing", path)
	}
	w.tree.Canonicalize()
}

func (w *world) open(n tree.Node) (io.ReadCloser, error) {
	b, ok := w.contents[w.tree.Digest(n)]
	if !ok {
		return nil, fmt.Errorf("no content of %s", w.tree.Path(n))
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// layer is the tar of what has says.
func (w *world) layer(has func(tree.Node) bool) []byte {
	w.t.Helper()
	var b bytes.Buffer
	check(w.t, chunk.WriteLayer(context.Background(), &b, w.tree, has, w.open))
	return b.Bytes()
}

func all(tree.Node) bool { return true }

// below has what is below a directory.
func (w *world) below(path string) func(tree.Node) bool {
	top := w.node(path)
	return func(n tree.Node) bool {
		for n != top && n != tree.Root {
			n = w.tree.Parent(n)
		}
		return n == top
	}
}

func (w *world) dump() string { return dumpOf(w.t, w.tree) }

func dumpOf(t testing.TB, tr *tree.Tree) string {
	t.Helper()
	tr.Canonicalize()
	var b strings.Builder
	check(t, dump.Write(&b, tr))
	return b.String()
}

// wantSame compares dumps and shows the first line that differs.
func wantSame(t testing.TB, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Fatalf("%s, line %d\n got %s\nwant %s", what, i+1, g[i], w[i])
		}
	}
	t.Fatalf("%s: %d lines, want %d", what, len(g), len(w))
}

// memSource is an image of layers in memory.
type memSource struct {
	image *oci.Image
	blobs map[digest.Digest][]byte
}

func written(tar []byte, components ...string) chunk.WrittenLayer {
	d := digest.FromBytes(tar)
	return chunk.WrittenLayer{
		Layer: oci.Layer{
			Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(len(tar))}, DiffID: oci.DiffID(d),
		},
		Components: components,
	}
}

func newSource(t testing.TB, layers ...[]byte) *memSource {
	t.Helper()
	s := &memSource{blobs: map[digest.Digest][]byte{}}
	var list []chunk.WrittenLayer
	for _, b := range layers {
		l := written(b)
		s.blobs[l.Descriptor.Digest] = b
		list = append(list, l)
	}
	var err error
	s.image, err = chunk.NewImage(list, chunk.ImageOptions{})
	check(t, err)
	return s
}

func (s *memSource) String() string { return "memory" }
func (s *memSource) Close() error   { return nil }

func (s *memSource) Resolve(context.Context) (ocispec.Descriptor, error) {
	return s.image.Descriptor, nil
}

func (s *memSource) Image(context.Context) (*oci.Image, error) { return s.image, nil }

func (s *memSource) OpenBlob(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(s.blobs[d.Digest])), nil
}

// flatten is the tree that layers make.
func flatten(t testing.TB, layers ...[]byte) string {
	t.Helper()
	tr, err := index.ReadTree(context.Background(), newSource(t, layers...), fsverity.SHA256, index.ImportOptions{Rules: index.Faithful1})
	check(t, err)
	return dumpOf(t, tr)
}

// randomWorld is a tree with all that a layer can hold. odd is what some names and targets have in them.
func randomWorld(t testing.TB, r *rand.Rand, odd string) *world {
	w := newWorld(t)
	dirs := []tree.Node{tree.Root}
	var others []tree.Node
	check(t, w.tree.SetAttr(tree.Root, randomAttr(r, tree.Directory)))
	for i := range 5 + r.IntN(60) {
		dir := dirs[r.IntN(len(dirs))]
		name := randomName(r, odd, i)
		if len(others) > 0 && r.IntN(6) == 0 {
			check(t, w.tree.Link(dir, name, others[r.IntN(len(others))]))
			continue
		}
		types := []uint32{tree.Directory, tree.Directory, tree.Regular, tree.Regular, tree.Regular, tree.Symlink, tree.CharDevice, tree.BlockDevice, tree.FIFO}
		n, err := w.tree.Add(dir, name, randomAttr(r, types[r.IntN(len(types))]))
		check(t, err, w.tree.SetXattrs(n, randomXattrs(r)))
		switch w.tree.Mode(n) & tree.TypeMask {
		case tree.Directory:
			dirs = append(dirs, n)
			continue
		case tree.Regular:
			w.fill(n, randomBytes(r, []int{0, 1, 64, 65, 511, 512, 513, 4096, 5000, 20_000}[r.IntN(10)]))
		case tree.Symlink:
			check(t, w.tree.SetTarget(n, bytes.Repeat([]byte("../t"+odd), 1+r.IntN(40))))
		}
		others = append(others, n)
	}
	w.tree.Canonicalize()
	return w
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.IntN(4))
	}
	return b
}

func randomName(r *rand.Rand, odd string, i int) []byte {
	prefixes := []string{"a", "Z", "ä", odd, " \n", "-", ".w", "..", strings.Repeat("long", 20), strings.Repeat("n", 240)}
	return fmt.Appendf(nil, "%s%d", prefixes[r.IntN(len(prefixes))], i)
}

func randomAttr(r *rand.Rand, typ uint32) tree.Attr {
	pick := func(list ...int64) int64 { return list[r.IntN(len(list))] }
	a := tree.Attr{
		Mode: typ | r.Uint32N(0o10000), UID: uint32(pick(0, 0, 1000, 1<<21, 1<<32-2)), GID: uint32(pick(0, 0, 5, 1<<31)),
		MtimeSec: pick(0, 1, -1, 1_700_000_000, 1<<33, 1<<40, -1<<40), MtimeNsec: uint32(pick(0, 0, 1, 120_000_000, 999_999_999)),
	}
	if typ == tree.CharDevice || typ == tree.BlockDevice {
		a.Rdev = []uint32{0, 0x103, 0xffffffff}[r.IntN(3)]
	}
	return a
}

func randomXattrs(r *rand.Rand) []tree.Xattr {
	if r.IntN(3) > 0 {
		return nil
	}
	return []tree.Xattr{{Name: "user.b", Value: []byte("\x00\n=\xff")}, {Name: "user.a", Value: randomBytes(r, 1+r.IntN(600))}}[:1+r.IntN(2)]
}
