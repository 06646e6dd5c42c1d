package index

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// A zstd:chunked layer is a zstd file like any other to who reads all of it. Each file's content is in frames of its own, and
// skippable frames at the end hold two tables: the table of contents (TOC), which says where each content is and which digest
// it has, and the tar-split data, which is the tar without contents. Annotations of the layer's descriptor say where the
// tables are. They are those of containers/storage, pkg/chunked/internal/minimal/compression.go.
const (
	annotationTOC      = "io.github.containers.zstd-chunked.manifest-position" // OFFSET:LENGTH:SIZE:TYPE
	annotationTOCSum   = "io.github.containers.zstd-chunked.manifest-checksum" // of the table as stored
	annotationTarSplit = "io.github.containers.zstd-chunked.tarsplit-position" // OFFSET:LENGTH:SIZE

	tocTypeCRFS = 1 // the only TYPE there is
	tocVersion  = 1
)

const (
	// maxTOC bounds a TOC in bytes, uncompressed: entries have about 230 of them, so that it is enough for 290,000 files and
	// parts of files. What is kept of one takes about as much memory, and all layers that are read at once share it.
	maxTOC = 64 << 20
	// maxTarSplit bounds tar-split data in bytes, uncompressed, of which there are about 1,100 for a file. It is read line by line.
	maxTarSplit = 512 << 20
)

// tablePlace is where a table is.
type tablePlace struct {
	offset, length int64 // in the blob, as stored
	size           int64 // uncompressed
}

// chunkedTables says where the tables of a zstd:chunked layer are.
type chunkedTables struct {
	toc, tarSplit tablePlace
	tocSum        digest.Digest // of the TOC as stored
}

// errNotChunked is about a layer that can't be had in parts by its own word.
var errNotChunked = errors.New("the layer has no tables that say where its files are")

// findTables reads the annotations of a layer. errNotChunked: it lacks one of them.
func findTables(desc ocispec.Descriptor) (*chunkedTables, error) {
	a := desc.Annotations
	if a[annotationTOC] == "" || a[annotationTOCSum] == "" || a[annotationTarSplit] == "" {
		return nil, errNotChunked
	}
	t := &chunkedTables{tocSum: digest.Digest(a[annotationTOCSum])}
	if err := oci.CheckDigest(t.tocSum); err != nil {
		return nil, fmt.Errorf("annotation %s: %w", annotationTOCSum, err)
	}
	kind := int64(tocTypeCRFS)
	if err := t.toc.read(desc, annotationTOC, maxTOC, &kind); err != nil {
		return nil, err
	}
	if kind != tocTypeCRFS {
		return nil, fmt.Errorf("annotation %s: a table of type %d is not known", annotationTOC, kind)
	}
	return t, t.tarSplit.read(desc, annotationTarSplit, maxTarSplit)
}

// read reads an annotation: the place, and further numbers.
func (p *tablePlace) read(desc ocispec.Descriptor, annotation string, maxSize int64, more ...*int64) error {
	value := desc.Annotations[annotation]
	words := strings.Split(value, ":")
	to := append([]*int64{&p.offset, &p.length, &p.size}, more...)
	err := error(nil)
	if len(words) != len(to) {
		err = fmt.Errorf("%d numbers, want %d", len(words), len(to))
	}
	for i := 0; err == nil && i < len(to); i++ {
		*to[i], err = strconv.ParseInt(words[i], 10, 64)
	}
	if err == nil {
		err = oci.CheckRange(desc, p.offset, p.length)
	}
	if err == nil && (p.size <= 0 || p.size > maxSize) {
		err = fmt.Errorf("a table of %d bytes, of at most %d", p.size, maxSize)
	}
	if err != nil {
		return fmt.Errorf("annotation %s, %s: %w", annotation, oci.Printable(value, 100), err)
	}
	return nil
}

// toc is a TOC, as far as it is about contents. Nothing that it says is believed: contents are compared with their digests,
// and the tar that all comes to with the layer's diffID.
type toc struct {
	tarSplitSum digest.Digest // of the tar-split data as stored
	contents    []tocContent
	files       []tocFile
	byName      map[string]int32 // number of the file
}

// tocContent is the content of one or more files.
type tocContent struct {
	sum  [32]byte // SHA-256
	size int64    // bytes, uncompressed; more than 0
	span          // zstd frames, one after another
}

// tocFile is a regular file that isn't empty.
type tocFile struct {
	name    string // as in the tar
	content int32
	used    bool // the tar-split data has named it
}

// span is a stretch of a blob.
type span struct{ offset, end int64 }

func (s span) length() int64 { return s.end - s.offset }

// tocRow is a row of a TOC. Rows of type "chunk" follow the one of their file and tell of parts of it; since a file's parts
// lie one after another and make it together, they need not be known.
type tocRow struct {
	Type      string `json:"type"`
	Name      string `json:"name"`
	Size      int64  `json:"size"`
	Digest    string `json:"digest"`
	Offset    int64  `json:"offset"`
	EndOffset int64  `json:"endOffset"`
}

