package chunk

import (
	"cmp"
	"slices"
)

// merging makes groups by merging, again and again, the two that it costs least to have together.
type merging struct {
	m      *model
	groups []mergedGroup
	left   int // groups that have not been merged into others
}

type mergedGroup struct {
	load
	members []int
	calm    probability // that the past has no change in a step
	chance  probability
	cost    cost
	gone    bool
	partner int  // the one later in the list that it costs least to merge with; -1: none
	extra   cost // of that
}

// merge makes at most n groups of groups of loads.
func merge(m *model, loads []load, start [][]int, n int) [][]int {
	g := &merging{m: m, left: len(start)}
	for _, members := range start {
		x := mergedGroup{load: nothing(), members: slices.Clone(members)}
		for _, i := range members {
			x.load = x.with(loads[i])
		}
		g.settle(&x)
		g.groups = append(g.groups, x)
	}
	if g.left > n {
		for i := range g.groups {
			g.findPartner(i)
		}
	}
	for g.left > n {
		g.mergeBest()
	}
	var out [][]int
	for _, x := range g.groups {
		if !x.gone {
			out = append(out, x.members)
		}
	}
	return out
}

func (g *merging) settle(x *mergedGroup) {
	x.calm = g.m.joint(x.past).not()
	x.chance = x.calm.mean(x.apart).times(x.quiet).not()
	x.cost = expected(x.size+requestCost, x.chance)
}

// consider makes b the partner of a, which is earlier in the list, if merging with that costs less than with the partner so far.
func (g *merging) consider(a, b int) {
	x, y := &g.groups[a], &g.groups[b]
	if x.partner >= 0 && x.atLeast(y) >= x.extra {
		return
	}
	if e := g.m.cost(x.with(y.load)) - x.cost - y.cost; x.partner < 0 || e < x.extra {
		x.partner, x.extra = b, e
	}
}

// atLeast is less than what merging costs, or that: as if all changes of one were changes of the other too. Most groups are
// no partners by this alone, which takes a fraction of the time.
func (x *mergedGroup) atLeast(y *mergedGroup) cost {
	calm := min(x.calm, y.calm).mean(x.apart.times(y.apart))
	return expected(x.size+y.size+requestCost, calm.times(x.quiet.times(y.quiet)).not()) - x.cost - y.cost
}

func (g *merging) findPartner(a int) {
	x := &g.groups[a]
	x.partner = -1
	for b := a + 1; b < len(g.groups); b++ {
		if !g.groups[b].gone {
			g.consider(a, b)
		}
	}
}

func (g *merging) mergeBest() {
	best := -1
	for i := range g.groups {
		if x := &g.groups[i]; !x.gone && x.partner >= 0 && (best < 0 || x.extra < g.groups[best].extra) {
			best = i
		}
	}
	x := &g.groups[best]
	from := x.partner
	y := &g.groups[from]
	x.load = x.with(y.load)
	x.members = append(x.members, y.members...)
	g.settle(x)
	y.gone = true
	g.left--
	g.findPartnersAgain(best, from)
}

// findPartnersAgain looks anew where a group has grown and another one is gone.
func (g *merging) findPartnersAgain(grown, gone int) {
	for i := range g.groups {
		switch x := &g.groups[i]; {
		case x.gone:
		case i == grown || x.partner == grown || x.partner == gone:
			g.findPartner(i)
		case i < grown:
			g.consider(i, grown)
		}
	}
}

// mergedMax bounds the groups that merging begins with: what it takes grows with their square.
const mergedMax = 2048

// coarse puts what costs least together until there are no more than mergedMax groups: first what has the same history.
func coarse(m *model, loads []load, start [][]int) [][]int {
	if len(start) <= mergedMax {
		return start
	}
	costOf := func(g []int) (c cost) {
		for _, i := range g {
			c += m.cost(loads[i])
		}
		return c
	}
	order := slices.Clone(start)
	slices.SortStableFunc(order, func(a, b []int) int { return cmp.Compare(costOf(b), costOf(a)) })
	out := order[: mergedMax/2 : mergedMax/2]
	same := map[history]int{}
	var rest []int
	for _, g := range order[mergedMax/2:] {
		h := loads[g[0]].past
		k, ok := same[h]
		switch {
		case ok:
			out[k] = append(out[k], g...)
		case len(out) < mergedMax-1:
			same[h] = len(out)
			out = append(out, slices.Clone(g))
		default:
			rest = append(rest, g...)
		}
	}
	if len(rest) > 0 {
		out = append(out, rest)
	}
	return out
}
