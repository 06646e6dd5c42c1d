package stream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/klauspost/compress/zstd"
)

// Stream is an opened stream file. It may be used by several goroutines, the
// [ChunkReader]s that it makes by one each.
type Stream struct {
	r          io.ReaderAt
	h          header
	fileSize   int64
	streamRefs refArray
	objectRefs refArray
}

// refArray is an array of IDs as the file has it.
type refArray struct {
	alg fsverity.Algorithm
	raw []byte
}

func (a refArray) len() int { return len(a.raw) / a.alg.Size() }

func (a refArray) at(i int) fsverity.Digest {
	if i < 0 || i >= a.len() {
		return fsverity.Digest{}
	}
	n := a.alg.Size()
	d, _ := fsverity.NewDigest(a.alg, a.raw[i*n:(i+1)*n]) // cannot fail: the length is right
	return d
}

func (a refArray) all() []fsverity.Digest {
	ds := make([]fsverity.Digest, a.len())
	for i := range ds {
		ds[i] = a.at(i)
	}
	return ds
}

// Open reads the header and the reference arrays of the stream file of size bytes
// in r, of either header form and either hash.
func Open(r io.ReaderAt, size int64) (*Stream, error) {
	if size < bodyStart || size > maxFile {
		return nil, invalid("file of %d bytes, want %d to %d", size, bodyStart, int64(maxFile))
	}
	s := &Stream{r: r, fileSize: size}
	var b [infoSize]byte
	if err := s.readAt(b[:headerSize], 0); err != nil {
		return nil, err
	}
	alg, info, err := parseStart(b[:headerSize], size)
	if err != nil {
		return nil, err
	}
	if err := s.readAt(b[:], info.start); err != nil {
		return nil, err
	}
	if s.h, err = parseInfo(b[:], alg, size); err != nil {
		return nil, err
	}
	if s.streamRefs, err = s.readArray(s.h.streamRefs); err != nil {
		return nil, err
	}
	s.objectRefs, err = s.readArray(s.h.objectRefs)
	return s, err
}

func (s *Stream) readAt(b []byte, at int64) error {
	if n, err := s.r.ReadAt(b, at); n < len(b) {
		return fmt.Errorf("read split stream at %d: %w", at, unexpected(err))
	}
	return nil
}

// readArray reads in pieces, each as long as all before, so that memory grows with
// what is really there and not with what the header says is.
func (s *Stream) readArray(c section) (refArray, error) {
	const piece = 1 << 20
	a := refArray{alg: s.h.alg}
	for at := c.start; at < c.end; {
		had := len(a.raw)
		n := min(max(piece, int64(had)), c.end-at)
		a.raw = slices.Grow(a.raw, int(n))[:had+int(n)]
		if err := s.readAt(a.raw[had:], at); err != nil {
			return a, err
		}
		at += n
	}
	return a, nil
}

// Type says what the original is.
func (s *Stream) Type() ContentType { return s.h.content }

// Size is the length of the original in bytes, as the header claims it.
func (s *Stream) Size() int64 { return s.h.size }

// Algorithm is the hash of all IDs in the stream.
func (s *Stream) Algorithm() fsverity.Algorithm { return s.h.alg }

// NumObjects is the number of object refs.
func (s *Stream) NumObjects() int { return s.objectRefs.len() }

// Object is object ref i; it is the zero Digest if there is no such.
func (s *Stream) Object(i int) fsverity.Digest { return s.objectRefs.at(i) }

// ObjectRefs are the IDs of all objects that the stream needs, those that no chunk
// mentions included.
func (s *Stream) ObjectRefs() []fsverity.Digest { return s.objectRefs.all() }

// StreamRefs are the IDs of the streams and EROFS images that named refs name, in
// the order in which they were added.
func (s *Stream) StreamRefs() []fsverity.Digest { return s.streamRefs.all() }

