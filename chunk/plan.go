package chunk

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Step is how long a step of histories is, if PlanOptions say nothing else.
const Step = 7 * 24 * time.Hour

// PlanOptions are NewPlan's. The zero value is usable.
type PlanOptions struct {
	MaxLayers int // 0: DefaultLayers
	// Now is the clock of the statistics; zero: the newest change of all components. It must not be a time that is set to make
	// builds equal: changes before it count by their age.
	Now time.Time
	// Step is the usual time from one release to the next; 0: Step.
	Step time.Duration
	// Previous is the plan of the build before; nil: there is none.
	Previous *Previous
}

// Plan says which components share a layer.
type Plan struct {
	Layers []Layer // what is least likely to change first
	Now    time.Time
	Step   time.Duration
	seen   map[string][]time.Time // changes that builds have seen, by component
}

// Layer is a layer of a plan.
type Layer struct {
	Components []Component // by name
	// Kept: the plan before has the same layer, and nothing in it has changed.
	Kept bool
	Size int64 // bytes
	// Chance is the probability, in millionths, that the next step changes it; Cost is what it is expected to cost an update then,
	// in bytes, what a request costs included.
	Chance int64
	Cost   int64
}

// Previous is what is known of the plan of the build before.
type Previous struct {
	// Tool is the program that made it.
	Tool   string
	Now    time.Time // when; zero: not known
	Layers []RecordedLayer
}

// RecordedLayer is a layer of a plan of before.
type RecordedLayer struct {
	Components []Recorded
	Chance     int64 // as Layer.Chance; 0: not known
}

// Recorded is a component of a plan of before.
type Recorded struct {
	Name string
	// Digest is the beginning of its Component.Digest then; empty: not known, so that it counts as changed.
	Digest string
	Size   int64 // bytes; 0: not known
	// Changes are those that were seen from build to build.
	Changes []time.Time
}

// NewPlan puts components into layers. It is an error if there are none, if two have one name, or if those that are
// exclusive need more layers than there may be.
func NewPlan(components []Component, o PlanOptions) (*Plan, error) {
	p := &planner{o: o, components: slices.Clone(components), model: newModel()}
	if err := p.check(); err != nil {
		return nil, err
	}
	p.weigh()
	p.keepClean()
	p.openForRoom()
	p.pack()
	return p.plan(), nil
}

type planner struct {
	o          PlanOptions
	model      *model
	components []Component // by name
	loads      []load
	layers     []planned
	placed     []bool // components that have a layer
	seen       map[string][]time.Time
}

type planned struct {
	members []int
	kept    bool
}

func (p *planner) check() error {
	p.o.MaxLayers = cmp.Or(p.o.MaxLayers, DefaultLayers)
	p.o.Step = cmp.Or(p.o.Step, Step)
	if n := p.o.MaxLayers; n < MinLayers || n > MaxLayers {
		return fmt.Errorf("%d layers: there may be %d to %d", n, MinLayers, MaxLayers)
	}
	if len(p.components) == 0 {
		return errors.New("there is nothing to put into layers")
	}
	slices.SortFunc(p.components, func(a, b Component) int { return cmp.Compare(a.Name, b.Name) })
	exclusive := 0
	for i, c := range p.components {
		if i > 0 && p.components[i-1].Name == c.Name {
			return fmt.Errorf("two components have the name %q", c.Name)
		}
		if c.Exclusive {
			exclusive++
		}
	}
	if need := exclusive + min(len(p.components)-exclusive, 1); need > p.o.MaxLayers {
		return fmt.Errorf("%d components must have a layer of their own, so %d layers are needed, and %d are allowed: allow more, or have fewer exclusive",
			exclusive, need, p.o.MaxLayers)
	}
	return nil
}

// weigh finds out what each component means to the cost.
func (p *planner) weigh() {
	if p.o.Now.IsZero() {
		p.o.Now = newest(p.components)
	}
	p.addSeen()
	for _, c := range p.components {
		p.loads = append(p.loads, p.model.load(c, p.o.Now, p.o.Step))
	}
	p.placed = make([]bool, len(p.components))
}

func newest(components []Component) (t time.Time) {
	for _, c := range components {
		for _, change := range c.Changes {
			if change.After(t) {
				t = change
			}
		}
	}
	return t
}

// addSeen adds the changes that earlier builds have seen. A component that has changed since the last one has changed now.
func (p *planner) addSeen() {
	p.seen = map[string][]time.Time{}
	if p.o.Previous == nil {
		return
	}
	for _, l := range p.o.Previous.Layers {
		for _, r := range l.Components {
			i, ok := p.find(r.Name)
			if !ok {
				continue
			}
			c := &p.components[i]
			seen := slices.Clone(r.Changes)
			if r.Digest != "" && r.Digest != shortDigest(c.Digest) {
				seen = append(seen, p.o.Now)
			}
			if len(seen) > 0 {
				p.seen[r.Name] = seen
				c.Changes = slices.Concat(c.Changes, seen)
			}
		}
	}
}

func (p *planner) find(name string) (int, bool) {
	return slices.BinarySearchFunc(p.components, name, func(c Component, name string) int { return cmp.Compare(c.Name, name) })
}

