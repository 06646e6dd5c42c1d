package object

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flatroot/flatroot/fsverity"
)

// tree is what is kept of an object's Merkle tree as a whole: one level of it.
type tree struct {
	shape
	key contentKey

	// building lets one goroutine hash the content while others that need it
	// wait. It guards what follows.
	building sync.Mutex
	top      []byte // hashes of all units; nil before they agreed with the digest
	bad      verdict
}

// verdict is about a file that is not what its digest says.
type verdict struct {
	err   error
	file  identity
	until time.Time
}

// verdictFactor says how much longer than it took to find a file bad the verdict
// stands, so that who reads a bad file again and again keeps no processor busy
// for more than a ninth of the time, and a file that heals without a trace in its
// metadata (it was the disk's cable) is found good again. A file with other
// metadata is looked at at once.
const verdictFactor = 8

func (v *verdict) holds(file identity) bool {
	return v.err != nil && v.file == file && time.Now().Before(v.until)
}

// segmentLeaves is where a build puts leaves, one slice for each segment.
type segmentLeaves [][]byte

func (l segmentLeaves) keep(segment int64, leaves []byte) { l[segment] = bytes.Clone(leaves) }

// build makes t.top from d's content and compares it with the digest, with
// t.building held.
func (t *tree) build(d *descriptor, workers int, leaves segmentLeaves) error {
	if t.bad.holds(d.identity) {
		return t.bad.err
	}
	began := time.Now()
	top, err := hashUnits(&t.shape, d, workers, leaves)
	if err != nil {
		return err
	}
	if err := d.compare(t.alg.TreeDigest(top, t.size), t.key.digest); err != nil {
		now := time.Now()
		t.bad = verdict{err, d.identity, now.Add(verdictFactor * now.Sub(began))}
		return err
	}
	t.top, t.bad = top, verdict{}
	return nil
}

// hashUnits hashes all units of d's content on several processors.
func hashUnits(s *shape, d *descriptor, workers int, leaves segmentLeaves) ([]byte, error) {
	h := hashing{shape: s, d: d, top: make([]byte, s.topBytes())}
	if leaves != nil {
		h.keep = leaves.keep
	}
	workers = int(min(int64(workers), s.units()))
	errs := make([]error, max(workers, 1))
	var wg sync.WaitGroup
	for i := 1; i < workers; i++ {
		wg.Go(func() { errs[i] = h.work() })
	}
	errs[0] = h.work()
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return h.top, nil
}

// hashing is the work that several goroutines share, a unit at a time.
type hashing struct {
	*shape
	d    *descriptor
	keep keepFunc
	next atomic.Int64 // unit
	top  []byte
}

func (h *hashing) work() error {
	w := getWorker()
	defer workers.Put(w)
	for i := h.next.Add(1) - 1; i < h.units(); i = h.next.Add(1) - 1 {
		sum, err := w.hashUnit(h.shape, h.d, i, h.keep)
		if err != nil {
			h.next.Store(h.units()) // the others need not go on
			return err
		}
		copy(h.top[i*int64(h.hash):], sum)
	}
	return nil
}

// loadUnit hashes unit i anew and compares it with t.top. It calls keep for each
// segment before that: what was kept is good if there is no error.
func (t *tree) loadUnit(d *descriptor, i int64, keep keepFunc) error {
	w := getWorker()
	defer workers.Put(w)
	sum, err := w.hashUnit(&t.shape, d, i, keep)
	if err != nil {
		return err
	}
	if !bytes.Equal(sum, t.top[i*int64(t.hash):][:t.hash]) {
		return changed(d, i*t.unit, min(t.unit, t.size-i*t.unit), t.key.digest)
	}
	return nil
}

func changed(d *descriptor, off, n int64, want fsverity.Digest) error {
	return fmt.Errorf("%s %.80q: %d bytes at %d are not those of digest %v: %w", d.kind, d.name, n, off, want, ErrBad)
}
