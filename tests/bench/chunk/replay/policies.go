package replay

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/flatroot/flatroot/chunk"
)

type PolicyFunc func(v *View) [][]int

func (f PolicyFunc) Cut(v *View) [][]int { return f(v) }

// Floor is a layer for each component.
func Floor(v *View) [][]int {
	var out [][]int
	for _, i := range v.IDs {
		out = append(out, []int{i})
	}
	return out
}

// Single is one layer.
func Single(v *View) [][]int { return [][]int{slices.Clone(v.IDs)} }

// bySize is the largest first.
func (v *View) bySize(ids []int) []int {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b int) int {
		return cmp.Or(cmp.Compare(v.Components[b].Size, v.Components[a].Size), cmp.Compare(a, b))
	})
	return ids
}

// SizeTop has the largest alone, and the rest together.
func SizeTop(v *View) [][]int {
	ids := v.bySize(v.IDs)
	n := min(len(ids), v.N-1)
	out := Floor(&View{IDs: ids[:n]})
	if n < len(ids) {
		out = append(out, ids[n:])
	}
	return out
}

func median(x []float64) float64 {
	x = slices.Clone(x)
	slices.Sort(x)
	n := len(x)
	if n == 0 {
		return 0
	}
	return (x[(n-1)/2] + x[n/2]) / 2
}

func (v *View) spread(ids []int) (med, mad float64) {
	var x, d []float64
	for _, i := range ids {
		x = append(x, float64(v.Components[i].Size))
	}
	med = median(x)
	for _, y := range x {
		d = append(d, math.Abs(y-med))
	}
	return med, median(d)
}

func meanDev(x []float64) (mean, dev float64) {
	for _, y := range x {
		mean += y
	}
	mean /= float64(len(x))
	for _, y := range x {
		dev += (y - mean) * (y - mean)
	}
	return mean, math.Sqrt(dev / float64(len(x)))
}

// lastYear are the days with changes in the last year.
func (v *View) lastYear(i int) []time.Time {
	past := v.Past(i)
	n, _ := slices.BinarySearchFunc(past, v.Now.Add(-365*day), time.Time.Compare)
	return past[n:]
}

func (v *View) stability(i int) float64 {
	ds := v.lastYear(i)
	if len(ds) == 0 {
		return .99
	}
	span := v.Now.Sub(ds[0]).Hours() / 24
	if span < 1 {
		return 0
	}
	return math.Exp(-float64(len(ds)) / span * 7)
}

// HashTiers has what is large alone, and hashes the rest by name into tiers of stability.
func HashTiers(v *View) [][]int {
	ids := v.IDs
	if len(ids) <= v.N {
		return Floor(v)
	}
	med, mad := v.spread(ids)
	if mad < .01*med {
		mad = med
	}
	var hi, lo []int
	for _, i := range v.bySize(ids) {
		if float64(v.Components[i].Size) >= med+1.5*mad && len(hi) < int(.8*float64(v.N-1)) {
			hi = append(hi, i)
		} else {
			lo = append(lo, i)
		}
	}
	out := Floor(&View{IDs: hi})
	budget := v.N - len(out)
	var st []float64
	for _, i := range lo {
		st = append(st, v.stability(i))
	}
	mean, dev := meanDev(st)
	var tiers [3][]int
	for k, i := range lo {
		switch s := st[k]; {
		case s >= mean+dev:
			tiers[0] = append(tiers[0], i)
		case s > mean-dev:
			tiers[1] = append(tiers[1], i)
		default:
			tiers[2] = append(tiers[2], i)
		}
	}
	var full [][]int
	for _, t := range tiers {
		if len(t) > 0 {
			full = append(full, t)
		}
	}
	used := 0
	for k, t := range full {
		n := budget - used
		if k < len(full)-1 {
			n = min(max(1, int(math.Round(float64(len(t))/float64(len(lo))*float64(budget)))), budget-used-(len(full)-1-k))
		}
		used += n
		out = append(out, v.hashed(t, n)...)
	}
	return out
}

