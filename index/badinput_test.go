package index

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
)

// badImage is an image that must be refused. Its last layer is the one at fault; a layer that is fine may come before.
type badImage struct {
	name   string
	layers [][]byte
	as     ocitest.Compression
	blob   func(b []byte) []byte // makes the last layer's blob another one, which the manifest names rightly
	image  func(*ocitest.Image)  // makes it lie in other ways
	source func(*memSource)      // the same, once it is built
	limits Limits
	err    []string // parts of the error
	isTree bool     // the layer is whole, but no tree can be made of it
}

// text gives layers in the text form.
func text(t testing.TB, layers ...string) (tars [][]byte) {
	for _, l := range layers {
		tars = append(tars, buildTar(t, l))
	}
	return tars
}

// last is the last layer's blob.
func last(s *memSource) *ocitest.Blob { return &s.built.Blobs[len(s.built.Blobs)-3] }

// serve makes the source give other bytes for the last layer than its descriptor says.
func serve(change func([]byte) []byte) func(*memSource) {
	return func(s *memSource) { last(s).Data = change(last(s).Data) }
}

// cut takes n bytes from the end.
func cut(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-n] } }

// tail appends.
func tail(s string) func([]byte) []byte {
	return func(b []byte) []byte { return append(slices.Clone(b), s...) }
}

// flipAt changes a byte; a negative place counts from the end.
func flipAt(i int) func([]byte) []byte {
	return func(b []byte) []byte {
		b = slices.Clone(b)
		b[(i+len(b))%len(b)] ^= 0x55
		return b
	}
}

func replaced(s string) func([]byte) []byte { return func([]byte) []byte { return []byte(s) } }

