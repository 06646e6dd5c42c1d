package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"hash/maphash"
	"io"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

const (
	// maxCandidates bounds how many files of the store are considered, in about 100 bytes each.
	maxCandidates = 1 << 18
	// maxTries bounds how many objects are read for one content.
	maxTries = 4
)

// candidates are files of the store by which a content may be found that is known by its SHA-256 alone, since objects are
// named otherwise. Each has two keys, its length with its path and with its base name. What is found is a guess. Only contents
// that are in layer streams themselves are known by their SHA-256, since nothing has to be opened to compute that.
type candidates struct {
	seed    maphash.Seed
	files   int
	byKey   map[uint64][maxTries]int32 // numbers of objects, from 1; those that come late find no room
	objects digestTable
	inline  map[[32]byte][]byte
}

func newCandidates(a fsverity.Algorithm) *candidates {
	return &candidates{seed: maphash.MakeSeed(), byKey: map[uint64][maxTries]int32{}, objects: digestTable{alg: a}, inline: map[[32]byte][]byte{}}
}

func (c *candidates) keys(name string, size int64) [2]uint64 {
	of := func(s string) uint64 { return maphash.Comparable(c.seed, sizedName{s, size}) }
	return [2]uint64{of("/" + name), of(path.Base(name))}
}

type sizedName struct {
	name string
	size int64
}

// addLayer adds the files of a layer, as far as there is room.
func (c *candidates) addLayer(l *Layer) error {
	for e := range l.Entries() {
		if c.full() {
			return nil
		}
		if len(e.Content) > 0 {
			c.addInline(e.Content)
		}
		if e.Object < 0 {
			continue
		}
		d, err := l.Digest(e.Object)
		if err != nil {
			return err
		}
		c.add(string(e.Name), e.Size, d)
	}
	return nil
}

func (c *candidates) full() bool { return c.files == maxCandidates }

func (c *candidates) add(name string, size int64, d fsverity.Digest) {
	c.files++
	n := int32(c.objects.add(d)) + 1
	for _, k := range c.keys(name, size) {
		at := c.byKey[k]
		if i := slices.Index(at[:], 0); i >= 0 {
			at[i] = n
			c.byKey[k] = at
		}
	}
}

func (c *candidates) addInline(b []byte) {
	sum := sha256.Sum256(b)
	if c.inline[sum] == nil {
		c.files++
		c.inline[sum] = bytes.Clone(b)
	}
}

// of lists what may be the content of a file of this name, as a tar has it, and length: those of the same path first, and of
// them those that were added first.
func (c *candidates) of(name string, size int64) (found []fsverity.Digest) {
	for _, k := range c.keys(strings.TrimPrefix(path.Clean("/"+name), "/"), size) {
		for _, n := range c.byKey[k] {
			d, err := c.objects.at(int(n) - 1)
			if err == nil && len(found) < maxTries && !slices.Contains(found, d) {
				found = append(found, d)
			}
		}
	}
	return found
}

// relatedFiles are the files of all images that have the name of the one to come, or come from the same repository, the image
// of the very name first.
func relatedFiles(ctx context.Context, s *store.Store, name string, src oci.Source) (*candidates, error) {
	c := newCandidates(s.Algorithm())
	layers, err := relatedLayers(s, name, src)
	if err != nil {
		return nil, err
	}
	limits := noLimits()
	for _, l := range layers {
		layer, err := loadLayer(ctx, s, l.DiffID, l.Stream, limits, newBounds(limits))
		switch {
		case err == nil:
			err = c.addLayer(layer)
		case isDamage(err): // then it is no help
			err = nil
		}
		if err != nil {
			return nil, err
		}
		if c.full() {
			break
		}
	}
	return c, nil
}

