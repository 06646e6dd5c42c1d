package mount

import "slices"

// maxTypos is how many slips of the finger still make one name look like another.
const maxTypos = 2

// Nearest returns the name that a mistyped one was most likely meant to be, or
// "": of equals the first in byte order.
func Nearest(typed string, names []string) string {
	best, bestCost := "", maxTypos+1
	for _, n := range slices.Sorted(slices.Values(names)) {
		// Half of a short word's letters changed make any other word.
		if c := editDistance(typed, n); c < bestCost && 2*c < len(n) {
			best, bestCost = n, c
		}
	}
	return best
}

// editDistance counts the letters to insert, delete, replace or exchange with
// their neighbours to make a into b (the restricted Damerau-Levenshtein distance).
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := last[j]
			if a[i] != b[j] {
				cost++
			}
			cost = min(cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				cost = min(cost, before[j-1]+1)
			}
			row[j+1] = cost
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