// brokenBlob gives some bytes and then an error.
func brokenBlob(n int, err error) func(*memSource) {
	return func(s *memSource) {
		b := last(s)
		s.open[b.Descriptor.Digest] = func(context.Context) io.ReadCloser {
			return io.NopCloser(io.MultiReader(bytes.NewReader(b.Data[:n]), errReader{err}))
		}
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

const (
	sampleText = "dir usr\nfile usr/small data=x\nfile usr/large size=5000\nfile usr/huge size=1500000"
	goodText   = "dir etc\nfile etc/good size=100"
)

// badClaims are blobs and tars of which manifest or config say something else.
func badClaims(t *testing.T) []badImage {
	sample := text(t, goodText, sampleText)
	other := digest.FromString("other")
	return []badImage{
		{name: "blob digest", layers: sample, source: func(s *memSource) {
			blob := gzipped(sample[1]) // the tar is right, the blob is another one
			s.open[other] = func(context.Context) io.ReadCloser { return io.NopCloser(bytes.NewReader(blob)) }
		}, image: func(m *ocitest.Image) {
			m.EditManifest = func(m *ocispec.Manifest) {
				m.Layers[1].Digest, m.Layers[1].Size = other, int64(len(gzipped(sample[1])))
			}
		}, err: []string{"layer 2 (" + other.String() + ")", "blob has digest sha256:", "want " + other.String()}},
		{name: "blob digest of a plain tar", layers: sample, as: ocitest.None, source: serve(flipAt(3000)),
			err: []string{"layer 2 (sha256:", "blob has digest sha256:", "want sha256:"}},
		{name: "diffID", layers: sample, image: func(m *ocitest.Image) {
			m.EditConfig = func(c *ocispec.Image) { c.RootFS.DiffIDs[1] = other }
		}, err: []string{"layer 2 (sha256:", "the config's diffID", "want " + other.String()}},
		{name: "diffID of a plain tar", layers: sample, as: ocitest.None, image: func(m *ocitest.Image) {
			m.EditConfig = func(c *ocispec.Image) { c.RootFS.DiffIDs[1] = other }
		}, err: []string{"layer 2 (sha256:", "want " + other.String()}},
		{name: "diffID that is the blob's digest", layers: sample, image: func(m *ocitest.Image) {
			b, err := m.Build()
			if err != nil {
				t.Fatal(err)
			}
			m.EditConfig = func(c *ocispec.Image) { c.RootFS.DiffIDs[1] = b.Blobs[1].Descriptor.Digest }
		}, err: []string{"layer 2 (sha256:", "the config's diffID"}},
		{name: "diffIDs exchanged", layers: sample, image: func(m *ocitest.Image) {
			m.EditConfig = func(c *ocispec.Image) { slices.Reverse(c.RootFS.DiffIDs) }
		}, err: []string{"the config's diffID"}},
	}
}

// badData are blobs that can't be decompressed, or not to a tar.
func badData(t *testing.T) []badImage {
	sample := text(t, goodText, sampleText)
	var window bytes.Buffer
	w, err := zstd.NewWriter(&window, zstd.WithWindowSize(256<<20), zstd.WithSingleSegment(false))
	if err == nil {
		_, err = w.Write(sample[1])
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return []badImage{
		{name: "gzip cut short", layers: sample, blob: cut(20), err: []string{"layer 2", "the compressed data ends in the middle"}},
		{name: "gzip without its trailer", layers: sample, blob: cut(8), err: []string{"layer 2", "the compressed data ends in the middle"}},
		{name: "gzip of ten bytes", layers: sample, blob: func(b []byte) []byte { return b[:10] }, err: []string{"layer 2", "the compressed data ends in the middle"}},
		{name: "gzip of two bytes", layers: sample, blob: replaced("\x1f\x8b"), err: []string{"layer 2", "decompress gzip"}},
		{name: "gzip with a wrong sum", layers: sample, blob: flipAt(-5), err: []string{"layer 2", "decompress gzip", "checksum"}},
		{name: "gzip with a wrong length", layers: sample, blob: flipAt(-1), err: []string{"layer 2", "decompress gzip", "checksum"}},
		{name: "gzip of rubbish", layers: sample, blob: replaced("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + strings.Repeat("\xff", 100)), err: []string{"layer 2", "decompress gzip", "corrupt"}},
		{name: "gzip of an unknown method", layers: sample, blob: flipAt(2), err: []string{"layer 2", "decompress gzip"}},
		{name: "zstd cut short", layers: sample, as: ocitest.Zstd, blob: cut(20), err: []string{"layer 2", "the compressed data ends in the middle"}},
		{name: "zstd without its checksum", layers: sample, as: ocitest.Zstd, blob: cut(4), err: []string{"layer 2", "the compressed data ends in the middle"}},
		{name: "zstd of four bytes", layers: sample, as: ocitest.Zstd, blob: func(b []byte) []byte { return b[:4] }, err: []string{"layer 2", "the compressed data ends in the middle"}},
		{name: "zstd with a wrong checksum", layers: sample, as: ocitest.Zstd, blob: flipAt(-2), err: []string{"layer 2", "decompress zstd", "CRC check failed"}},
		{name: "zstd of rubbish", layers: sample, as: ocitest.Zstd, blob: func(b []byte) []byte {
			return append(b[:6:6], strings.Repeat("\xff", 100)...)
		}, err: []string{"layer 2", "decompress zstd"}},
		{name: "zstd with a window of 256 MiB", layers: sample, blob: replaced(window.String()), err: []string{"layer 2", "decompress zstd", "window size exceeded"}},
		{name: "plain tar cut short", layers: sample, as: ocitest.None, blob: cut(1200000), err: []string{"layer 2", `tar entry 4, "usr/huge", at byte 7168`, "unexpected EOF"}},
		{name: "plain tar cut in a header", layers: sample, as: ocitest.None, blob: func(b []byte) []byte { return b[:700] },
			err: []string{"layer 2", "tar entry 2 at byte 512", "the tar ends inside the header"}},

		{name: "bytes behind gzip", layers: sample, blob: tail("rubbish that is no member"), err: []string{"layer 2", "bytes that are no gzip member follow the gzip data's end"}},
		{name: "one byte behind gzip", layers: sample, blob: tail("x"), err: []string{"layer 2", "gzip"}},
		{name: "zeros behind gzip", layers: sample, blob: tail(strings.Repeat("\x00", 512)), err: []string{"layer 2", "bytes that are no gzip member"}},
		{name: "zstd behind gzip", layers: sample, blob: tail("\x28\xb5\x2f\xfd\x00\x00\x00\x00\x00\x00\x00\x00"), err: []string{"layer 2", "bytes that are no gzip member"}},
		{name: "bytes behind zstd", layers: sample, as: ocitest.Zstd, blob: tail("rubbish that is no frame"), err: []string{"layer 2", "zstd"}},
		{name: "one byte behind zstd", layers: sample, as: ocitest.Zstd, blob: tail("x"), err: []string{"layer 2", "zstd"}},
		{name: "gzip behind zstd", layers: sample, as: ocitest.Zstd, blob: tail("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"), err: []string{"layer 2", "zstd"}},
		{name: "gzip in gzip", layers: sample, blob: gzipped, err: []string{"layer 2", "tar entry 1 at byte 0", "this is no tar header"}},
		{name: "xz", layers: sample, blob: replaced("\xfd7zXZ\x00rest"), err: []string{"layer 2", "compressed with xz; gzip, zstd and plain tars can be read"}},
		{name: "bzip2", layers: sample, blob: replaced("BZh91AY&SY"), err: []string{"layer 2", "compressed with bzip2"}},
		{name: "lz4", layers: sample, blob: replaced("\x04\x22\x4d\x18rest"), err: []string{"layer 2", "compressed with lz4"}},
		{name: "a web page", layers: sample, blob: replaced("<html><body>502 Bad Gateway</body></html>"), err: []string{"layer 2", "the tar ends inside the header"}},
	}
}

// badLengths are blobs of another length than announced, and such as break off.
func badLengths(t *testing.T) []badImage {
	sample := text(t, goodText, sampleText)
	other := digest.FromString("other")
	return []badImage{
		{name: "blob shorter than announced", layers: sample, source: serve(cut(1)), err: []string{"layer 2", "the blob ends after", "unexpected EOF"}},
		{name: "empty blob instead", layers: sample, source: serve(replaced("")), err: []string{"layer 2", "the blob ends after 0 of"}},
		{name: "blob longer than announced", layers: sample, source: serve(tail("x")), err: []string{"layer 2", "the blob is longer than the"}},
		{name: "plain tar shorter than announced", layers: sample, as: ocitest.None, source: serve(cut(512)), err: []string{"layer 2", "the blob ends after"}},
		{name: "plain tar longer than announced", layers: sample, as: ocitest.None, source: serve(tail(strings.Repeat("\x00", 512))), err: []string{"layer 2", "the blob is longer than the"}},
		{name: "blob that goes on for long", layers: sample, as: ocitest.None, source: serve(tail(strings.Repeat("\x00", 32<<20))), err: []string{"layer 2", "the blob is longer than the"}},
		{name: "descriptor's size too small", layers: sample, image: func(m *ocitest.Image) {
			m.EditManifest = func(m *ocispec.Manifest) { m.Layers[1].Size-- }
		}, err: []string{"layer 2", "the blob is longer than the"}},
		{name: "descriptor's size too large", layers: sample, image: func(m *ocitest.Image) {
			m.EditManifest = func(m *ocispec.Manifest) { m.Layers[1].Size += 1 << 40 }
		}, err: []string{"layer 2", "the blob ends after"}},
		{name: "connection lost", layers: sample, source: brokenBlob(100, errors.New("connection reset by peer")), err: []string{"layer 2", "connection reset by peer"}},
		{name: "connection lost at once", layers: sample, source: brokenBlob(0, errors.New("connection reset by peer")), err: []string{"layer 2", "connection reset by peer"}},
		{name: "connection lost in a large file", layers: sample, as: ocitest.None, source: brokenBlob(1000000, io.ErrUnexpectedEOF), err: []string{"layer 2", `"usr/huge"`, "unexpected EOF"}},
		{name: "no blob", layers: sample, source: func(s *memSource) { last(s).Descriptor.Digest = other }, err: []string{"layer 2", "no blob sha256:"}},
	}
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b) // a Buffer takes all
	_ = w.Close()
	return out.Bytes()
}

// badTrees are layers that are whole tars but of which no tree can be made, or not one within the limits.
func badTrees(t *testing.T) []badImage {
	bad := func(name, err string, layers ...string) badImage {
		n := fmt.Sprintf("layer %d (sha256:", len(layers)+1)
		return badImage{name: name, layers: text(t, append([]string{goodText}, layers...)...), err: []string{n, err}, isTree: true}
	}
	many := bad("image entries", "entries of the image, missing directories included: 6, over the limit of 5 (--max-image-entries raises it)", "file a\nfile b\nfile c\nfile d")
	many.limits.MaxImageEntries = 5
	made := bad("missing directories", "entries of the image, missing directories included: 21, over the limit of 20 (--max-image-entries raises it)",
		"file "+strings.Repeat("d/", 30)+"a")
	made.limits.MaxImageEntries = 20
	return []badImage{
		bad("whiteout of the root", `entry 1, ".wh..": a whiteout of no name`, "file .wh.."),
		bad("whiteout of what is above the root", `entry 1, ".wh...": a whiteout of no name`, "file /.wh..."),
		bad("whiteout of nothing", `entry 2, "usr/.wh.": a whiteout of no name`, "dir usr\nfile usr/.wh."),
		bad("entry below a whiteout", `entry 1, ".wh.d/a": it is below a whiteout`, "file .wh.d/a"),
		bad("hard link to nothing", `entry 2, "a": hard link to "usr/none", which does not exist`, "dir usr\nhard a -> usr/none"),
		bad("hard link to itself", `entry 1, "a": hard link to itself`, "hard a -> a"),
		bad("hard link to itself, a file below", `entry 1, "etc/good": hard link to itself`, "hard etc/good -> ./etc//good"),
		bad("hard link to a directory", `entry 1, "a": hard link to the directory "etc"`, "hard a -> etc"),
		bad("hard link to a later entry", `entry 1, "a": hard link to "b", which does not exist`, "hard a -> b\nfile b"),
		bad("hard link through a symlink", `entry 2, "a": hard link to "l/good", which does not exist`, "sym l -> etc\nhard a -> l/good"),
		bad("hard link below a file", `entry 1, "a": hard link to "etc/good/x", which does not exist`, "hard a -> etc/good/x"),
		bad("hard link to a whiteout", `entry 2, "a": hard link to ".wh.x", which does not exist`, "file .wh.x\nhard a -> .wh.x"),
		bad("hard link to what is hidden", `entry 1, "a": hard link to "etc/good", which does not exist`, "hard a -> etc/good\nfile etc/.wh.good"),
		bad("parent is a file", `entry 1, "etc/good/a": its parent is no directory`, "file etc/good/a"),
		bad("parent is a symlink to /", `entry 2, "l/a": its parent is no directory (symlinks are not followed)`, "sym l -> /\nfile l/a"),
		bad("parent is a symlink that leads out", `entry 2, "l/etc/passwd": its parent is no directory`, "sym l -> ../../..\nfile l/etc/passwd data=root"),
		bad("parent is a symlink of a lower layer", `entry 1, "l/a": its parent is no directory`, "sym l -> etc", "dir l/a"),
		bad("parent is a device", `entry 2, "c/a": its parent is no directory`, "chr c dev=1,3\nfile c/a"),
		bad("parent is a hard link to a symlink", `entry 3, "m/a": its parent is no directory`, "sym l -> etc\nhard m -> l\nfile m/a"),
		many, made,
	}
}

// badEntries are a few of the tars that badTars has, to see that an import says where the trouble is.
func badEntries(t *testing.T) (images []badImage) {
	picked := map[string]string{
		"name with ..": `"a/../b"`, "absolute name with ..": `"/../../etc/passwd"`, "name empty": "tar entry 1",
		"name with NUL": "tar entry 1", "path of 4096 bytes": "tar entry 1", "hard link outside": `"a"`,
		"sparse file of a TiB": `"s"`, "sparse text map count lies": `"s"`, "too many xattrs": "tar entry 1",
		"too many bytes of xattrs": `"a"`, "extended header of 1 GiB": "tar entry 1", "size of an exabyte": `"a"`,
		"volume label": "tar entry 1", "two sparse maps": `"a"`, "content and a slash": `"a/"`,
	}
	for _, b := range badTars() {
		if at := picked[b.name]; at != "" {
			delete(picked, b.name)
			images = append(images, badImage{name: b.name, layers: [][]byte{buildTar(t, goodText), b.tar.end()}, err: []string{"layer 2 (sha256:", at, b.err}})
		}
	}
	if len(picked) > 0 {
		t.Errorf("badTars has no %v", picked)
	}
	deep := new(tarBuilder).pax("path=" + strings.Repeat("d/", 10_000)).add(head{typ: typeDir}).end()
	return append(images, badImage{name: "depth 10,000", layers: [][]byte{deep}, err: []string{"layer 1 (sha256:", "tar entry 1", "more than 4095"}})
}

// bombs are small and claim to be large. The limits are low, so that a test of them costs little; one real bomb is apart.
func bombs(t *testing.T) []badImage {
	const mib = 1 << 20
	zeros := new(tarBuilder).add(head{name: "zeros", data: string(make([]byte, 20*mib))}).end()
	behind := append(buildTar(t, "file a"), make([]byte, 20*mib)...)
	sparse := new(tarBuilder)
	for range 10 {
		sparse.addOldSparse(3*mib, "", segment{3 * mib, 0})
	}
	layer := Limits{MaxLayerSize: 10 * mib}
	return []badImage{
		{name: "gzip bomb", layers: [][]byte{zeros}, limits: layer, err: []string{"layer 1", `"zeros"`, "over the limit of 10485760 (--max-layer-size raises it)"}},
		{name: "zstd bomb", layers: [][]byte{zeros}, as: ocitest.Zstd, limits: layer, err: []string{"layer 1", `"zeros"`, "(--max-layer-size raises it)"}},
		{name: "gzip bomb of one file", layers: [][]byte{zeros}, limits: Limits{MaxFileSize: mib}, err: []string{"layer 1", `"zeros"`, "bytes of a file: 20971520, over the limit of 1048576 (--max-file-size raises it)"}},
		{name: "gzip bomb behind the end", layers: [][]byte{behind}, limits: layer, err: []string{"layer 1", "(--max-layer-size raises it)"}},
		{name: "zstd bomb behind the end", layers: [][]byte{behind}, as: ocitest.Zstd, limits: layer, err: []string{"layer 1", "(--max-layer-size raises it)"}},
		{name: "gzip bomb of members", layers: [][]byte{buildTar(t, "file a")}, limits: layer, blob: func(b []byte) []byte {
			return bytes.Join([][]byte{b, gzipped(make([]byte, 6*mib)), gzipped(make([]byte, 6*mib))}, nil)
		}, err: []string{"layer 1", "(--max-layer-size raises it)"}},
		{name: "many sparse files", layers: [][]byte{sparse.end()}, limits: layer, err: []string{"layer 1", "tar entry 4", "bytes of a layer: 12582912, over the limit of 10485760 (--max-layer-size raises it)"}},
		{name: "layer entries", layers: text(t, "file a\nfile b\nfile c"), limits: Limits{MaxEntries: 2}, err: []string{"layer 1", "tar entry 3", "entries of the layer: 3, over the limit of 2 (--max-entries raises it)"}},
	}
}

// TestBadImages imports what must be refused. The error names layer and entry; the store has no name for anything but
// layers that are whole, and nothing unfinished; and a good image can be imported after it.
func TestBadImages(t *testing.T) {
	images := slices.Concat(badClaims(t), badData(t), badLengths(t), badTrees(t), badEntries(t), bombs(t))
	if n := len(images) + len(badTars()); n < 60 {
		t.Errorf("only %d cases", n)
	}
	good := newSource(t, ocitest.Image{Layers: text(t, goodText, sampleText)})
	want, err := Digest(context.Background(), good, fsverity.SHA256, ImportOptions{Image: writeImage})
	if err != nil {
		t.Fatal(err)
	}
	goroutines := runtime.NumGoroutine()
	t.Run("image", func(t *testing.T) {
		for _, b := range images {
			t.Run(b.name, func(t *testing.T) {
				t.Parallel()
				s := storetest.New(t, store.InitOptions{})
				b.test(t, s)
				r, err := Import(context.Background(), s, good, ImportOptions{Image: writeImage, Name: "image"})
				if err != nil || r.Image != want.Image {
					t.Errorf("a good image after it: %v, %v; want %s", r, err, want.Image)
				}
			})
		}
	})
	checkGoroutines(t, goroutines)
}

// build makes the source of a bad image.
func (b *badImage) build(t *testing.T) *memSource {
	m := ocitest.Image{Layers: b.layers, Compression: []ocitest.Compression{b.as}}
	if b.image != nil {
		b.image(&m)
	}
	if b.blob != nil {
		b.swapBlob(t, &m)
	}
	s := newSource(t, m)
	if b.blob != nil {
		*last(s) = b.newBlob(t, m)
	}
	if b.source != nil {
		b.source(s)
	}
	return s
}

func (b *badImage) newBlob(t *testing.T, m ocitest.Image) ocitest.Blob {
	m.EditManifest = nil
	built, err := m.Build()
	if err != nil {
		t.Fatal(err)
	}
	blob := built.Blobs[len(b.layers)-1]
	blob.Data = b.blob(blob.Data)
	blob.Descriptor.Digest, blob.Descriptor.Size = digest.FromBytes(blob.Data), int64(len(blob.Data))
	return blob
}

// swapBlob makes the manifest name the other blob.
func (b *badImage) swapBlob(t *testing.T, m *ocitest.Image) {
	d := b.newBlob(t, *m).Descriptor
	m.EditManifest = func(m *ocispec.Manifest) { m.Layers[len(m.Layers)-1] = d }
}

func (b *badImage) test(t *testing.T, s *store.Store) {
	src := b.build(t)
	o := ImportOptions{Image: writeImage, Name: "image", Limits: b.limits}
	_, err := Import(context.Background(), s, src, o)
	checkError(t, err, b.err)
	checkUnnamed(t, s)
	b.checkLayers(t, s, src)
	checkDescriptors(t, s)
	_, err = Digest(context.Background(), src, s.Algorithm(), o)
	checkError(t, err, b.err)
}

func checkError(t *testing.T, err error, parts []string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error; want %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v\nhas no %q", err, part)
		}
	}
	for _, noise := range []string{"context canceled", "\n", errGivenUp.Error()} {
		if strings.Contains(err.Error(), noise) {
			t.Errorf("%q has %q in it", err, noise)
		}
	}
}

// checkLayers checks that the layer at fault has no entry and no note, and that no other layer has them by halves.
func (b *badImage) checkLayers(t *testing.T, s *store.Store, src *memSource) {
	t.Helper()
	img, err := src.Image(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(named(t, s), "\n")
	l := img.Layers[len(img.Layers)-1]
	for _, name := range []string{string(l.DiffID), l.Descriptor.Digest.String()} {
		if !b.isTree && strings.Contains(all, name) {
			t.Errorf("the store has a name for the layer at fault:\n%s", all)
		}
	}
	for _, path := range named(t, s) {
		_, d, isLayer := strings.Cut(path, "oci-layer-")
		if note := "flatroot/verified/" + d; isLayer && !strings.Contains(all, note) {
			t.Errorf("%s has no note", path)
		}
	}
}

// checkDescriptors checks that no file of the store without a name is still open.
func checkDescriptors(t *testing.T, s *store.Store) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if at, err := os.Readlink(link); err == nil && strings.HasPrefix(at, s.Dir()) && strings.HasSuffix(at, "(deleted)") {
			t.Errorf("%s is still open", at)
		}
	}
}

// checkGoroutines waits until there are no more goroutines than there were.
func checkGoroutines(t *testing.T, before int) {
	t.Helper()
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<20)
	t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
}

// TestBlobWithoutEnd reads a blob that goes on for ever, in the ways of buffers, which drop an error that comes with all the
// bytes that they asked for.
func TestBlobWithoutEnd(t *testing.T) {
	b := &blobReader{r: zeroReader{}, hash: sha256.New(), size: 1000}
	p := make([]byte, 4096)
	for range 3 {
		n, err := io.ReadFull(b, p)
		if b.n != 1000 || n > 1000 || !errorIs(err, "the blob is longer than the 1000 bytes") {
			t.Errorf("%d bytes, %d in all: %v", n, b.n, err)
		}
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