func (v *View) hashed(ids []int, n int) [][]int {
	bins := make([][]int, n)
	for _, i := range ids {
		h := fnv.New64a()
		h.Write([]byte(v.Components[i].Name))
		k := h.Sum64() % uint64(n)
		bins[k] = append(bins[k], i)
	}
	for k := range bins {
		if len(bins[k]) > 0 {
			continue
		}
		from, largest := -1, -1
		for j, b := range bins {
			for _, i := range b {
				if len(b) > 1 && (largest < 0 || v.Components[i].Size > v.Components[largest].Size) {
					from, largest = j, i
				}
			}
		}
		if from < 0 {
			break
		}
		bins[from] = slices.DeleteFunc(bins[from], func(i int) bool { return i == largest })
		bins[k] = []int{largest}
	}
	return slices.DeleteFunc(bins, func(b []int) bool { return len(b) == 0 })
}

// restrict drops what is no more from a plan, and tells what is new.
func (v *View) restrict() (bins [][]int, fresh []int) {
	seen := map[int]bool{}
	for _, b := range v.Prev {
		var kept []int
		for _, i := range b {
			seen[i] = true
			if slices.Contains(v.IDs, i) {
				kept = append(kept, i)
			}
		}
		bins = append(bins, kept)
	}
	for _, i := range v.IDs {
		if !seen[i] {
			fresh = append(fresh, i)
		}
	}
	return bins, fresh
}

// FrozenBins makes classes of size and frequency once, and puts what is new into the last bin.
func FrozenBins(v *View) [][]int {
	if v.Prev != nil {
		bins, fresh := v.restrict()
		bins[len(bins)-1] = append(bins[len(bins)-1], fresh...)
		return bins
	}
	ids := v.bySize(v.IDs)
	med, mad := v.spread(ids)
	low, high := .5*math.Abs(med-2*mad), med+2*mad
	nb := v.N - 2
	hsb := int(.6 * float64(nb))
	msb := nb - hsb
	var hs, ms, ls []int
	for _, i := range ids {
		switch s := float64(v.Components[i].Size); {
		case s >= high:
			hs = append(hs, i)
		case s <= low:
			ls = append(ls, i)
		default:
			ms = append(ms, i)
		}
	}
	n := min(hsb, len(hs))
	rem := append(slices.Clone(hs[n:]), ms...)
	hs = hs[:n]
	freq := func(i int) float64 { return float64(len(v.lastYear(i))) }
	slices.SortStableFunc(rem, func(a, b int) int { return cmp.Compare(freq(a), freq(b)) })
	var fs, zs []float64
	for _, i := range rem {
		fs, zs = append(fs, freq(i)), append(zs, float64(v.Components[i].Size))
	}
	fm, fd := meanDev(fs)
	zm, zd := meanDev(zs)
	class := func(x, m, d float64) int {
		if x >= m+2*d {
			return 0
		} else if x <= .5*math.Abs(m-2*d) {
			return 2
		}
		return 1
	}
	sizeOrder := [3]int{0, 2, 1} // high, medium, low as their names sort
	var parts [9][]int
	for _, i := range rem {
		k := 3*class(freq(i), fm, fd) + sizeOrder[class(float64(v.Components[i].Size), zm, zd)]
		parts[k] = append(parts[k], i)
	}
	per := max(1, len(rem)/max(msb, 1))
	var out [][]int
	for _, p := range parts {
		for c := range slices.Chunk(p, per) {
			out = append(out, slices.Clone(c))
		}
	}
	base := Floor(&View{IDs: hs})
	if len(ls) > 0 {
		base = append(base, ls)
	}
	for len(base)+len(out) > v.N-1 && len(out) > 1 {
		b := out[len(out)-1]
		out = out[:len(out)-1]
		out[len(out)-1] = append(out[len(out)-1], b...)
	}
	return append(append(base, out...), nil)
}

type weeks [53]bool

func (v *View) weeks(i int) (w weeks) {
	for _, d := range v.Past(i) {
		if a := int(v.Now.Sub(d).Hours() / 24 / 7); a < len(w) {
			w[a] = true
		}
	}
	return w
}