// tocLimits are what a TOC is held against.
type tocLimits struct {
	blob     int64 // bytes of the blob that contents may be in
	maxFiles int64
	maxSize  int64 // bytes of all contents together, for each file
}

// parseTOC reads a TOC, uncompressed, one row after another.
func parseTOC(r io.Reader, l tocLimits) (*toc, error) {
	p := &tocParser{d: json.NewDecoder(fullReader{bufio.NewReaderSize(r, 64<<10)}), limits: l, bySum: map[[32]byte]int32{}}
	p.toc.byName = map[string]int32{}
	if err := p.document(); err != nil {
		return nil, fmt.Errorf("table of contents: %w", err)
	}
	return &p.toc, nil
}

// fullReader gives as much as is asked for. A json.Decoder looks at all blanks that it has again whenever it gets more, so that
// a table of blanks in small pieces would take minutes.
type fullReader struct{ r io.Reader }

func (f fullReader) Read(p []byte) (int, error) {
	n, err := io.ReadFull(f.r, p)
	if err == io.ErrUnexpectedEOF { // endReader has another error for what is cut short
		err = io.EOF
	}
	return n, err
}

type tocParser struct {
	toc
	d      *json.Decoder
	limits tocLimits
	size   int64
	bySum  map[[32]byte]int32
}

func (p *tocParser) document() error {
	if err := p.delim('{'); err != nil {
		return err
	}
	version := 0
	members := map[string]func() error{
		"version":        func() error { return p.d.Decode(&version) },
		"entries":        p.rows,
		"tarSplitDigest": func() error { return p.d.Decode(&p.tarSplitSum) },
	}
	for p.d.More() {
		key, err := p.d.Token()
		if err != nil {
			return noEnd(err)
		}
		name, _ := key.(string) // a key is nothing else
		read, known := members[name]
		switch {
		case !known:
			err = p.d.Decode(new(json.RawMessage))
		case read == nil:
			err = fmt.Errorf("two members %s", name)
		default:
			err = read()
			members[name] = nil
		}
		if err != nil {
			return noEnd(err)
		}
	}
	if err := p.delim('}'); err != nil {
		return err
	}
	if version != tocVersion {
		return fmt.Errorf("version %d is not known", version)
	}
	if err := oci.CheckDigest(p.tarSplitSum); err != nil {
		return fmt.Errorf("tarSplitDigest: %w", err)
	}
	return nil
}

func (p *tocParser) delim(want json.Delim) error {
	t, err := p.d.Token()
	if err == nil && t != want {
		err = fmt.Errorf("%v where %v must be", t, want)
	}
	return noEnd(err)
}

// noEnd is for where the document must not end.
func noEnd(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (p *tocParser) rows() error {
	if err := p.delim('['); err != nil {
		return err
	}
	for p.d.More() {
		var row tocRow
		if err := p.d.Decode(&row); err != nil {
			return noEnd(err)
		}
		if row.Type != "reg" || row.Size == 0 {
			continue
		}
		if err := p.file(&row); err != nil {
			return fmt.Errorf("file %s: %w", quotePath(row.Name), err)
		}
	}
	return p.delim(']')
}

func (p *tocParser) file(row *tocRow) error {
	c, err := row.content(p.limits)
	if err != nil {
		return err
	}
	if p.size += c.size; p.size > p.limits.maxSize {
		return fmt.Errorf("with it the files have more than %d bytes", p.limits.maxSize)
	}
	if _, twice := p.byName[row.Name]; twice {
		return errors.New("there are two of this name")
	}
	if int64(len(p.files)) == p.limits.maxFiles {
		return fmt.Errorf("one more than %d files", p.limits.maxFiles)
	}
	n, known := p.bySum[c.sum]
	if !known {
		n = int32(len(p.contents))
		p.bySum[c.sum] = n
		p.contents = append(p.contents, c)
	} else if p.contents[n].size != c.size {
		return errors.New("another one of the same digest has another size")
	}
	p.byName[row.Name] = int32(len(p.files))
	p.files = append(p.files, tocFile{name: row.Name, content: n})
	return nil
}

func (row *tocRow) content(l tocLimits) (c tocContent, err error) {
	if err := oci.CheckDigest(digest.Digest(row.Digest)); err != nil {
		return c, err
	}
	c.size, c.span = row.Size, span{row.Offset, row.EndOffset}
	switch {
	case c.size < 0:
		return c, errNegative
	case c.offset < 0 || c.end <= c.offset || c.end > l.blob:
		return c, fmt.Errorf("its content is at %d to %d of %d bytes", c.offset, c.end, l.blob)
	}
	_, err = hex.Decode(c.sum[:], []byte(digest.Digest(row.Digest).Encoded()))
	return c, err
}
