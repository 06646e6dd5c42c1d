package replay

import (
	"math"
	"math/bits"
	"slices"
)

// weeks has a bit for each of the last 53 weeks: whether there was a change.
type weeks uint64

func (w weeks) count() int64 { return int64(bits.OnesCount64(uint64(w))) }

func (v *View) weeks(id int) (w weeks) {
	for _, d := range v.Past(id) {
		if age := int(v.Now.Sub(d) / (7 * day)); age < 53 {
			w |= 1 << age
		}
	}
	return w
}

// matrixed are layers in the making.
type matrixed struct {
	*View
	changed map[int]weeks
	bins    []matrixBin
}

type matrixBin struct {
	ids   []int
	weeks weeks
	size  int64
}

// matrix follows rechunk (ded27fe, without its hand-written groups of packages): layers are filled with what has changed in the
// same weeks, up to a share of the mean size. Later releases keep them, and find a place for what is new.
func matrix(v *View) [][]int {
	m := &matrixed{View: v, changed: map[int]weeks{}}
	total := int64(0)
	for _, id := range v.IDs {
		m.changed[id] = v.weeks(id)
		total += v.size(id)
	}
	var left []int
	if v.Prev != nil {
		var groups [][]int
		groups, left = v.carried()
		for _, g := range groups {
			m.add(g)
		}
	} else {
		left = m.fill(m.small(v.IDs), total*4/10/int64(v.N))
	}
	m.place(left, total*13/10/int64(v.N))
	var groups [][]int
	for _, b := range m.bins {
		groups = append(groups, b.ids)
	}
	return groups
}

func (m *matrixed) add(ids []int) {
	var b matrixBin
	for _, id := range ids {
		m.put(&b, id)
	}
	m.bins = append(m.bins, b)
}

func (m *matrixed) put(b *matrixBin, id int) {
	b.ids = append(b.ids, id)
	b.weeks |= m.changed[id]
	b.size += m.size(id)
}

// small makes two layers of what is small, and returns the rest.
func (m *matrixed) small(ids []int) []int {
	for _, limit := range []int64{500_000, 1_000_000} {
		var small, rest []int
		for _, id := range ids {
			if m.size(id) < limit {
				small = append(small, id)
			} else {
				rest = append(rest, id)
			}
		}
		if len(small) > 0 {
			m.add(small)
		}
		ids = rest
	}
	return ids
}

// fill makes layers of at least a size, each around the largest that is left, and returns what is left at last.
func (m *matrixed) fill(ids []int, enough int64) []int {
	left := m.bySize(ids)
	for len(m.bins) < m.N && len(left) > 0 {
		var b matrixBin
		m.put(&b, left[0])
		left = left[1:]
		for b.size <= enough && len(left) > 0 {
			best, at := int64(math.MaxInt64), 0
			for k, id := range left {
				if c := (b.weeks | m.changed[id]).count() * (b.size + m.size(id)); c < best {
					best, at = c, k
				}
			}
			m.put(&b, left[at])
			left = slices.Delete(left, at, at+1)
		}
		m.bins = append(m.bins, b)
	}
	slices.Sort(left)
	return left
}

// place puts each of ids where it adds least to weeks times size; what has grown to most gets nothing more.
func (m *matrixed) place(ids []int, most int64) {
	for len(ids) > 0 {
		best, bin, at := int64(math.MaxInt64), -1, 0
		for k, b := range m.bins {
			if b.size > most {
				continue
			}
			for i, id := range ids {
				extra := (b.weeks|m.changed[id]).count()*(b.size+m.size(id)) - b.weeks.count()*b.size
				if extra < best {
					best, bin, at = extra, k, i
				}
			}
		}
		if bin < 0 {
			bin = m.smallest()
		}
		m.put(&m.bins[bin], ids[at])
		ids = slices.Delete(ids, at, at+1)
	}
}

func (m *matrixed) smallest() (bin int) {
	for k, b := range m.bins {
		if b.size < m.bins[bin].size {
			bin = k
		}
	}
	return bin
}
