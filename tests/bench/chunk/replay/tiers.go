package replay

import (
	"hash/fnv"
	"math"
	"slices"
)

// hashTiers follows chunkah 0.6.0 (4c8abc3, src/packing.rs): what is large has a layer of its own; the rest falls into three
// tiers by how stable it was in the last year, and within a tier into layers by the hash of its name.
func hashTiers(v *View) [][]int {
	if len(v.IDs) <= v.N {
		return floor(v)
	}
	large, rest := v.outliers()
	groups := alone(large)
	tiers := v.tiers(rest)
	budget := v.N - len(groups)
	for k, tier := range tiers {
		n := budget
		if later := len(tiers) - 1 - k; later > 0 {
			share := float64(len(tier)) / float64(len(rest)) * float64(v.N-len(large))
			n = min(max(1, int(math.Round(share))), budget-later)
		}
		budget -= n
		groups = append(groups, v.hashed(tier, n)...)
	}
	return groups
}

// outliers are those beyond the median by one and a half median distances, and the rest.
func (v *View) outliers() (large, rest []int) {
	middle, distance := v.sizeSpread(v.IDs)
	if distance < .01*middle {
		distance = middle
	}
	most := int(.8 * float64(v.N-1))
	for _, id := range v.bySize(v.IDs) {
		if float64(v.size(id)) >= middle+1.5*distance && len(large) < most {
			large = append(large, id)
		} else {
			rest = append(rest, id)
		}
	}
	return large, rest
}

// tiers divides by a standard deviation above and below the mean stability. None is empty.
func (v *View) tiers(ids []int) [][]int {
	var stable []float64
	for _, id := range ids {
		stable = append(stable, v.stability(id))
	}
	mean, deviation := meanDeviation(stable)
	tiers := make([][]int, 3)
	for k, id := range ids {
		tier := 1
		switch {
		case stable[k] >= mean+deviation:
			tier = 0
		case stable[k] <= mean-deviation:
			tier = 2
		}
		tiers[tier] = append(tiers[tier], id)
	}
	return slices.DeleteFunc(tiers, func(t []int) bool { return len(t) == 0 })
}

// stability is the probability of a week without change, by the rate since the oldest change within a year.
func (v *View) stability(id int) float64 {
	changes := v.lastYear(id)
	if len(changes) == 0 {
		return .99
	}
	days := v.Now.Sub(changes[0]).Hours() / 24
	if days < 1 {
		return 0
	}
	return math.Exp(-float64(len(changes)) / days * 7)
}

// hashed makes n layers. One that no name falls into gets the largest component of those that share a layer.
func (v *View) hashed(ids []int, n int) [][]int {
	bins := make([][]int, n)
	for _, id := range ids {
		h := fnv.New64a()
		h.Write([]byte("rpm/" + v.Components[id].Name + "\xff")) // a hashed string ends so in Rust
		k := h.Sum64() % uint64(n)
		bins[k] = append(bins[k], id)
	}
	for k := range bins {
		if len(bins[k]) > 0 {
			continue
		}
		from, largest := v.largestShared(bins)
		if from < 0 {
			break
		}
		bins[from] = slices.DeleteFunc(bins[from], func(id int) bool { return id == largest })
		bins[k] = []int{largest}
	}
	return bins
}

func (v *View) largestShared(bins [][]int) (from, largest int) {
	from = -1
	for k, b := range bins {
		for _, id := range b {
			if len(b) > 1 && (from < 0 || v.size(id) > v.size(largest)) {
				from, largest = k, id
			}
		}
	}
	return from, largest
}
