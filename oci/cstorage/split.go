package cstorage

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/vbatts/tar-split/tar/storage"
)

const (
	// maxEntry bounds an entry of tar-split's, in bytes of JSON: the headers of one file, of which each extension has 1 MiB at
	// most, and padding in pieces of 1 MiB, in base64.
	maxEntry = 16 << 20
	// ratioFrom is from how many bytes of headers on it is looked at how well they are compressed, and maxRatio how well: what
	// index allows of a compressed layer.
	ratioFrom = 1 << 30
	maxRatio  = 500
)

// splitReader reads the entries of a tar-split file: what stands in a tar beside the contents of files. Of package storage
// it uses the entries alone: the reader there takes entries of any length, and keeps all names.
type splitReader struct {
	zipped *countReader
	gz     *gzip.Reader
	lines  *bufio.Reader
	long   []byte // an entry that is longer than the buffer
	bytes  int64  // of segments
	free   int64  // ratioFrom, for tests less
}

func newSplitReader(r io.Reader) (*splitReader, error) {
	zipped := &countReader{r: r}
	gz, err := gzip.NewReader(zipped)
	if err != nil {
		return nil, fmt.Errorf("decompress gzip: %w", err)
	}
	return &splitReader{zipped: zipped, gz: gz, lines: bufio.NewReaderSize(gz, 64<<10), free: ratioFrom}, nil
}

// next returns the next entry, io.EOF after the last one.
func (s *splitReader) next() (*storage.Entry, error) {
	line, err := s.line()
	if err != nil {
		return nil, err
	}
	e := new(storage.Entry)
	if err := json.Unmarshal(line, e); err != nil {
		return nil, err
	}
	switch {
	case e.Type == storage.SegmentType:
		return e, s.count(int64(len(e.Payload)))
	case e.Type != storage.FileType:
		return nil, fmt.Errorf("an entry has the unknown type %d", e.Type)
	case e.Size < 0:
		return nil, fmt.Errorf("%s has the size %d", shown(e.GetName()), e.Size)
	}
	return e, nil
}

// line returns the next line.
func (s *splitReader) line() ([]byte, error) {
	line, err := s.lines.ReadSlice('\n')
	for s.long = s.long[:0]; err == bufio.ErrBufferFull; line, err = s.lines.ReadSlice('\n') {
		if s.long = append(s.long, line...); len(s.long) > maxEntry {
			return nil, fmt.Errorf("an entry has more than %d bytes", maxEntry)
		}
	}
	switch {
	case err == io.EOF && len(line)+len(s.long) > 0:
		return nil, io.ErrUnexpectedEOF
	case err == io.EOF:
		return nil, io.EOF
	case err != nil:
		return nil, fmt.Errorf("decompress gzip: %w", err)
	case len(s.long) > 0:
		s.long = append(s.long, line...)
		return s.long, nil
	}
	return line, nil
}

// count bounds what a small file may become.
func (s *splitReader) count(n int64) error {
	if s.bytes += n; s.bytes >= s.free && s.bytes/max(s.zipped.n, 1) > maxRatio {
		return errors.New("it is a decompression bomb: it has headers and padding that are compressed more than 500 times")
	}
	return nil
}

// countReader counts bytes.
type countReader struct {
	r io.Reader
	n int64
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// tarSize adds up how long the tar is.
func tarSize(r io.Reader) (int64, error) {
	s, err := newSplitReader(r)
	if err != nil {
		return 0, err
	}
	var size int64
	for {
		e, err := s.next()
		switch {
		case err == io.EOF:
			return size, nil
		case err != nil:
			return 0, err
		case e.Type == storage.FileType:
			size += e.Size
		default:
			size += int64(len(e.Payload))
		}
		if size < 0 {
			return 0, errors.New("the sizes of its files add up to more than can be")
		}
	}
}
