package index

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
)

// chunkedBlob is a zstd:chunked layer while a test makes it. What a test changes in its tables is in the blob, whose digest is
// right in spite of it.
type chunkedBlob struct {
	frames      bytes.Buffer
	rows        []chunkedRow
	lines       []string // of the tar-split data
	version     int
	tail        string // of the TOC, before its last brace
	noSum       bool   // the TOC has no digest of the tar-split data
	annotations map[string]string
}

type chunkedRow struct {
	Type        string `json:"type"`
	Name        string `json:"name"`
	Size        int64  `json:"size,omitempty"`
	Digest      string `json:"digest,omitempty"`
	Offset      int64  `json:"offset,omitempty"`
	EndOffset   int64  `json:"endOffset,omitempty"`
	ChunkSize   int64  `json:"chunkSize,omitempty"`
	ChunkOffset int64  `json:"chunkOffset,omitempty"`
	ChunkType   string `json:"chunkType,omitempty"`
}

var testEncoder, _ = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))

func (b *chunkedBlob) frame(data []byte) span {
	at := int64(b.frames.Len())
	b.frames.Write(testEncoder.EncodeAll(data, nil))
	return span{at, int64(b.frames.Len())}
}

// hide adds bytes that who reads the whole blob skips (RFC 8878, 3.1.2).
func (b *chunkedBlob) hide(data []byte) span {
	b.frames.Write([]byte{0x50, 0x2a, 0x4d, 0x18})
	b.frames.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(data))))
	at := int64(b.frames.Len())
	b.frames.Write(data)
	return span{at, at + int64(len(data))}
}

// chunkBytes of a file are in one frame, at most.
const testChunk = 40_000

// newChunked puts each content of a tar in frames of its own.
func newChunked(t testing.TB, data []byte) *chunkedBlob {
	t.Helper()
	b := &chunkedBlob{version: 1, annotations: map[string]string{}}
	r := bytes.NewReader(data)
	in := tar.NewReader(struct{ io.Reader }{r}) // which it can't seek in, so that it stops where the content begins
	begin := 0
	for {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		at := len(data) - r.Len()
		if h.Typeflag != tar.TypeReg {
			b.rows = append(b.rows, chunkedRow{Type: "dir", Name: h.Name})
			continue
		}
		b.rows = append(b.rows, chunkedRow{Type: "reg", Name: h.Name, Size: h.Size})
		if h.Size == 0 {
			continue
		}
		b.frame(data[begin:at])
		begin = at + int(h.Size)
		b.file(len(b.rows)-1, data[at:begin])
	}
	b.frame(data[begin:])
	var lines bytes.Buffer
	s, done, err := asm.NewInputTarStreamWithDone(bytes.NewReader(data), storage.NewJSONPacker(&lines), nil)
	must(t, err)
	_, err = io.Copy(io.Discard, s)
	must(t, err)
	must(t, errors.Join(s.Close(), <-done))
	b.lines = slices.Collect(strings.Lines(lines.String()))
	return b
}

// file adds a file's content, and rows for its parts if it has several.
func (b *chunkedBlob) file(row int, content []byte) {
	first := &b.rows[row]
	first.Digest = digest.FromBytes(content).String()
	first.Offset = int64(b.frames.Len())
	var more []chunkedRow
	for i := 0; i < len(content); i += testChunk {
		part := content[i:min(i+testChunk, len(content))]
		at := b.frame(part)
		if i > 0 {
			more = append(more, chunkedRow{Type: "chunk", Name: first.Name, Offset: at.offset, ChunkOffset: int64(i), ChunkSize: int64(len(part))})
		}
	}
	first.EndOffset = int64(b.frames.Len())
	b.rows = append(b.rows, more...)
}

// row is the one of a file.
func (b *chunkedBlob) row(name string) *chunkedRow {
	i := slices.IndexFunc(b.rows, func(r chunkedRow) bool { return r.Name == name && r.Type == "reg" })
	return &b.rows[i]
}