func relatedLayers(s *store.Store, name string, src oci.Source) ([]StoredLayer, error) {
	var same, others []StoredLayer
	for i, err := range Images(s) {
		if err != nil {
			continue // it can't be read, or is just going away
		}
		to := &others
		if i.Name == name {
			to = &same
		} else if !related(s, i, name, src) {
			continue
		}
		all, err := Platforms(s, i)
		if err != nil {
			continue
		}
		for _, i := range append([]*Info{i}, all...) { // the one for this machine before those that an index lists besides
			for _, l := range slices.Backward(i.Layers) { // upper layers go before those that they replace
				*to = append(*to, StoredLayer{l.DiffID, l.Stream})
			}
		}
	}
	seen := map[oci.DiffID]bool{}
	return slices.DeleteFunc(append(same, others...), func(l StoredLayer) bool {
		twice := seen[l.DiffID]
		seen[l.DiffID] = true
		return twice
	}), nil
}

func related(s *store.Store, i *Info, name string, src oci.Source) bool {
	if repositoryPart(i.Name) == repositoryPart(name) {
		return true
	}
	if i.Manifest == "" {
		return false
	}
	origin, err := ManifestOrigin(s, i.Manifest)
	return err == nil && repositoryPart(origin.Repository) == repositoryPart(repositoryOf(src))
}

// repositoryPart is a reference without tag and digest.
func repositoryPart(reference string) string {
	reference, _, _ = strings.Cut(reference, "@")
	if colon := strings.LastIndexByte(reference, ':'); colon > strings.LastIndexByte(reference, '/') {
		return reference[:colon]
	}
	return reference
}

// storedContent is where a content is: in an object, or here. Zero: the store does not have it.
type storedContent struct {
	object fsverity.Digest
	inline []byte
}

func (c *storedContent) missing() bool { return c.object.IsZero() && c.inline == nil }

// match finds contents of a TOC in the store. Each that is found was read, and has the digest that the TOC says.
func (c *candidates) match(ctx context.Context, s *store.Store, t *toc) ([]storedContent, error) {
	have := make([]storedContent, len(t.contents))
	names := make([]string, len(t.contents)) // of the first file of each
	for _, f := range slices.Backward(t.files) {
		names[f.content] = f.name
	}
	m := &matcher{s: s, sums: map[fsverity.Digest][32]byte{}}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	const atOnce = 64
	for from := 0; from < len(have); from += atOnce {
		g.Go(func() error {
			buf := make([]byte, 64<<10)
			for n := from; n < min(from+atOnce, len(have)); n++ {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				want := &t.contents[n]
				if have[n].inline = c.inline[want.sum]; have[n].inline == nil {
					have[n].object = m.first(ctx, c.of(names[n], want.size), want, buf)
				}
			}
			return nil
		})
	}
	return have, g.Wait()
}

// matcher knows the SHA-256 of objects that were read, so that each is read once, however many contents a table may have for
// which it comes into question.
type matcher struct {
	s    *store.Store
	mu   sync.Mutex
	sums map[fsverity.Digest][32]byte // zero: it can't be read, or has another size
}

// first is the first of the objects that is the content; zero: none is.
func (m *matcher) first(ctx context.Context, objects []fsverity.Digest, want *tocContent, buf []byte) fsverity.Digest {
	for _, d := range objects {
		m.mu.Lock()
		sum, known := m.sums[d]
		m.mu.Unlock()
		if !known {
			var err error
			if sum, err = sumObject(ctx, m.s, d, want.size, buf); err != nil {
				sum = [32]byte{} // it is none that helps
			}
			m.mu.Lock()
			m.sums[d] = sum
			m.mu.Unlock()
		}
		if sum == want.sum && sum != [32]byte{} {
			return d
		}
	}
	return fsverity.Digest{}
}

// sumObject computes the SHA-256 of an object that should have this size.
func sumObject(ctx context.Context, s *store.Store, d fsverity.Digest, size int64, buf []byte) (sum [32]byte, err error) {
	f, err := s.OpenObject(d)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	// Wrapped on both sides, so that the copy uses the buffer.
	n, err := io.CopyBuffer(contextWriter{ctx, h}, io.LimitReader(f, size+1), buf)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	h.Sum(sum[:0])
	return sum, err
}
