package replay

import (
	"math"
	"slices"
)

// median is 0 if there is nothing.
func median(x []float64) float64 {
	n := len(x)
	if n == 0 {
		return 0
	}
	x = slices.Sorted(slices.Values(x))
	return (x[(n-1)/2] + x[n/2]) / 2
}

// meanDeviation are the mean and the standard deviation; 0 if there is nothing.
func meanDeviation(x []float64) (mean, deviation float64) {
	if len(x) == 0 {
		return 0, 0
	}
	for _, y := range x {
		mean += y
	}
	mean /= float64(len(x))
	for _, y := range x {
		deviation += (y - mean) * (y - mean)
	}
	return mean, math.Sqrt(deviation / float64(len(x)))
}

// sizeSpread are the median of sizes and the median distance from it.
func (v *View) sizeSpread(ids []int) (middle, distance float64) {
	var sizes, distances []float64
	for _, id := range ids {
		sizes = append(sizes, float64(v.size(id)))
	}
	middle = median(sizes)
	for _, s := range sizes {
		distances = append(distances, math.Abs(s-middle))
	}
	return middle, median(distances)
}