// keepClean takes over the layers of the previous plan of which nothing has changed.
func (p *planner) keepClean() {
	if p.o.Previous == nil {
		return
	}
	for _, l := range p.o.Previous.Layers {
		if members, ok := p.clean(l.Components); ok {
			p.add(members, true)
		}
	}
}

// clean tells whether a layer can stay as it is.
func (p *planner) clean(l []Recorded) (members []int, ok bool) {
	for _, r := range l {
		i, ok := p.find(r.Name)
		if !ok || p.placed[i] || slices.Contains(members, i) || r.Digest == "" || shortDigest(p.components[i].Digest) != r.Digest {
			return nil, false
		}
		if p.components[i].Exclusive && len(l) > 1 {
			return nil, false
		}
		members = append(members, i)
	}
	return members, len(members) > 0
}

func (p *planner) add(members []int, kept bool) {
	for _, i := range members {
		p.placed[i] = true
	}
	p.layers = append(p.layers, planned{members: members, kept: kept})
}

// free are components without a layer, those apart that share none.
func (p *planner) free() (shared, alone []int) {
	for i, c := range p.components {
		switch {
		case p.placed[i]:
		case c.Exclusive:
			alone = append(alone, i)
		default:
			shared = append(shared, i)
		}
	}
	return shared, alone
}

// openForRoom takes the smallest of the layers that could have been kept apart if there are too many, or no room for what
// else there is.
func (p *planner) openForRoom() {
	shared, alone := p.free()
	room := p.o.MaxLayers - len(alone)
	if len(p.layers) < room || len(p.layers) == room && len(shared) == 0 {
		return
	}
	slices.SortStableFunc(p.layers, func(a, b planned) int { return cmp.Compare(p.sum(a.members).size, p.sum(b.members).size) })
	var kept []planned
	for n, l := range p.layers {
		if p.components[l.members[0]].Exclusive || len(p.layers)-n+len(kept) < room {
			kept = append(kept, l)
			continue
		}
		for _, i := range l.members {
			p.placed[i] = false
		}
	}
	p.layers = kept
}

func (p *planner) sum(members []int) load {
	l := nothing()
	for _, i := range members {
		l = l.with(p.loads[i])
	}
	return l
}

// pack makes layers of what has none.
func (p *planner) pack() {
	shared, alone := p.free()
	for _, i := range alone {
		p.add([]int{i}, false)
	}
	if len(shared) == 0 {
		return
	}
	n := p.o.MaxLayers - len(p.layers)
	best := p.packed(shared, n, singles(len(shared)))
	if start := p.together(shared); len(start) < len(shared) {
		if other := p.packed(shared, n, start); p.costOf(other) < p.costOf(best) {
			best = other
		}
	}
	for _, members := range best {
		p.add(members, false)
	}
}

// packed makes at most n groups of components, which start in groups of their indices in shared.
func (p *planner) packed(shared []int, n int, start [][]int) [][]int {
	loads := make([]load, len(shared))
	for k, i := range shared {
		loads[k] = p.loads[i]
	}
	groups := improve(p.model, loads, merge(p.model, loads, coarse(p.model, loads, start), n))
	for _, g := range groups {
		for k := range g {
			g[k] = shared[g[k]]
		}
		slices.Sort(g)
	}
	return groups
}

func (p *planner) costOf(groups [][]int) (c cost) {
	for _, g := range groups {
		c += p.model.cost(p.sum(g))
	}
	return c
}

func singles(n int) [][]int {
	s := make([][]int, n)
	for i := range s {
		s[i] = []int{i}
	}
	return s
}

// together groups components, by their indices in shared, as the previous plan does.
func (p *planner) together(shared []int) (groups [][]int) {
	if p.o.Previous == nil {
		return singles(len(shared))
	}
	layer := map[string]int{}
	for k, l := range p.o.Previous.Layers {
		for _, r := range l.Components {
			layer[r.Name] = k
		}
	}
	byLayer := map[int][]int{}
	for k, i := range shared {
		if l, ok := layer[p.components[i].Name]; ok {
			byLayer[l] = append(byLayer[l], k)
		} else {
			groups = append(groups, []int{k})
		}
	}
	for _, l := range slices.Sorted(maps.Keys(byLayer)) {
		groups = append(groups, byLayer[l])
	}
	return groups
}

func (p *planner) plan() *Plan {
	out := &Plan{Now: p.o.Now, Step: p.o.Step, seen: p.seen}
	for _, l := range p.layers {
		sum := p.sum(l.members)
		layer := Layer{
			Kept: l.kept, Size: sum.size, Cost: p.model.cost(sum).bytes(),
			Chance: int64(p.model.probability(sum) * 1_000_000 >> oneBits),
		}
		for _, i := range slices.Sorted(slices.Values(l.members)) {
			layer.Components = append(layer.Components, p.components[i])
		}
		out.Layers = append(out.Layers, layer)
	}
	slices.SortFunc(out.Layers, func(a, b Layer) int {
		return cmp.Or(cmp.Compare(a.Chance, b.Chance), cmp.Compare(a.Components[0].Name, b.Components[0].Name))
	})
	return out
}
