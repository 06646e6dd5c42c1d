package object

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
)

// FuzzReadAt reads an object of some size as the script says, two numbers a read,
// with all ways of reading: from a roomy pool, a tight one and an image. With a
// bit flipped before, reads are right or errors; without they are right.
func FuzzReadAt(f *testing.F) {
	f.Add(uint32(1), []byte{0, 0, 0, 1}, false, uint32(0), false)
	f.Add(uint32(128*4096+1), []byte{0, 0, 1, 2, 200, 7, 100, 4}, true, uint32(128*4096), false)
	f.Add(uint32(64*4096), []byte{0xff, 0, 0xff, 0xff, 16, 16}, false, uint32(4096), true)
	f.Add(uint32(700_001), []byte{0x10, 0x20, 0x30, 0x40, 0xff, 0xfe}, true, uint32(0), true)
	source := randomBytes(1 << 20)
	f.Fuzz(func(t *testing.T, size uint32, script []byte, wide bool, at uint32, damage bool) {
		content := source[:1+size%(1<<20)]
		if len(script) > 64 {
			return
		}
		a := fsverity.SHA256
		if wide {
			a = fsverity.SHA512
		}
		o := newObjects(t)
		r := o.add(a, content)
		readers := []io.ReaderAt{
			readerOf{o.pool(verified), r}, readerOf{o.pool(Options{Verify: true, LeafBytes: 1, MaxOpen: 1}), r}, o.blocks(r),
		}
		defer os.RemoveAll(o.dir)
		if damage {
			o.flip(r, int64(at)%r.Size)
		}
		for ; len(script) >= 2; script = script[2:] {
			off, n := spread(script[0], content), spread(script[1], content)
			for _, reader := range readers {
				if !damage {
					checkRead(t, reader, content, n, int64(off))
				} else {
					checkRightOrBad(t, reader, content, n, int64(off))
				}
			}
		}
	})
}

// spread makes of a byte a number up to the content's length: near its beginning,
// near its end, about whole blocks, or anywhere.
func spread(b byte, content []byte) int {
	n := int(b & 0x3f)
	switch b >> 6 {
	case 0:
		return n * 7
	case 1:
		return max(len(content)-n*100, 0)
	case 2:
		return max(n*4096+n%3-1, 0)
	}
	return n * len(content) / 0x3f
}

func checkRightOrBad(t *testing.T, r io.ReaderAt, content []byte, n int, off int64) {
	t.Helper()
	b := make([]byte, n)
	got, err := r.ReadAt(b, off)
	if isBad(err) && got == 0 && bytes.Equal(b, make([]byte, n)) {
		return
	}
	if off > int64(len(content)) {
		off = int64(len(content))
	}
	if err != nil && err != io.EOF || !bytes.Equal(b[:got], content[off:][:got]) {
		t.Fatalf("%d bytes at %d: %d, %v, or wrong data", n, off, got, err)
	}
}
