package powercut

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

const modelSize = 10 * blockSize

// randomRecording is one of writes, zeros, flushes and marks, and what the disk held after each event.
func randomRecording(rng *rand.Rand) (*recording, [][]byte) {
	d := newDisk(newBlocks(modelSize))
	model := make([]byte, modelSize)
	fill := func(p []byte) {
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
	}
	change := func() {
		off := rng.Int64N(modelSize)
		n := 1 + rng.Int64N(min(3*blockSize, modelSize-off))
		e := event{Kind: eventZero, Off: off, Len: n}
		clear(model[off : off+n])
		if rng.IntN(3) > 0 {
			e.Kind, e.Data = eventWrite, make([]byte, n)
			fill(e.Data)
			copy(model[off:], e.Data)
		}
		d.do(e)
	}
	change()
	d.record()
	after := [][]byte{bytes.Clone(model)}
	for range 60 {
		switch rng.IntN(6) {
		case 0:
			d.do(event{Kind: eventFlush})
		case 1:
			d.mark()
		default:
			change()
		}
		after = append(after, bytes.Clone(model))
	}
	rec := d.recorded()
	rec.sector = sectorSize
	return rec, after
}

func content(b *blocks) []byte {
	p := make([]byte, modelSize+1)
	return p[:b.read(p, 0)]
}

// States in order are what the disk held; in the others each byte is what it was at some time since the last flush.
func TestStates(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 0))
		rec, after := randomRecording(rng)
		b := rec.builder()
		for _, s := range rec.choose(30, seed) {
			got := content(b.build(s))
			if s.way == inOrder && !bytes.Equal(got, after[s.cut]) {
				t.Fatalf("seed %d: %v is not what the disk held", seed, s)
			}
			flushed := s.cut
			for flushed > 0 && rec.events[flushed-1].Kind != eventFlush {
				flushed--
			}
			for i, c := range got {
				if !heldOnce(after[flushed:s.cut+1], i, c) {
					t.Fatalf("seed %d: %v has at %d what was there before the flush, or never", seed, s, i)
				}
			}
		}
	}
}

func heldOnce(held [][]byte, i int, c byte) bool {
	for _, h := range held {
		if h[i] == c {
			return true
		}
	}
	return false
}

// A torn write is there in part: whole sectors of it, and nothing else.
func TestTear(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	data := bytes.Repeat([]byte{1}, 8*sectorSize)
	seen := map[int]bool{}
	for range 300 {
		disk := make([]byte, len(data))
		for _, e := range tear(event{Kind: eventWrite, Len: int64(len(data)), Data: data}, sectorSize, rng) {
			copy(disk[e.Off:], e.Data)
		}
		n := 0
		for i := 0; i < len(disk); i += sectorSize {
			part := disk[i : i+sectorSize]
			switch {
			case bytes.Equal(part, data[:sectorSize]):
				n++
			case !bytes.Equal(part, zeroBlock[:sectorSize]):
				t.Fatalf("the sector at %d is there in part", i)
			}
		}
		seen[n] = true
	}
	for n := 1; n < 8; n++ {
		if !seen[n] {
			t.Errorf("never %d of 8 sectors", n)
		}
	}
}

// The block that a file system needs whole is there as a whole or not at all.
func TestIntact(t *testing.T) {
	whole := event{Kind: eventWrite, Off: 2 * blockSize, Len: blockSize, Data: bytes.Repeat([]byte{1}, blockSize)}
	rec := &recording{base: newBlocks(modelSize), events: []event{whole}, sector: sectorSize, intact: whole.Off}
	for seed := range uint64(100) {
		got := content(rec.builder().build(state{cut: 1, way: torn, seed: seed}))[whole.Off : whole.Off+blockSize]
		if !bytes.Equal(got, whole.Data) && !bytes.Equal(got, zeroBlock[:]) {
			t.Fatalf("seed %d: it is torn", seed)
		}
	}
}
