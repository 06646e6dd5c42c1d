package chunk

import (
	"math/bits"
	"time"
)

const (
	// requestCost is what fetching a layer costs besides its content, in bytes: a round trip of 50 ms at 10 Mbit/s.
	requestCost = 64 << 10
	// halfLife is after how many grains a change has half the weight. It is the same number for grains of a
	// day. With 40 to 80 the recorded histories (tests/bench/chunk) come to the same within a percent; less is worse.
	halfLife = 60
	// rareInterval, in grains, is how often a component changes for a reason that history has not shown yet. Without such
	// changes the quietest component would look free, and be put beside whatever. Of components without a change in the last
	// 128 weeks, one in 46 changes in a week, in the recorded histories. From 35 to 100 it makes little difference.
	rareInterval = 50
	// shortestInterval is that of what changes in every step, or nearly: a division by zero could not be undone.
	shortestInterval = 64
)

// load is what a component, or several together, mean to the cost.
type load struct {
	past  history
	apart probability // that the next step brings no change, as if components changed independently of each other
	quiet probability // that the next step brings none of the changes that the past doesn't tell of
	size  int64
}

// nothing is the load of no component.
func nothing() load { return load{apart: certain, quiet: certain} }

func (l load) with(o load) load {
	return load{past: l.past.or(o.past), apart: l.apart.times(o.apart), quiet: l.quiet.times(o.quiet), size: l.size + o.size}
}

// without undoes with, but for the past.
func (l load) without(o load, past history) load {
	return load{past: past, apart: l.apart.over(o.apart), quiet: l.quiet.over(o.quiet), size: l.size - o.size}
}

func (m *model) load(c Component, now time.Time, step time.Duration) load {
	p := ratio(uint64(step), rareInterval*uint64(grain(step)))
	if c.Interval > 0 {
		p = max(p, ratio(uint64(step), uint64(c.Interval)))
	}
	past := windowsOf(c.Changes, now, step)
	return load{past: past, apart: undoable(m.joint(past).not()), quiet: undoable(p.not()), size: min(max(c.Size, 0), sizeMax)}
}

// undoable is a probability that others can be divided by.
func undoable(p probability) probability { return min(max(p, certain/shortestInterval), certain-1) }

// model weighs histories. The probability of a change is the weight that past steps with one have in all past steps, the
// newer ones counting more: so what has always changed together costs nothing to have together. But with a choice of many
// components there are always some that have changed together by chance, and a search finds them. So the probability that
// nothing changes is the geometric mean of that and of what it would be if all changed independently. What changes in every
// step keeps a probability of 1 either way, what is alone keeps its own.
type model struct {
	// bytes has, for each byte of a history, the weight of the steps that it has; all together they are certain, or a little less.
	bytes [historySteps / 8][256]probability
}

func newModel() *model {
	m := new(model)
	weights := decay()
	for i := range m.bytes {
		for b := 1; b < 256; b++ {
			m.bytes[i][b] = m.bytes[i][b&(b-1)] + weights[8*i+bits.TrailingZeros(uint(b))]
		}
	}
	return m
}

// joint is the weight of the steps in which something changed.
func (m *model) joint(h history) (p probability) {
	for i, word := range h {
		for k := 0; word != 0; k++ {
			p += m.bytes[8*i+k][byte(word)]
			word >>= 8
		}
	}
	return p
}

func (m *model) probability(l load) probability {
	return m.joint(l.past).not().mean(l.apart).times(l.quiet).not()
}

func (m *model) cost(l load) cost { return expected(l.size+requestCost, m.probability(l)) }

// decay has weights for all steps, which come to certain and halve after halfLife.
func decay() (w [historySteps]probability) {
	var raw [historySteps]uint64
	var sum uint64
	root := halfLifeRoot()
	raw[0] = one48
	for i := range raw {
		if i > 0 {
			raw[i] = mul48(raw[i-1], root)
		}
		sum += raw[i]
	}
	for i := range w {
		w[i] = ratio(raw[i], sum)
	}
	return w
}

// one48 is 1 with 48 bits of fraction.
const one48 = 1 << 48

func mul48(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi<<16 | lo>>48
}

// halfLifeRoot is the halfLife-th root of one half, by bisection.
func halfLifeRoot() uint64 {
	low, high := uint64(0), uint64(one48)
	for high-low > 1 {
		mid, power := (low+high)/2, uint64(one48)
		for range halfLife {
			power = mul48(power, mid)
		}
		if power < one48/2 {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}
