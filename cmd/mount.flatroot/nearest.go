package main

import (
	"maps"
	"slices"
)

// maxTypos is how many single-character edits still make one option look like
// another.
const maxTypos = 2

// nearest returns the option that name was most likely meant to be, or "".
func nearest(table map[string]optionSpec, name string) string {
	best, bestCost := "", maxTypos+1
	for _, n := range slices.Sorted(maps.Keys(table)) {
		// More than half of a name changed is no typo: dev and exec would be near anything.
		if c := editDistance(name, n); c < bestCost && 2*c < len(n) {
			best, bestCost = n, c
		}
	}
	return best
}

// editDistance is Levenshtein's: insertions, deletions and substitutions.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
