// Package replay replays the recorded history of an image's components against ways to cut the image into layers, and counts
// what a client fetches from release to release. A policy is shown no more than a builder would have known at the time.
package replay

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"time"
)

const day = 24 * time.Hour

// Pace is how often there is a release, and how many of them are replayed, up to the end of the trace.
type Pace struct {
	Name  string
	Days  int
	Steps int
}

// Paces are those of the tables.
func Paces() []Pace {
	return []Pace{{"weekly", 7, 78}, {"daily", 1, 146}, {"monthly", 28, 39}}
}

// Case is one history with one limit of layers.
type Case struct {
	Pace
	N     int // layers
	Churn bool
	Seed  uint64 // of churn
}

// View is what a policy sees of a release.
type View struct {
	*Trace
	IDs     []int // of the components that the image has, ascending
	Now     time.Time
	Days    int     // from release to release
	N       int     // layers that there may be
	Prev    [][]int // what the policy has returned for the release before; nil: this is the first
	Version []int   // of all components: it counts changes
}

// Past are a component's changes so far.
func (v *View) Past(id int) []time.Time {
	changes := v.Components[id].Changes
	return changes[:countUntil(changes, v.Now)]
}

func countUntil(changes []time.Time, now time.Time) int {
	n, _ := slices.BinarySearchFunc(changes, now.Add(1), time.Time.Compare)
	return n
}

func (v *View) size(id int) int64 { return v.Components[id].Size }

// Cut says which components share a layer. Empty layers don't count.
type Cut func(v *View) [][]int

// Result is what clients fetch.
type Result struct {
	Mean   float64 `json:"mean"` // bytes an update from one release to the next
	Median float64 `json:"median"`
	P95    float64 `json:"p95"`
	Skip4  float64 `json:"skip4"`   // bytes an update to the fourth release after, on average
	Layers float64 `json:"layers"`  // that an update fetches, on average
	Cold   float64 `json:"cold"`    // bytes without anything there, of the last release
	PlanMS float64 `json:"plan_ms"` // milliseconds a plan takes, on average
}

// layers are those of a release, by what is in them; values are bytes.
type layers map[string]int64

// skipped is how many releases the client that updates seldom goes ahead at once.
const skipped = 4

// Run replays a case.
func Run(t *Trace, c Case, cut Cut) Result {
	alive := lives(t, c)
	v := &View{Trace: t, Days: c.Days, N: c.N, Version: make([]int, len(t.Components))}
	var releases []layers
	var took time.Duration
	for step := range c.Steps + 1 {
		v.Now = t.End.Add(-time.Duration((c.Steps-step)*c.Days) * day)
		v.IDs = nil
		for id, x := range t.Components {
			v.Version[id] = countUntil(x.Changes, v.Now)
			if alive(id, step) {
				v.IDs = append(v.IDs, id)
			}
		}
		began := time.Now()
		v.Prev = cut(v)
		took += time.Since(began)
		releases = append(releases, v.layers(v.Prev))
	}
	r := count(releases)
	r.PlanMS = took.Seconds() * 1000 / float64(len(releases))
	return r
}

func (v *View) layers(groups [][]int) layers {
	out := layers{}
	for _, g := range groups {
		var size int64
		for _, id := range g {
			size += v.size(id)
		}
		if len(g) > 0 {
			out[v.content(g)] = size
		}
	}
	return out
}

// content tells layers apart by the versions of components that are in them.
func (v *View) content(group []int) string {
	var s []byte
	for _, id := range slices.Sorted(slices.Values(group)) {
		s = binary.AppendUvarint(binary.AppendUvarint(s, uint64(id)), uint64(v.Version[id]))
	}
	return string(s)
}

func count(releases []layers) (r Result) {
	var bytes, skip []float64
	var fetched float64
	for k, l := range releases {
		if k >= 1 {
			b, n := l.without(releases[k-1])
			bytes = append(bytes, b)
			fetched += n
		}
		if k >= skipped {
			b, _ := l.without(releases[k-skipped])
			skip = append(skip, b)
		}
	}
	r.Mean, _ = meanDeviation(bytes)
	r.Skip4, _ = meanDeviation(skip)
	r.Layers = fetched / float64(len(bytes))
	r.Cold, _ = releases[len(releases)-1].without(nil)
	slices.Sort(bytes)
	r.Median, r.P95 = median(bytes), bytes[len(bytes)*95/100]
	return r
}

// without are the bytes and the number of layers that a client lacks which has others.
func (l layers) without(have layers) (bytes, n float64) {
	for name, size := range l {
		if _, ok := have[name]; !ok {
			bytes += float64(size)
			n++
		}
	}
	return bytes, n
}

// lives tells when there are which components: all of them always, or, with churn, a tenth come and a twentieth go at some
// time.
func lives(t *Trace, c Case) func(id, step int) bool {
	n := len(t.Components)
	from, to := make([]int, n), slices.Repeat([]int{c.Steps + 1}, n)
	if c.Churn {
		r := rand.New(rand.NewPCG(c.Seed, 7))
		for _, id := range r.Perm(n)[:n/10] {
			from[id] = 1 + r.IntN(c.Steps-1)
		}
		for _, id := range r.Perm(n)[:n/20] {
			to[id] = 1 + r.IntN(c.Steps-1)
		}
	}
	return func(id, step int) bool { return step >= from[id] && step < to[id] }
}
