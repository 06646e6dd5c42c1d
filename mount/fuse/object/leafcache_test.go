package object

import (
	"os"
	"sync"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
)

// TestShape: which level is kept, and how content is cut up.
func TestShape(t *testing.T) {
	const tib = 1 << 40
	for _, tt := range []struct {
		alg         fsverity.Algorithm
		size, max   int64
		level       int
		units, last int64 // last: segments
	}{
		{fsverity.SHA256, 0, 1 << 20, 0, 0, 0},
		{fsverity.SHA256, 1, 1 << 20, 0, 1, 1},
		{fsverity.SHA256, 4096, 1 << 20, 0, 1, 1},
		{fsverity.SHA256, 4097, 1 << 20, 1, 1, 1},
		{fsverity.SHA256, 128 * 4096, 32, 1, 1, 1},
		{fsverity.SHA256, 128*4096 + 1, 64, 1, 2, 2},
		{fsverity.SHA256, 128*4096 + 1, 63, 2, 1, 2},
		{fsverity.SHA256, 512 << 30, 32 << 20, 1, 1 << 20, 1 << 20},
		{fsverity.SHA256, 512<<30 + 1, 32 << 20, 2, 8193, 1<<20 + 1},
		{fsverity.SHA256, 64 * tib, 32 << 20, 2, 1 << 20, 128 << 20},
		{fsverity.SHA256, 64*tib + 1, 32 << 20, -1, 0, 0},
		{fsverity.SHA256, 1<<63 - 1, 32 << 20, -1, 0, 0},
		{fsverity.SHA512, 64 * 4096, 64, 1, 1, 1},
		{fsverity.SHA512, 128 << 30, 32 << 20, 1, 512 << 10, 512 << 10},
		{fsverity.SHA512, 8 * tib, 32 << 20, 2, 512 << 10, 32 << 20},
		{fsverity.SHA512, 8*tib + 1, 32 << 20, -1, 0, 0},
	} {
		k := contentKey{fsverity.Sum(tt.alg, nil), tt.size}
		s, err := newShape(k, tt.max)
		if err != nil {
			if tt.level >= 0 {
				t.Errorf("%v, %d bytes, room for %d: %v", tt.alg, tt.size, tt.max, err)
			}
			continue
		}
		if s.level != tt.level || s.units() != tt.units || s.segments() != tt.last {
			t.Errorf("%v, %d bytes, room for %d: level %d, %d units, %d segments; want %d, %d, %d",
				tt.alg, tt.size, tt.max, s.level, s.units(), s.segments(), tt.level, tt.units, tt.last)
		}
	}
}

// TestHashOnce: readers of one object that come at a time hash it once, and
// those that come later don't.
func TestHashOnce(t *testing.T) {
	content := randomBytes(4 << 20)
	o := newObjects(t)
	r := o.add(fsverity.SHA256, content)
	p := o.pool(verified)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := readRandomly(p, r, content, uint64(i), 20); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if p.leaves.built != r.Size {
		t.Errorf("leaves were made from %d bytes of %d", p.leaves.built, r.Size)
	}
	if p.leaves.segments.max != defaultLeafBytes/2 {
		t.Errorf("%d bytes are for leaves once all are made", p.leaves.segments.max)
	}
}

// TestWholeKeepsNothing: a READ of all leaves no leaves.
func TestWholeKeepsNothing(t *testing.T) {
	content := randomBytes(1 << 20)
	o := newObjects(t)
	r := o.add(fsverity.SHA256, content)
	p := o.pool(verified)
	checkRead(t, readerOf{p, r}, content, len(content)+1, 0)
	if c := p.leaves; c.built+c.trees.used+c.segments.used != 0 {
		t.Errorf("leaves of %d bytes were made", c.built)
	}
}

// TestMemory reads more than there is memory for, and looks at what is kept.
func TestMemory(t *testing.T) {
	content := randomBytes(8 << 20)
	o := newObjects(t)
	c := o.pool(Options{Verify: true, LeafBytes: 64 << 10})
	for i := range 40 {
		part := content[i : len(content)-i*200_000]
		r := o.add(algorithms[i%2], part)
		for off := int64(0); off < r.Size; off += r.Size/3 + 4096 {
			checkRead(t, readerOf{c, r}, part, 70_000, off)
			checkKept(t, c.leaves)
		}
		must(t, os.Remove(o.path(r)))
	}
}

