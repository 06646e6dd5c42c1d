package chunk

import "slices"

// searchPasses is how often all members are looked at: after the second hardly any still moves.
const searchPasses = 3

// swappedMax bounds the members of which all pairs are looked at: that takes time that grows with their square, and with
// many members there is hardly a pair that a few moves don't serve as well.
const swappedMax = 1024

// searching improves groups by moving and swapping members as long as the expected cost falls.
type searching struct {
	m      *model
	loads  []load
	groups []*searchedGroup
}

type searchedGroup struct {
	load
	members []int
	counts  [historySteps]uint32 // of members with a change in a step
	cost    cost
}

// improve moves and swaps members between groups. None is left empty.
func improve(m *model, loads []load, groups [][]int) [][]int {
	s := &searching{m: m, loads: loads}
	for _, members := range groups {
		g := new(searchedGroup)
		for _, i := range members {
			g.add(i, loads[i])
		}
		s.settle(g)
		s.groups = append(s.groups, g)
	}
	for range searchPasses {
		moved := s.moves()
		swapped := len(loads) <= swappedMax && s.swaps()
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
	g.members = slices.DeleteFunc(g.members, func(m int) bool { return m == i })
	l.past.steps(func(step int) { g.counts[step]-- })
}

// settle computes a group's load from its members, without the rounding of what went before.
func (s *searching) settle(g *searchedGroup) {
	g.load = nothing()
	for _, i := range g.members {
		g.load = g.load.with(s.loads[i])
	}
	g.cost = s.m.cost(g.load)
}

// without is a group's load without that of a member.
func (g *searchedGroup) without(l load) load {
	past := g.past
	l.past.steps(func(step int) {
		if g.counts[step] == 1 {
			past.clear(step)
		}
	})
	return g.load.without(l, past)
}

func (s *searching) moves() (moved bool) {
	for _, from := range s.groups {
		for _, i := range slices.Clone(from.members) {
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
	least := from.cost - s.m.cost(from.without(l)) // what it costs where it is
	var to *searchedGroup
	for _, g := range s.groups {
		if g == from {
			continue
		}
		if extra := s.m.cost(g.with(l)) - g.cost; extra < least {
			least, to = extra, g
		}
	}
	if to == nil {
		return false
	}
	before := from.cost + to.cost
	from.remove(i, l)
	to.add(i, l)
	s.settle(from)
	s.settle(to)
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

// swap exchanges the first two members of two groups that are better off so.
func (s *searching) swap(x, y *searchedGroup) bool {
	if len(x.members) == 1 && len(y.members) == 1 {
		return false
	}
	for _, i := range x.members {
		li := s.loads[i]
		rest := x.without(li)
		for _, j := range y.members {
			lj := s.loads[j]
			if s.m.cost(rest.with(lj))+s.m.cost(y.without(lj).with(li)) >= x.cost+y.cost {
				continue
			}
			before := x.cost + y.cost
			x.remove(i, li)
			y.remove(j, lj)
			x.add(j, lj)
			y.add(i, li)
			s.settle(x)
			s.settle(y)
			return x.cost+y.cost < before
		}
	}
	return false
}
