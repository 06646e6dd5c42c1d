package chunk

import (
	"cmp"
	"slices"
	"time"
)

// Explanation says what a plan does, and why.
type Explanation struct {
	Layers []ExplainedLayer `json:"layers"`
	Size   int64            `json:"size"` // bytes, not compressed
	// NextBytes and NextLayers are what the next update is expected to fetch: bytes of layers, not compressed, and thousandths of
	// layers.
	NextBytes  int64 `json:"next_bytes"`
	NextLayers int64 `json:"next_layers_per_mille"`
	// Update is what an update from the plan before fetches; nil: there is none.
	Update *Update `json:"update,omitempty"`
	// Past are the last steps, the newest first: what updates would have fetched with these layers.
	Past []PastUpdate `json:"past,omitempty"`
}

// ExplainedLayer is a layer of an Explanation. Bytes are not compressed.
type ExplainedLayer struct {
	Size       int64                `json:"size"`
	Chance     int64                `json:"chance_per_million"` // that the next update fetches it
	Cost       int64                `json:"cost"`               // bytes that this comes to, with those of a request
	Kept       bool                 `json:"kept"`               // the same as before
	Components []ExplainedComponent `json:"components"`         // the largest first
}

// ExplainedComponent is a component of an ExplainedLayer.
type ExplainedComponent struct {
	Name    string     `json:"name"`
	Size    int64      `json:"size"`
	Changes int        `json:"changes"`               // known ones in the time that counts
	Last    *time.Time `json:"last_change,omitempty"` // the newest of them
	State   State      `json:"state"`
}

// State is how a component is to the plan before.
type State string

// States of components. Without a plan before, or one that has no digests, none is known.
const (
	Unknown State = "unknown"
	Same    State = "same"
	Changed State = "changed"
	Added   State = "added"
)

// Update compares a plan with the one before. Bytes are not compressed.
type Update struct {
	From       string   `json:"from"`   // the tool that made the plan before
	Bytes      int64    `json:"bytes"`  // of layers that are not kept
	Least      int64    `json:"least"`  // of what has changed or is new: no plan could do with less
	Layers     int      `json:"layers"` // not kept
	KeptLayers int      `json:"kept_layers"`
	KeptBytes  int64    `json:"kept_bytes"`
	Changed    []string `json:"changed"`
	Added      []string `json:"added"`
	Removed    []string `json:"removed"`
}

// PastUpdate is a step of the past.
type PastUpdate struct {
	Until  time.Time `json:"until"`
	Layers int       `json:"layers"`
	Bytes  int64     `json:"bytes"`
	Least  int64     `json:"least"` // of the components that changed
}

// pastSteps is how many steps are looked back.
const pastSteps = 26

// Explain explains a plan. previous is the one before, or nil.
func (p *Plan) Explain(previous *Previous) *Explanation {
	e := &Explanation{Layers: []ExplainedLayer{}}
	before := previous.byName()
	for _, l := range p.Layers {
		e.add(l.Chance, explainLayer(l, before, p))
	}
	if previous != nil {
		e.Update = e.compare(previous)
	}
	e.Past = p.past()
	return e
}

// Explain explains a plan of before, as far as its record goes.
func (r *Previous) Explain() *Explanation {
	e := &Explanation{Layers: []ExplainedLayer{}}
	for _, l := range r.Layers {
		x := ExplainedLayer{Chance: l.Chance}
		for _, c := range l.Components {
			x.Size += c.Size
			x.Components = append(x.Components, ExplainedComponent{Name: c.Name, Size: c.Size, Changes: len(c.Changes), Last: last(c.Changes), State: Unknown})
		}
		x.Cost = expected(x.Size+requestCost, ofMillion(l.Chance)).bytes()
		e.add(l.Chance, x)
	}
	return e
}

func (e *Explanation) add(chance int64, l ExplainedLayer) {
	slices.SortFunc(l.Components, func(a, b ExplainedComponent) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Name, b.Name))
	})
	e.Layers = append(e.Layers, l)
	e.Size += l.Size
	e.NextBytes += expected(l.Size, ofMillion(chance)).bytes()
	e.NextLayers += chance / 1000
}

// ofMillion is a probability that is given in millionths.
func ofMillion(chance int64) probability { return probability(chance) * certain / 1_000_000 }

func explainLayer(l Layer, before map[string]Recorded, p *Plan) ExplainedLayer {
	x := ExplainedLayer{Size: l.Size, Chance: l.Chance, Cost: l.Cost, Kept: l.Kept}
	for _, c := range l.Components {
		counted := 0
		historyOf(c.Changes, p.Now, p.Step).steps(func(int) { counted++ })
		x.Components = append(x.Components, ExplainedComponent{Name: c.Name, Size: c.Size, Changes: counted, Last: last(c.Changes), State: stateOf(c, before)})
	}
	return x
}

func stateOf(c Component, before map[string]Recorded) State {
	r, ok := before[c.Name]
	switch {
	case before == nil || ok && r.Digest == "":
		return Unknown
	case !ok:
		return Added
	case r.Digest == shortDigest(c.Digest):
		return Same
	}
	return Changed
}

func last(changes []time.Time) *time.Time {
	if len(changes) == 0 {
		return nil
	}
	t := slices.MaxFunc(changes, time.Time.Compare).UTC()
	return &t
}

// byName has all components; nil if there is no plan.
func (r *Previous) byName() map[string]Recorded {
	if r == nil {
		return nil
	}
	m := map[string]Recorded{}
	for _, l := range r.Layers {
		for _, c := range l.Components {
			m[c.Name] = c
		}
	}
	return m
}

func (e *Explanation) compare(previous *Previous) *Update {
	u := &Update{From: previous.Tool, Changed: []string{}, Added: []string{}, Removed: []string{}}
	now := map[string]bool{}
	for _, l := range e.Layers {
		if l.Kept {
			u.KeptLayers++
			u.KeptBytes += l.Size
		} else {
			u.Layers++
			u.Bytes += l.Size
		}
		for _, c := range l.Components {
			now[c.Name] = true
			switch c.State {
			case Same:
				continue
			case Changed, Unknown:
				u.Changed = append(u.Changed, c.Name)
			case Added:
				u.Added = append(u.Added, c.Name)
			}
			u.Least += c.Size
		}
	}
	for name := range previous.byName() {
		if !now[name] {
			u.Removed = append(u.Removed, name)
		}
	}
	for _, names := range [][]string{u.Changed, u.Added, u.Removed} {
		slices.Sort(names)
	}
	return u
}

// past says what updates of the last steps would have fetched, had the layers been these.
func (p *Plan) past() []PastUpdate {
	out := make([]PastUpdate, pastSteps)
	for i := range out {
		out[i].Until = p.Now.Add(-time.Duration(i) * p.Step).UTC()
	}
	known := false
	for _, l := range p.Layers {
		var all history
		for _, c := range l.Components {
			h := historyOf(c.Changes, p.Now, p.Step)
			all = all.or(h)
			h.steps(func(step int) {
				if known = true; step < pastSteps {
					out[step].Least += c.Size
				}
			})
		}
		all.steps(func(step int) {
			if step < pastSteps {
				out[step].Layers++
				out[step].Bytes += l.Size
			}
		})
	}
	if !known {
		return nil
	}
	return out
}
