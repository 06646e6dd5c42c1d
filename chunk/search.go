package chunk

// searching improves groups by moving and swapping members as long as the expected cost falls.
type searching struct {
	m      *model
	loads  []load
	groups []*searchedGroup
}

type searchedGroup struct {
	load
	members []int
	counts  [historySteps]uint16
	cost    cost
}

// improve moves and swaps members between groups. None is left empty.
func improve(m *model, loads []load, groups [][]int, passes int) [][]int {
	s := &searching{m: m, loads: loads}
	for _, members := range groups {
		g := &searchedGroup{load: load{quiet: certain}}
		for _, i := range members {
			g.add(i, loads[i])
		}
		g.settle(m, loads)
		s.groups = append(s.groups, g)
	}
	for range passes {
		moved := s.moves()
		swapped := s.swaps()
		if !moved && !swapped {
			break
		}
	}
	out := make([][]int, len(s.groups))
	for k, g := range s.groups {
		out[k] = g.members
	}
	return out
}

func (g *searchedGroup) add(i int, l load) {
	g.members = append(g.members, i)
	l.past.steps(func(step int) { g.counts[step]++ })
}

func (g *searchedGroup) remove(i int, l load) {
	for at, m := range g.members {
		if m == i {
			g.members = append(g.members[:at], g.members[at+1:]...)
			break
		}
	}
	l.past.steps(func(step int) { g.counts[step]-- })
}

// settle computes a group's load from its members: exactly, whatever came before.
func (g *searchedGroup) settle(m *model, loads []load) {
	g.load = load{quiet: certain}
	for _, i := range g.members {
		g.load = g.load.with(loads[i])
	}
	g.cost = m.cost(g.load)
}

// without is a group's load without a member.
func (g *searchedGroup) without(l load) load {
	past := g.past
	l.past.steps(func(step int) {
		if g.counts[step] == 1 {
			past[step/64] &^= 1 << (step % 64)
		}
	})
	return load{past: past, quiet: g.quiet.over(l.quiet), size: g.size - l.size}
}

func (s *searching) moves() (moved bool) {
	for _, from := range s.groups {
		for _, i := range append([]int(nil), from.members...) {
			if len(from.members) > 1 && s.move(from, i) {
				moved = true
			}
		}
	}
	return moved
}

// move puts a member where it costs least.
func (s *searching) move(from *searchedGroup, i int) bool {
	l := s.loads[i]
	gain := from.cost - s.m.cost(from.without(l))
	var to *searchedGroup
	for _, g := range s.groups {
		if g == from {
			continue
		}
		if e := s.m.cost(g.with(l)) - g.cost; e < gain {
			gain, to = e, g
		}
	}
	if to == nil {
		return false
	}
	before := from.cost + to.cost
	from.remove(i, l)
	to.add(i, l)
	from.settle(s.m, s.loads)
	to.settle(s.m, s.loads)
	return from.cost+to.cost < before
}

func (s *searching) swaps() (swapped bool) {
	for a, x := range s.groups {
		for _, y := range s.groups[a+1:] {
			for s.swap(x, y) {
				swapped = true
			}
		}
	}
	return swapped
}

// swap exchanges the first two members of groups that are better off with each other's.
func (s *searching) swap(x, y *searchedGroup) bool {
	if len(x.members) == 1 && len(y.members) == 1 {
		return false
	}
	for _, i := range x.members {
		li := s.loads[i]
		xi := x.without(li)
		for _, j := range y.members {
			lj := s.loads[j]
			if s.m.cost(xi.with(lj))+s.m.cost(y.without(lj).with(li)) >= x.cost+y.cost {
				continue
			}
			before := x.cost + y.cost
			x.remove(i, li)
			y.remove(j, lj)
			x.add(j, lj)
			y.add(i, li)
			x.settle(s.m, s.loads)
			y.settle(s.m, s.loads)
			return x.cost+y.cost < before
		}
	}
	return false
}
