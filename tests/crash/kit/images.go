package kit

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
)

// The names in the layout that WriteLayout makes. V1 and V2 have all layers but one in common; Other shares a file with
// them, and no layer. All is an image index whose images, for this machine and another, share layers with V1.
const (
	V1    = "v1"
	V2    = "v2"
	Other = "other"
	All   = "all"
)

// WriteLayout makes an OCI layout with the images V1, V2 and Other, and the image index All. The name of the tests makes them differ from those of
// other tests, since collecting garbage keeps an image that is mounted anywhere on the machine, whatever store it is from.
func WriteLayout(dir, tests string) error {
	if err := eachImage(tests, func(name string, b *ocitest.Built) error { return b.WriteLayout(dir, name) }); err != nil {
		return err
	}
	x := ocitest.Index{Attested: true, Images: []ocitest.Image{
		{Layers: [][]byte{baseLayer(sharedBy(tests)), topLayer(3)}},
		{Layers: [][]byte{wholeLayer()}, Platform: oci.Platform{OS: "linux", Architecture: "s390x"}},
	}}
	if _, err := x.WriteLayout(dir, All); err != nil {
		return fmt.Errorf("write image index %s: %w", All, err)
	}
	return nil
}

// sharedBy is the content of a file that all images of the tests have.
func sharedBy(tests string) []byte { return bytes.Repeat([]byte(tests+"\n"), 3000/len(tests)) }

// Push puts the same images into a repository of a registry, such as http://127.0.0.1:5000, and returns the blob of the
// lowest layer of V1, which has about 1 MiB.
func Push(registryURL, repository, tests string) (base ocitest.Blob, err error) {
	err = eachImage(tests, func(name string, b *ocitest.Built) error {
		if name == V1 {
			base = b.Blobs[0]
		}
		return b.Push(registryURL, repository, name)
	})
	return base, err
}

func eachImage(tests string, put func(name string, b *ocitest.Built) error) error {
	shared := sharedBy(tests)
	base, whole := baseLayer(shared), wholeLayer()
	for _, i := range []struct {
		name   string
		layers [][]byte
	}{
		{V1, [][]byte{base, whole, topLayer(1)}},
		{V2, [][]byte{base, whole, topLayer(2)}},
		{Other, [][]byte{otherLayer(shared)}},
	} {
		m := ocitest.Image{Layers: i.layers, Compression: []ocitest.Compression{ocitest.Gzip, ocitest.Zstd, ocitest.None}}
		b, err := m.Build()
		if err == nil {
			err = put(i.name, b)
		}
		if err != nil {
			return fmt.Errorf("write image %s: %w", i.name, err)
		}
	}
	return nil
}

// bytesOf are random ones, the same for the same seed.
func bytesOf(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// mtime is that of all files; with nanoseconds, so that entries have PAX records.
var mtime = time.Unix(1_700_000_000, 123_456_789)

// layer writes a tar.
type layer struct {
	out bytes.Buffer
	w   *tar.Writer
}

func newLayer() *layer {
	l := new(layer)
	l.w = tar.NewWriter(&l.out)
	return l
}

// add panics on what a tar can't have, as only a wrong table has it.
func (l *layer) add(h tar.Header, content []byte) *layer {
	h.Size, h.ModTime, h.Format = int64(len(content)), mtime, tar.FormatPAX
	if h.Mode == 0 {
		h.Mode = 0o644
	}
	if err := l.w.WriteHeader(&h); err != nil {
		panic(err)
	}
	if _, err := l.w.Write(content); err != nil {
		panic(err)
	}
	return l
}

func (l *layer) dir(name string) *layer {
	return l.add(tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
}

func (l *layer) file(name string, content []byte) *layer {
	return l.add(tar.Header{Name: name, Typeflag: tar.TypeReg}, content)
}

func (l *layer) link(kind byte, name, target string) *layer {
	return l.add(tar.Header{Name: name, Typeflag: kind, Linkname: target}, nil)
}

func (l *layer) bytes() []byte {
	if err := l.w.Close(); err != nil {
		panic(err)
	}
	return l.out.Bytes()
}

// large is the size of the base layer's largest file, which takes several writes.
const large = 1<<20 + 4097

// baseLayer has files of all the kinds that are stored in different ways: empty, inline, of one block, of several, large. All
// images have the file shared.
func baseLayer(shared []byte) []byte {
	l := newLayer().
		dir("etc").file("etc/empty", nil).file("etc/hostname", []byte("inline\n")).file("etc/inline", bytesOf(2, 64)).
		dir("usr").dir("usr/lib").
		file("usr/lib/shared", shared).file("usr/lib/small", bytesOf(3, 65)).file("usr/lib/block", bytesOf(4, 4096)).
		file("usr/lib/blocks", bytesOf(5, 4097)).file("usr/lib/large", bytesOf(6, large)).
		file("usr/lib/gone", bytesOf(7, 200)).file("usr/lib/changed", bytesOf(8, 300)).
		link(tar.TypeLink, "usr/lib/hard", "usr/lib/blocks").link(tar.TypeSymlink, "usr/lib/soft", "small")
	l.add(tar.Header{
		Name: "usr/lib/private", Typeflag: tar.TypeReg, Mode: 0o4750, Uid: 1, Gid: 2,
		PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
	}, bytesOf(9, 1000))
	return l.bytes()
}

// topLayer is what the versions differ by: a file of their own, one that they change, and one that the second takes away.
func topLayer(version int) []byte {
	seed := uint64(100 * version)
	l := newLayer().dir("usr").dir("usr/lib").
		file("usr/lib/changed", bytesOf(seed, 300+version)).file("usr/lib/version", bytesOf(seed+1, 5000))
	if version == 2 {
		l.file("usr/lib/.wh.gone", nil)
	}
	return l.bytes()
}

func otherLayer(shared []byte) []byte {
	return newLayer().dir("usr").file("usr/shared", shared).file("usr/other", bytesOf(50, 2000)).bytes()
}

// wholeLayer is one that readers of tars cut differently, so that it is stored as one object: its first entry has an
// extension header without a magic number, as tars from before POSIX have it.
func wholeLayer() []byte {
	b := newLayer().dir("opt").file("opt/whole", bytesOf(60, 700)).bytes()
	header := b[:512]
	clear(header[257:265]) // magic and version, struct posix_header of GNU tar's tar.h
	copy(header[148:156], "        ")
	sum := 0
	for _, c := range header {
		sum += int(c)
	}
	copy(header[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return b
}
