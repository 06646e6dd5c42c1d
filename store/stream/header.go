package stream

import (
	"bytes"
	"encoding/binary"
	"math"

	"github.com/flatroot/flatroot/fsverity"
)

const (
	magic      = "SplitStream"
	version    = 0
	blockBits  = 12 // log2 of fs-verity's block size
	headerSize = 32
	infoSize   = 80
	bodyStart  = headerSize + infoSize

	// oldMagicAt is where a header that bootc wrote until 1.15 has its magic. It
	// has the same version number, so that only this tells it apart.
	oldMagicAt = 18
)

// section is a half-open range of the file.
type section struct{ start, end int64 }

func (s section) size() int64 { return s.end - s.start }

// header is what the two fixed parts of a stream file say.
type header struct {
	alg        fsverity.Algorithm
	streamRefs section
	objectRefs section
	chunks     section
	named      section
	content    ContentType
	size       int64 // of the original
}

// parseStart reads the first headerSize bytes of a file of size bytes: the hash
// and where the info block is.
func parseStart(b []byte, size int64) (fsverity.Algorithm, section, error) {
	var vers, alg, bits byte
	var at int // of the info range
	switch {
	case bytes.HasPrefix(b, []byte(magic)):
		vers, alg, bits, at = b[11], b[14], b[15], 16
	case bytes.HasPrefix(b[oldMagicAt:], []byte(magic)):
		vers, alg, bits, at = b[29], b[30], b[31], 0
	default:
		return 0, section{}, invalid("no %q in the header", magic)
	}
	if vers != version {
		return 0, section{}, invalid("version %d, only %d is known", vers, version)
	}
	a := fsverity.Algorithm(alg)
	if a.Size() == 0 {
		return 0, section{}, invalid("unknown hash algorithm %d", alg)
	}
	if bits != blockBits {
		return 0, section{}, invalid("fs-verity blocks of 2^%d bytes, want 2^%d", bits, blockBits)
	}
	info, err := parseRange(b[at:], "info", size)
	if err == nil && info.size() < infoSize {
		err = invalid("info block of %d bytes, want %d", info.size(), infoSize)
	}
	return a, info, err
}

// parseInfo reads the info block; bytes behind the fields known are for later
// versions to use.
func parseInfo(b []byte, a fsverity.Algorithm, size int64) (header, error) {
	h := header{alg: a}
	for i, s := range []struct {
		name string
		to   *section
	}{
		{"stream refs", &h.streamRefs},
		{"object refs", &h.objectRefs},
		{"chunks", &h.chunks},
		{"named refs", &h.named},
	} {
		var err error
		if *s.to, err = parseRange(b[16*i:], s.name, size); err != nil {
			return h, err
		}
	}
	h.content = ContentType(binary.LittleEndian.Uint64(b[64:]))
	n := binary.LittleEndian.Uint64(b[72:])
	if n > math.MaxInt64 {
		return h, invalid("original of %d bytes", n)
	}
	h.size = int64(n)
	return h, h.checkArrays()
}

func (h *header) checkArrays() error {
	for _, s := range []section{h.streamRefs, h.objectRefs} {
		n := int64(h.alg.Size())
		if s.size()%n != 0 {
			return invalid("array of %d bytes does not hold whole %v digests", s.size(), h.alg)
		}
		if s.size()/n > maxRefs {
			return invalid("%d references, the limit is %d", s.size()/n, maxRefs)
		}
	}
	return nil
}

func parseRange(b []byte, name string, size int64) (section, error) {
	start := binary.LittleEndian.Uint64(b)
	end := binary.LittleEndian.Uint64(b[8:])
	if start > end || end > uint64(size) {
		return section{}, invalid("%s at %d..%d of a file of %d bytes", name, start, end, size)
	}
	return section{int64(start), int64(end)}, nil
}

// encode makes the header and info block of a new file.
func (h *header) encode() []byte {
	b := make([]byte, 0, bodyStart)
	b = append(b, magic...)
	b = append(b, version, 0, 0, byte(h.alg), blockBits)
	b = appendRange(b, section{headerSize, bodyStart})
	for _, s := range []section{h.streamRefs, h.objectRefs, h.chunks, h.named} {
		b = appendRange(b, s)
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(h.content))
	return binary.LittleEndian.AppendUint64(b, uint64(h.size))
}

func appendRange(b []byte, s section) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(s.start))
	return binary.LittleEndian.AppendUint64(b, uint64(s.end))
}