// build gives the blob, with the annotations that the blob has not got from the test already.
func (b *chunkedBlob) build(t testing.TB) []byte {
	t.Helper()
	split := []byte(strings.Join(b.lines, ""))
	splitStored := testEncoder.EncodeAll(split, nil)
	sum := digest.FromBytes(splitStored)
	if b.noSum {
		sum = ""
	}
	toc, err := json.Marshal(struct {
		Version  int           `json:"version"`
		Entries  []chunkedRow  `json:"entries"`
		TarSplit digest.Digest `json:"tarSplitDigest,omitempty"`
	}{b.version, b.rows, sum})
	must(t, err)
	toc = append(toc[:len(toc)-1], (b.tail + "}")...)
	tocStored := testEncoder.EncodeAll(toc, nil)
	tocAt, splitAt := b.hide(tocStored), b.hide(splitStored)
	for name, value := range map[string]string{
		annotationTOCSum:   digest.FromBytes(tocStored).String(),
		annotationTOC:      fmt.Sprintf("%d:%d:%d:1", tocAt.offset, tocAt.length(), len(toc)),
		annotationTarSplit: fmt.Sprintf("%d:%d:%d", splitAt.offset, splitAt.length(), len(split)),
	} {
		if _, has := b.annotations[name]; !has {
			b.annotations[name] = value
		}
	}
	return b.frames.Bytes()
}

// partSource gives parts of its blobs, and counts what it gives.
type partSource struct {
	*memSource
	mu      sync.Mutex
	asked   []span
	opened  int
	noWhole bool                                             // blobs can be had in parts only
	part    func(d digest.Digest, s span) (io.Reader, error) // instead of the part; nil: it is the part
}

func (s *partSource) OpenBlob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	if s.noWhole {
		return nil, errors.New("it is to be had in parts only")
	}
	return s.memSource.OpenBlob(ctx, d)
}

func (s *partSource) OpenBlobFrom(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := s.OpenBlob(ctx, d)
	if err == nil {
		_, err = io.CopyN(io.Discard, r, offset)
	}
	return r, err
}

func (s *partSource) OpenRange(ctx context.Context, d ocispec.Descriptor, offset, length int64) (io.ReadCloser, error) {
	at := span{offset, offset + length}
	if err := errors.Join(ctx.Err(), oci.CheckRange(d, offset, length)); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.asked = append(s.asked, at)
	s.mu.Unlock()
	if s.part != nil {
		r, err := s.part(d.Digest, at)
		if r != nil || err != nil {
			return io.NopCloser(r), err
		}
	}
	for _, b := range s.built.Blobs {
		if b.Descriptor.Digest == d.Digest {
			return io.NopCloser(bytes.NewReader(b.Data[offset : offset+length])), nil
		}
	}
	return nil, fmt.Errorf("no blob %s", d.Digest)
}

// requests is how many parts have been asked for so far, by several goroutines.
func (s *partSource) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// chunkedSource is an image of layers that are zstd:chunked, each after a change.
func chunkedSource(t testing.TB, tars [][]byte, change func(b *chunkedBlob)) *partSource {
	t.Helper()
	var blobs []ocitest.Blob
	for _, data := range tars {
		b := newChunked(t, data)
		if change != nil {
			change(b)
		}
		blob := b.build(t)
		blobs = append(blobs, ocitest.Blob{Data: blob, Descriptor: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayerZstd, Digest: digest.FromBytes(blob), Size: int64(len(blob)), Annotations: b.annotations,
		}})
	}
	src := newSource(t, ocitest.Image{Layers: tars, Compression: []ocitest.Compression{ocitest.None}, EditManifest: func(m *ocispec.Manifest) {
		for i, b := range blobs {
			m.Layers[i] = b.Descriptor
		}
	}})
	copy(src.built.Blobs, blobs)
	return &partSource{memSource: src}
}

// partFiles are files that don't compress, of every size that matters, 2.6 MB together.
func partFiles() []ocitest.File {
	files := []ocitest.File{{Name: "usr/"}, {Name: "usr/empty"}}
	for i := range 30 {
		files = append(files, ocitest.File{Name: fmt.Sprintf("usr/file%02d", i), Data: noise(uint64(i), 50_000)})
	}
	return append(files,
		ocitest.File{Name: "usr/inline", Data: "small enough to be inline"},
		ocitest.File{Name: "usr/large", Data: noise(1000, 1_100_000)},
		ocitest.File{Name: "usr/zeros", Data: strings.Repeat("\x00", 100_000)},
	)
}

func noise(seed uint64, n int) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b) // it never fails
	return string(b)
}

// changed gives other files: each function is for the file of that name.
func changed(files []ocitest.File, change map[string]func(f *ocitest.File)) []ocitest.File {
	files = slices.Clone(files)
	for i := range files {
		if f := change[files[i].Name]; f != nil {
			f(&files[i])
		}
	}
	return files
}

func newData(seed uint64, n int) func(*ocitest.File) {
	return func(f *ocitest.File) { f.Data = noise(seed, n) }
}
