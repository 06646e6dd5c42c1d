package object

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
)

// benchSize is the long object's: of many segments, and more than a cache holds.
const benchSize = 256 << 20

func benchObject(b *testing.B, a fsverity.Algorithm) (*objects, Ref) {
	o := newObjects(b)
	return o, o.add(a, bytes.Repeat(randomBytes(1<<20), benchSize>>20))
}

// BenchmarkFirstTouch is the first READ of a long object, whose content is in the
// page cache: reading and hashing all of it, on one processor and on all.
func BenchmarkFirstTouch(b *testing.B) {
	for _, a := range algorithms {
		o, r := benchObject(b, a)
		for name, workers := range map[string]int{"one": 1, "all": 0} {
			b.Run(fmt.Sprintf("%v/%s", a, name), func(b *testing.B) {
				b.SetBytes(benchSize)
				buf := make([]byte, 4096)
				for b.Loop() {
					p := o.pool(Options{Verify: true, Workers: workers})
					if _, err := p.ReadAt(r, buf, benchSize/2); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkRead reads a long object whose leaves are there, in READs of several
// lengths, with and without checking.
func BenchmarkRead(b *testing.B) {
	for _, a := range algorithms {
		o, r := benchObject(b, a)
		for _, verify := range []bool{false, true} {
			if !verify && a != fsverity.SHA256 {
				continue
			}
			p := o.pool(Options{Verify: verify})
			for _, n := range []int{4 << 10, 128 << 10, 1 << 20} {
				b.Run(fmt.Sprintf("%v/verify=%t/%d", a, verify, n), func(b *testing.B) {
					readAll(b, p, r, n)
				})
			}
		}
	}
}

func readAll(b *testing.B, p *Pool, r Ref, n int) {
	b.SetBytes(int64(n))
	b.ReportAllocs()
	buf := make([]byte, n)
	for off := int64(0); b.Loop(); off = (off + int64(n)) % r.Size {
		if _, err := p.ReadAt(r, buf, off); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSmall reads 1000 files of 8 KiB in turn, more than are kept open, so
// that each is opened, read, hashed and closed.
func BenchmarkSmall(b *testing.B) {
	o := newObjects(b)
	var refs []Ref
	for i := range 1000 {
		refs = append(refs, o.add(fsverity.SHA256, randomBytes(8<<10 + i)[i:]))
	}
	for _, verify := range []bool{false, true} {
		b.Run(fmt.Sprintf("verify=%t", verify), func(b *testing.B) {
			p := o.pool(Options{Verify: verify})
			buf := make([]byte, 8<<10)
			for i := 0; b.Loop(); i++ {
				if _, err := p.ReadAt(refs[i%len(refs)], buf, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBlocks is a walk's reading of an image: inodes of 64 bytes, near one
// another.
func BenchmarkBlocks(b *testing.B) {
	o, r := benchObject(b, fsverity.SHA256)
	blocks := o.blocks(r)
	buf := make([]byte, 64)
	for off := int64(0); b.Loop(); off = (off + 64) % r.Size {
		if _, err := blocks.ReadAt(buf, off); err != nil {
			b.Fatal(err)
		}
	}
}
