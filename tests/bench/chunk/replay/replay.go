// Package replay replays a recorded history of an image's components against ways to cut the image into layers.
package replay

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Trace is a recorded history.
type Trace struct {
	Components []Component
	End        time.Time
}

// Component of a trace.
type Component struct {
	Name  string
	Size  int64
	Dates []time.Time // oldest first
}

// Parse reads a trace.
func Parse(b []byte) (*Trace, error) {
	var raw struct {
		Comp map[string]struct {
			Size  int64    `json:"size"`
			Dates []string `json:"dates"`
		} `json:"comp"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, err
	}
	t := &Trace{End: time.Date(2026, 10, 28, 0, 0, 0, 0, time.UTC)}
	for name, c := range raw.Comp {
		if c.Size == 0 {
			continue
		}
		x := Component{Name: name, Size: c.Size}
		for _, d := range c.Dates {
			at, err := time.Parse(time.DateOnly, d)
			if err != nil {
				return nil, err
			}
			if !at.After(t.End) {
				x.Dates = append(x.Dates, at)
			}
		}
		t.Components = append(t.Components, x)
	}
	slices.SortFunc(t.Components, func(a, b Component) int { return strings.Compare(a.Name, b.Name) })
	return t, nil
}

// Config is a row.
type Config struct {
	N     int
	Step  int // days
	Steps int
	Churn bool
	Seed  uint64
}

// View is what a policy sees.
type View struct {
	*Trace
	IDs     []int // that exist
	Now     time.Time
	N       int
	Prev    [][]int
	Version []int
	Step    int
}

// Past are a component's dates up to now.
func (v *View) Past(i int) []time.Time {
	ds := v.Components[i].Dates
	n, _ := slices.BinarySearchFunc(ds, v.Now.Add(time.Second), time.Time.Compare)
	return ds[:n]
}

// Policy cuts.
type Policy interface{ Cut(v *View) [][]int }

// Result is what updates fetch.
type Result struct {
	Bytes  float64 // mean bytes an update
	Layers float64
	Took   time.Duration
}

const day = 24 * time.Hour

// Run replays.
func Run(t *Trace, c Config, p Policy) Result {
	start := t.End.Add(-time.Duration(c.Steps*c.Step) * day)
	alive := lives(t, c)
	v := &View{Trace: t, N: c.N, Version: make([]int, len(t.Components)), Step: c.Step}
	var have map[string]bool
	var bytes, layers int64
	began := time.Now()
	for j := 0; j <= c.Steps; j++ {
		v.Now = start.Add(time.Duration(j*c.Step) * day)
		v.IDs = v.IDs[:0:0]
		for i, x := range t.Components {
			n, _ := slices.BinarySearchFunc(x.Dates, v.Now.Add(time.Second), time.Time.Compare)
			v.Version[i] = n
			if alive(i, j) {
				v.IDs = append(v.IDs, i)
			}
		}
		v.Prev = p.Cut(v)
		now := map[string]bool{}
		for _, l := range v.Prev {
			if len(l) == 0 {
				continue
			}
			slices.Sort(l)
			var key strings.Builder
			var size int64
			for _, i := range l {
				fmt.Fprintf(&key, "%d@%d ", i, v.Version[i])
				size += t.Components[i].Size
			}
			now[key.String()] = true
			if have != nil && !have[key.String()] {
				bytes += size
				layers++
			}
		}
		have = now
	}
	return Result{float64(bytes) / float64(c.Steps), float64(layers) / float64(c.Steps), time.Since(began)}
}

func lives(t *Trace, c Config) func(i, step int) bool {
	n := len(t.Components)
	from, to := make([]int, n), make([]int, n)
	for i := range to {
		to[i] = c.Steps + 1
	}
	if c.Churn {
		r := rand.New(rand.NewPCG(c.Seed, 7))
		for _, i := range r.Perm(n)[:n/10] {
			from[i] = 1 + r.IntN(c.Steps-1)
		}
		for _, i := range r.Perm(n)[:n/20] {
			to[i] = 1 + r.IntN(c.Steps-1)
		}
	}
	return func(i, step int) bool { return step >= from[i] && step < to[i] }
}