// NamedRefs reads the named refs, sorted by name. Of a name that occurs twice the
// last one counts, as it does for other readers.
func (s *Stream) NamedRefs() ([]NamedRef, error) {
	in, err := s.inflate(s.h.named)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	var refs []NamedRef
	seen := map[string]int{}
	for total := 0; ; {
		ref, n, err := s.readNamed(in.buffered)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("named refs: %w", in.explain(err))
		}
		if total += n; total > maxNamed {
			return nil, invalid("named refs of more than %d bytes", maxNamed)
		}
		if i, ok := seen[ref.Name]; ok {
			refs[i] = ref
			continue
		}
		seen[ref.Name] = len(refs)
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, func(a, b NamedRef) int { return strings.Compare(a.Name, b.Name) })
	return refs, nil
}

// NamedRef looks one name up; the ID is zero if the stream has no such.
func (s *Stream) NamedRef(name string) (fsverity.Digest, error) {
	refs, err := s.NamedRefs()
	if err != nil {
		return fsverity.Digest{}, err
	}
	for _, r := range refs {
		if r.Name == name {
			return r.ID, nil
		}
	}
	return fsverity.Digest{}, nil
}

// readNamed reads one record and its length; io.EOF is a clean end.
func (s *Stream) readNamed(r *bufio.Reader) (NamedRef, int, error) {
	rec, err := r.ReadSlice(0)
	switch {
	case err == io.EOF && len(rec) == 0:
		return NamedRef{}, 0, io.EOF
	case err == io.EOF:
		return NamedRef{}, 0, invalid("the last record has no NUL")
	case err == bufio.ErrBufferFull || len(rec) > maxRecord+1:
		return NamedRef{}, 0, invalid("record of more than %d bytes", maxRecord)
	case err != nil:
		return NamedRef{}, 0, err
	}
	index, name, ok := bytes.Cut(rec[:len(rec)-1], []byte(":"))
	if !ok {
		return NamedRef{}, 0, invalid("record %.80q has no colon", rec)
	}
	i, err := strconv.ParseUint(string(index), 10, 31)
	if err != nil || int(i) >= s.streamRefs.len() {
		return NamedRef{}, 0, invalid("record %.80q: no such stream ref, there are %d", rec, s.streamRefs.len())
	}
	if !utf8.Valid(name) {
		return NamedRef{}, 0, invalid("name %.80q is not UTF-8", name)
	}
	return NamedRef{string(name), s.streamRefs.at(int(i))}, len(rec), nil
}

// unexpected turns a clean end where more had to come into an unclean one.
func unexpected(err error) error {
	if err == io.EOF || err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}

// inflater decompresses a section and tells errors of the file below from damage.
type inflater struct {
	buffered *bufio.Reader // plain bytes
	dec      *zstd.Decoder
	src      *sectionReader
}

type sectionReader struct {
	*io.SectionReader
	err error // of the file, none if it was just at its end
}

func (r *sectionReader) Read(p []byte) (int, error) {
	n, err := r.SectionReader.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

func (s *Stream) inflate(c section) (*inflater, error) {
	src := &sectionReader{SectionReader: io.NewSectionReader(s.r, c.start, c.size())}
	window := max(minWindow, min(maxWindow, windowRatio*c.size()))
	// One goroutine, the caller's: streams are read side by side already.
	dec, err := zstd.NewReader(bufio.NewReaderSize(src, 64<<10),
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(uint64(window)))
	if err != nil {
		return nil, fmt.Errorf("decompress split stream: %w", err)
	}
	return &inflater{bufio.NewReaderSize(dec, 2*maxRecord), dec, src}, nil
}

func (in *inflater) Close() { in.dec.Close() }

// explain says whether err comes from the file below or from what is in it.
func (in *inflater) explain(err error) error {
	switch {
	case in.src.err != nil:
		return fmt.Errorf("read split stream: %w", in.src.err)
	case errors.Is(err, ErrInvalid):
		return err
	}
	return invalid("%w", unexpected(err))
}
