package chunk

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// PlanOptions are NewPlan's.
type PlanOptions struct {
	MaxLayers int // 0: DefaultLayers
	// Now is the clock of the statistics; zero: the newest change of any component.
	Now time.Time
	// Previous is the plan of the build before; nil: there is none.
	Previous *Plan
	// Model is tuned
	Model Tuning
}

// Tuning is for experiments.
type Tuning struct {
	HalfLife int
	Quiet    int // per mille of a step in which a component changes by itself
	Passes   int
	Prior    int
	Open     int
	Step     time.Duration
}

// Plan says which components share a layer.
type Plan struct {
	Layers []Layer
	Now    time.Time
}

// Layer is a layer of a plan.
type Layer struct {
	Components []Component // by name
	// Kept: it is the same as in the plan before, and so is all that is in it.
	Kept bool
	// Cost is what it is expected to cost an update, in bytes.
	Cost int64
}

// NewPlan puts components into layers. It is an error if exclusive components need more layers than there may be.
func NewPlan(components []Component, o PlanOptions) (*Plan, error) {
	p, err := newPlanner(components, o)
	if err != nil {
		return nil, err
	}
	p.keepClean()
	p.packRest()
	return p.plan(), nil
}

type planner struct {
	o          PlanOptions
	model      *model
	components []Component // by name
	loads      []load
	free       []int // that have no layer yet
	layers     [][]int
	kept       []bool
}

func newPlanner(components []Component, o PlanOptions) (*planner, error) {
	o.MaxLayers = cmp.Or(o.MaxLayers, DefaultLayers)
	if o.MaxLayers < MinLayers || o.MaxLayers > MaxLayers {
		return nil, fmt.Errorf("plan for %d layers: there may be %d to %d", o.MaxLayers, MinLayers, MaxLayers)
	}
	o.Model.HalfLife = cmp.Or(o.Model.HalfLife, 40)
	o.Model.Quiet = cmp.Or(o.Model.Quiet, 2)
	o.Model.Passes = cmp.Or(o.Model.Passes, 3)
	o.Model.Step = cmp.Or(o.Model.Step, 7*24*time.Hour)
	p := &planner{o: o, components: slices.Clone(components), model: newModel(o.Model.HalfLife)}
	slices.SortFunc(p.components, func(a, b Component) int { return cmp.Compare(a.Name, b.Name) })
	for i, c := range p.components {
		if i > 0 && p.components[i-1].Name == c.Name {
			return nil, fmt.Errorf("two components have the name %q", c.Name)
		}
		for _, t := range c.Changes {
			if o.Now.IsZero() || p.o.Now.Before(t) && o.Now.IsZero() {
				p.o.Now = t
			}
		}
		p.free = append(p.free, i)
	}
	if len(p.components) == 0 {
		return nil, errors.New("there are no components")
	}
	for _, c := range p.components {
		past := historyOf(c.Changes, p.o.Now, o.Model.Step)
		r := p.model.joint(past)
		p.loads = append(p.loads, load{
			past: past, quiet: certain - certain/1000*probability(o.Model.Quiet) - r*probability(o.Model.Prior)/1000, size: c.Size,
		})
	}
	return p, nil
}

// keepClean takes over the layers of the previous plan of which nothing changed.
func (p *planner) keepClean() {
	if p.o.Previous == nil {
		return
	}
	at := map[string]int{}
	for i, c := range p.components {
		at[c.Name] = i
	}
	taken := map[int]bool{}
	for _, l := range p.o.Previous.Layers {
		var members []int
		for _, c := range l.Components {
			if i, ok := at[c.Name]; ok && p.components[i].Digest == c.Digest {
				members = append(members, i)
			}
		}
		if len(members) == len(l.Components) {
			p.layers = append(p.layers, members)
			p.kept = append(p.kept, true)
			for _, i := range members {
				taken[i] = true
			}
		}
	}
	p.free = slices.DeleteFunc(p.free, func(i int) bool { return taken[i] })
}

func (p *planner) pack(free []int, n int) ([][]int, cost) {
	loads := make([]load, len(free))
	for k, i := range free {
		loads[k] = p.loads[i]
	}
	groups := improve(p.model, loads, merge(p.model, loads, n), p.o.Model.Passes)
	var c cost
	for _, g := range groups {
		sum := load{quiet: certain}
		for k := range g {
			g[k] = free[g[k]]
			sum = sum.with(p.loads[g[k]])
		}
		c += p.model.cost(sum)
	}
	return groups, c
}

func (p *planner) packRest() {
	if len(p.free) == 0 {
		return
	}
	n := max(1, p.o.MaxLayers-len(p.layers))
	groups, _ := p.pack(p.free, n)
	for _, g := range groups {
		p.layers = append(p.layers, g)
		p.kept = append(p.kept, false)
	}
}

func (p *planner) plan() *Plan {
	out := &Plan{Now: p.o.Now}
	for k, members := range p.layers {
		slices.Sort(members)
		l := Layer{Kept: p.kept[k]}
		sum := load{quiet: certain}
		for _, i := range members {
			l.Components = append(l.Components, p.components[i])
			sum = sum.with(p.loads[i])
		}
		l.Cost = int64(p.model.cost(sum) >> costBits)
		out.Layers = append(out.Layers, l)
	}
	return out
}