func union(a, b weeks) (w weeks, n int64) {
	for k := range w {
		if w[k] = a[k] || b[k]; w[k] {
			n++
		}
	}
	return w, n
}

// Matrix fills layers by the weeks in which they change.
func Matrix(v *View) [][]int {
	w := map[int]weeks{}
	var total int64
	for _, i := range v.IDs {
		w[i] = v.weeks(i)
		total += v.Components[i].Size
	}
	size := func(i int) int64 { return v.Components[i].Size }
	fill, most := total*4/10/int64(v.N), total*13/10/int64(v.N)
	var bins [][]int
	var todo []int
	if v.Prev != nil {
		bins, todo = v.restrict()
	} else {
		todo = slices.Clone(v.IDs)
		for _, lim := range []int64{5e5, 1e6} {
			var small []int
			for _, i := range todo {
				if size(i) < lim {
					small = append(small, i)
				}
			}
			if len(small) > 0 {
				bins = append(bins, small)
				todo = slices.DeleteFunc(todo, func(i int) bool { return size(i) < lim })
			}
		}
		for len(bins) < v.N && len(todo) > 0 {
			todo = v.bySize(todo)
			cur, u, s := []int{todo[0]}, w[todo[0]], size(todo[0])
			todo = todo[1:]
			for s <= fill && len(todo) > 0 {
				best, at := int64(-1), 0
				for k, i := range todo {
					if _, n := union(u, w[i]); best < 0 || n*(s+size(i)) < best {
						best, at = n*(s+size(i)), k
					}
				}
				i := todo[at]
				todo = slices.Delete(todo, at, at+1)
				cur, s = append(cur, i), s+size(i)
				u, _ = union(u, w[i])
			}
			bins = append(bins, cur)
		}
		slices.Sort(todo)
	}
	us, ss := make([]weeks, len(bins)), make([]int64, len(bins))
	for k, b := range bins {
		for _, i := range b {
			us[k], _ = union(us[k], w[i])
			ss[k] += size(i)
		}
	}
	for len(todo) > 0 {
		best, bk, bj := int64(math.MaxInt64), -1, 0
		for k := range bins {
			if ss[k] > most {
				continue
			}
			_, n0 := union(us[k], us[k])
			for j, i := range todo {
				if _, n := union(us[k], w[i]); n*(ss[k]+size(i))-n0*ss[k] < best {
					best, bk, bj = n*(ss[k]+size(i))-n0*ss[k], k, j
				}
			}
		}
		if bk < 0 {
			bk = 0
			for k := range ss {
				if ss[k] < ss[bk] {
					bk = k
				}
			}
		}
		i := todo[bj]
		todo = slices.Delete(todo, bj, bj+1)
		bins[bk] = append(bins[bk], i)
		us[bk], _ = union(us[bk], w[i])
		ss[bk] += size(i)
	}
	return bins
}

// Ours is chunk's.
type Ours struct {
	Options chunk.PlanOptions
	prev    *chunk.Previous
	index   map[string]int
}

func (o *Ours) Cut(v *View) [][]int {
	if o.index == nil {
		o.index = map[string]int{}
		for i, c := range v.Components {
			o.index[c.Name] = i
		}
	}
	var cs []chunk.Component
	for _, i := range v.IDs {
		c := v.Components[i]
		cs = append(cs, chunk.Component{Name: c.Name, Size: c.Size, Changes: v.Past(i), Digest: strconv.Itoa(v.Version[i])})
	}
	opt := o.Options
	opt.MaxLayers, opt.Now, opt.Previous = v.N, v.Now, o.prev
	p, err := chunk.NewPlan(cs, opt)
	if err != nil {
		panic(err)
	}
	o.prev = p.Record()
	var out [][]int
	for _, l := range p.Layers {
		var b []int
		for _, c := range l.Components {
			b = append(b, o.index[c.Name])
		}
		out = append(out, b)
	}
	return out
}