// checkKept sums up what the caches hold.
func checkKept(t *testing.T, c *leafCache) {
	t.Helper()
	var trees, segments int64
	for _, n := range c.trees.nodes {
		trees += int64(len(n.value.top)) + treeOverhead
	}
	for _, n := range c.segments.nodes {
		segments += int64(cap(n.value)) + segmentOverhead
	}
	if trees > c.trees.used || trees > 32<<10 || segments > c.segments.used || segments > 32<<10 {
		t.Fatalf("%d bytes of trees (%d are counted), %d bytes of segments (%d are counted)",
			trees, c.trees.used, segments, c.segments.used)
	}
}

// TestHuge verifies a sparse object of 1 TiB with memory for a 200th of the
// hashes above its leaves.
func TestHuge(t *testing.T) {
	const size = 1<<40 + 3*4096 + 5
	const at = 700<<30 + 5000 // where it has data
	data := randomBytes(10_000)
	h := fsverity.NewHasher(fsverity.SHA256)
	h.WriteZeros(at)
	h.Write(data)
	h.WriteZeros(size - at - int64(len(data)))
	o := newObjects(t)
	r := Ref{Digest: h.Sum(), Path: []byte("huge"), Size: size}
	f, err := os.Create(o.path(r))
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(size))
	_, err = f.WriteAt(data, at)
	must(t, err)

	p := o.pool(Options{Verify: true, LeafBytes: 2 << 20})
	want := make([]byte, 30_000)
	copy(want[10_000:], data)
	for range 2 {
		checkHuge(t, p, r, want, at-10_000)
		checkHuge(t, p, r, make([]byte, 9000), size-9000)
		checkHuge(t, p, r, make([]byte, 9000), 0)
	}
	if c := p.leaves; c.trees.used+c.segments.used > 2<<20 {
		t.Errorf("%d bytes are kept", c.trees.used+c.segments.used)
	}
	_, err = f.WriteAt([]byte{1}, 300<<30)
	must(t, err)
	failRead(t, readerOf{p, r}, 4096, 300<<30, ErrBad)
	checkHuge(t, p, r, want, at-10_000)
	r.Path = []byte("../huge")
	failRead(t, readerOf{p, r}, 4096, 0, ErrBad)
}

func checkHuge(t *testing.T, p *Pool, r Ref, want []byte, off int64) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := p.ReadAt(r, got, off); n != len(got) || err != nil || string(got) != string(want) {
		t.Errorf("%d bytes at %d: %d, %v, right: %t", len(want), off, n, err, string(got) == string(want))
	}
}

// TestTooLong: what can't be verified with the memory there is, is refused before
// anything is read.
func TestTooLong(t *testing.T) {
	o := newObjects(t)
	r := Ref{Digest: fsverity.Sum(fsverity.SHA512, nil), Path: []byte("long"), Size: 1 << 42}
	f, err := os.Create(o.path(r))
	must(t, err)
	defer f.Close()
	if err := f.Truncate(r.Size); err != nil {
		t.Skipf("skipped: no file of 4 TiB here: %v", err)
	}
	p := o.pool(Options{Verify: true, LeafBytes: 1})
	if _, err := p.ReadAt(r, make([]byte, 1), 0); err == nil || isBad(err) {
		t.Errorf("read: %v", err)
	}
	if _, err := p.Open(r); err == nil || isBad(err) {
		t.Errorf("open: %v", err)
	}
}

func TestLRU(t *testing.T) {
	var l lru[string, int]
	l.init(10)
	for i, k := range []string{"a", "b", "c"} {
		l.put(k, i, 4)
	}
	if v, ok := l.get("a"); !ok || v != 0 {
		t.Errorf("a is %d, %t", v, ok)
	}
	if v, ok := l.pop(false); !ok || v != 1 {
		t.Errorf("popped %d, %t; want b", v, ok)
	}
	if v, ok := l.pop(false); ok {
		t.Errorf("popped %d, though there is room", v)
	}
	l.put("c", 7, 5)
	if v, ok := l.get("c"); !ok || v != 7 || l.used != 9 {
		t.Errorf("c is %d, %t, %d are used", v, ok, l.used)
	}
	l.remove("none")
	l.put("big", 8, 11)
	l.shrink()
	if l.used != 0 || len(l.nodes) != 0 {
		t.Errorf("%d are used by %d", l.used, len(l.nodes))
	}
	if _, ok := l.pop(true); ok {
		t.Error("popped from nothing")
	}
}
