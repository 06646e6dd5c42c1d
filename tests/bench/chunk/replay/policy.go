package replay

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/flatroot/flatroot/chunk"
)

// Policy is a way to cut images into layers.
type Policy struct {
	Name string
	New  func() Cut // begins with an image's first release
}

func stateless(name string, cut Cut) Policy { return Policy{name, func() Cut { return cut }} }

// Floor fetches the least that is possible without looking into components: each has a layer, however many these are.
func Floor() Policy { return stateless("floor", floor) }

// Rivals are what other tools do. Each follows one tool's packing, as read in its source, and only that: components, sizes and
// dates are the same for all.
func Rivals() []Policy {
	return []Policy{
		stateless("single layer", single),
		stateless("size-top-N", sizeTop),
		stateless("name-hash tiers", hashTiers),
		stateless("frozen bins", frozenBins),
		stateless("matrix", matrix),
	}
}

// Ours is package chunk's, each plan following the one before.
func Ours() Policy {
	return Policy{"flatroot", func() Cut { return new(planner).cut }}
}

type planner struct{ options chunk.PlanOptions }

func (p *planner) cut(v *View) [][]int {
	var components []chunk.Component
	ids := map[string]int{}
	for _, id := range v.IDs {
		c := v.Components[id]
		ids[c.Name] = id
		components = append(components, chunk.Component{
			Name: c.Name, Size: c.Size, Changes: v.Past(id), Digest: strconv.Itoa(v.Version[id]),
		})
	}
	p.options.MaxLayers, p.options.Now, p.options.Step = v.N, v.Now, time.Duration(v.Days)*day
	plan, err := chunk.NewPlan(components, p.options)
	if err != nil {
		panic(err) // a trace has nothing that can't be planned
	}
	p.options.Previous = plan.Record()
	var groups [][]int
	for _, l := range plan.Layers {
		var group []int
		for _, c := range l.Components {
			group = append(group, ids[c.Name])
		}
		groups = append(groups, group)
	}
	return groups
}

func floor(v *View) [][]int { return alone(v.IDs) }

func alone(ids []int) (groups [][]int) {
	for _, id := range ids {
		groups = append(groups, []int{id})
	}
	return groups
}

// single is what an image is that a builder has squashed.
func single(v *View) [][]int { return [][]int{v.IDs} }

// sizeTop follows apko's layering (pkg/build/layers.go): the largest have a layer each, the rest one together.
func sizeTop(v *View) [][]int {
	ids := v.bySize(v.IDs)
	n := min(len(ids), v.N-1)
	return append(alone(ids[:n]), ids[n:])
}

// bySize has the largest first.
func (v *View) bySize(ids []int) []int {
	return slices.SortedFunc(slices.Values(ids), func(a, b int) int {
		return cmp.Or(cmp.Compare(v.size(b), v.size(a)), cmp.Compare(a, b))
	})
}

// lastYear are a component's changes within a year.
func (v *View) lastYear(id int) []time.Time {
	past := v.Past(id)
	return past[countUntil(past, v.Now.Add(-365*day-1)):]
}

// carried are the layers of the release before with what is still there, and what is new.
func (v *View) carried() (groups [][]int, fresh []int) {
	seen := map[int]bool{}
	for _, g := range v.Prev {
		var still []int
		for _, id := range g {
			seen[id] = true
			if _, ok := slices.BinarySearch(v.IDs, id); ok {
				still = append(still, id)
			}
		}
		groups = append(groups, still)
	}
	for _, id := range v.IDs {
		if !seen[id] {
			fresh = append(fresh, id)
		}
	}
	return groups, fresh
}
