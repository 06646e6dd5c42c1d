package replay

import (
	"cmp"
	"math"
	"slices"
)

// frozenBins follows rpm-ostree (ostree-rs-ext b885f94, chunking.rs): layers are made once, by classes of size and of how often
// there was a change. Later releases keep them, and put whatever is new into the last one.
func frozenBins(v *View) [][]int {
	if v.Prev == nil {
		return v.bins()
	}
	bins, fresh := v.carried()
	last := len(bins) - 1
	bins[last] = append(bins[last], fresh...)
	return bins
}

// bins are those of a first release. The last one is empty.
func (v *View) bins() [][]int {
	large, medium, small := v.sizeClasses()
	budget := v.N - 2 // one for what is small, one for what is new
	own := budget * 6 / 10
	n := min(own, len(large))
	bins := alone(large[:n])
	if len(small) > 0 {
		bins = append(bins, small)
	}
	rest := append(large[n:], medium...)
	parts := v.mixed(rest, max(1, len(rest)/max(budget-own, 1)))
	for len(bins)+len(parts) > v.N-1 && len(parts) > 1 {
		last := len(parts) - 1
		parts[last-1] = append(parts[last-1], parts[last]...)
		parts = parts[:last]
	}
	return append(append(bins, parts...), nil)
}

func (v *View) sizeClasses() (large, medium, small []int) {
	middle, distance := v.sizeSpread(v.IDs)
	for _, id := range v.bySize(v.IDs) {
		switch size := float64(v.size(id)); {
		case size >= middle+2*distance:
			large = append(large, id)
		case size <= .5*math.Abs(middle-2*distance):
			small = append(small, id)
		default:
			medium = append(medium, id)
		}
	}
	return large, medium, small
}

// mixed cuts classes of frequency and size into parts of a fixed number of components.
func (v *View) mixed(ids []int, number int) (parts [][]int) {
	changes := func(id int) int { return len(v.lastYear(id)) }
	slices.SortStableFunc(ids, func(a, b int) int { return cmp.Compare(changes(a), changes(b)) })
	var counts, sizes []float64
	for _, id := range ids {
		counts, sizes = append(counts, float64(changes(id))), append(sizes, float64(v.size(id)))
	}
	countClass, sizeClass := deviationClass(counts), deviationClass(sizes)
	sizeRank := [3]int{0, 2, 1} // high, low, medium: as their names sort there
	var classes [9][]int
	for k, id := range ids {
		c := 3*countClass(counts[k]) + sizeRank[sizeClass(sizes[k])]
		classes[c] = append(classes[c], id)
	}
	for _, c := range classes {
		for part := range slices.Chunk(c, number) {
			parts = append(parts, slices.Clone(part))
		}
	}
	return parts
}

// deviationClass tells what is high (0), medium (1) or low (2) among x: two standard deviations off the mean.
func deviationClass(x []float64) func(float64) int {
	mean, deviation := meanDeviation(x)
	return func(y float64) int {
		switch {
		case y >= mean+2*deviation:
			return 0
		case y <= .5*math.Abs(mean-2*deviation):
			return 2
		}
		return 1
	}
}
