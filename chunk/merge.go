package chunk

// merging makes groups of loads by merging, again and again, the two that it costs least to have together.
type merging struct {
	m      *model
	groups []mergedGroup
	left   int // groups that have not been merged into others
}

type mergedGroup struct {
	load
	members []int
	cost    cost
	gone    bool
	partner int  // the one later in the list that it costs least to merge with; -1: none
	extra   cost // of that
}

// merge partitions loads into at most n groups of their indices.
func merge(m *model, loads []load, n int) [][]int {
	g := &merging{m: m, groups: make([]mergedGroup, len(loads)), left: len(loads)}
	for i, l := range loads {
		g.groups[i] = mergedGroup{load: l, members: []int{i}, cost: m.cost(l)}
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

func (g *merging) extra(a, b int) cost {
	x, y := &g.groups[a], &g.groups[b]
	return g.m.cost(x.with(y.load)) - x.cost - y.cost
}

func (g *merging) findPartner(a int) {
	x := &g.groups[a]
	x.partner = -1
	for b := a + 1; b < len(g.groups); b++ {
		if g.groups[b].gone {
			continue
		}
		if e := g.extra(a, b); x.partner < 0 || e < x.extra {
			x.partner, x.extra = b, e
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
	into := x.partner
	y := &g.groups[into]
	x.load = x.with(y.load)
	x.members = append(x.members, y.members...)
	x.cost = g.m.cost(x.load)
	y.gone = true
	g.left--
	for i := range g.groups {
		switch z := &g.groups[i]; {
		case z.gone:
		case i == best || z.partner == best || z.partner == into:
			g.findPartner(i)
		case i < best:
			if e := g.extra(i, best); e < z.extra {
				z.partner, z.extra = best, e
			}
		}
	}
}
