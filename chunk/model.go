package chunk

import "math/bits"

// requestCost, in bytes, is what fetching a layer costs besides its content: a round trip at 10 Mbit/s and 50 ms.
const requestCost = 64 << 10

// load is what a layer, or a component alone, means to the cost.
type load struct {
	past  history
	quiet probability // of the next step bringing none of the changes that the past doesn't tell of
	size  int64
}

func (l load) with(o load) load {
	return load{past: l.past.or(o.past), quiet: l.quiet.times(o.quiet), size: l.size + o.size}
}

// model weighs histories: a probability is the share that past steps with a change have in all past steps, the newer ones
// counting more.
type model struct {
	weights [historySteps]probability // all together certain, or a little less
	bytes   [historySteps / 8][256]probability
}

func newModel(halfLife int) *model {
	m := new(model)
	raw := decay(halfLife)
	var sum uint64
	for _, w := range raw {
		sum += w
	}
	for i, w := range raw {
		hi, lo := bits.Mul64(w, uint64(certain))
		q, _ := bits.Div64(hi, lo, sum)
		m.weights[i] = probability(q)
	}
	for i := range m.bytes {
		for b := 1; b < 256; b++ {
			low := bits.TrailingZeros(uint(b))
			m.bytes[i][b] = m.bytes[i][b&(b-1)] + m.weights[8*i+low]
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
	return m.joint(l.past).not().times(l.quiet).not()
}

func (m *model) cost(l load) cost { return expected(l.size+requestCost, m.probability(l)) }

// decay is a weight for each step, with 48 bits of fraction, which halves after so many.
func decay(halfLife int) (w [historySteps]uint64) {
	const one = 1 << 48
	// The halfLife-th root of one half, by bisection.
	low, high := uint64(0), uint64(one)
	for high-low > 1 {
		mid := (low + high) / 2
		if power(mid, halfLife) < one/2 {
			low = mid
		} else {
			high = mid
		}
	}
	w[0] = one
	for i := 1; i < historySteps; i++ {
		w[i] = mul48(w[i-1], high)
	}
	return w
}

func mul48(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi<<16 | lo>>48
}

func power(base uint64, n int) uint64 {
	p := uint64(1 << 48)
	for range n {
		p = mul48(p, base)
	}
	return p
}
