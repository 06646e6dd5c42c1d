//go:build race

package testenv

// Racing tells that the race detector watches, with which everything takes ten times as long.
const Racing = true
