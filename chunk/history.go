package chunk

import (
	"math/bits"
	"time"
)

// historySteps is how far back changes count: with weights that halve every halfLife grains, what is older has no say.
const historySteps = 128

// history has a bit for each step: bit 0 is the newest.
type history [historySteps / 64]uint64

func (h *history) set(step int) { h[step/64] |= 1 << (step % 64) }

func (h *history) clear(step int) { h[step/64] &^= 1 << (step % 64) }

func (h history) or(o history) history {
	for i := range h {
		h[i] |= o[i]
	}
	return h
}

// steps calls visit for each step with a change.
func (h history) steps(visit func(step int)) {
	for i, word := range h {
		for ; word != 0; word &= word - 1 {
			visit(i*64 + bits.TrailingZeros64(word))
		}
	}
}

// historyOf counts steps back from now. What is said to come later is taken for a clock that is ahead, and counts as now.
func historyOf(changes []time.Time, now time.Time, step time.Duration) history {
	var h history
	for _, t := range changes {
		if age := max(now.Sub(t), 0) / step; age < historySteps {
			h.set(int(age))
		}
	}
	return h
}

// grain is the time that a bit of the model's histories stands for: a step, but no more than a week, since years of steps of
// a month are too few to tell chance from habit.
func grain(step time.Duration) time.Duration { return min(step, Step) }

// windowsOf has a bit for each grain: whether there was a change in the step that ended then. Where steps are longer than grains
// they overlap, so that it doesn't depend on the day on which they begin.
func windowsOf(changes []time.Time, now time.Time, step time.Duration) history {
	h := historyOf(changes, now, grain(step))
	out := h
	for i := 1; time.Duration(i)*grain(step) < step && i < historySteps; i++ {
		h.earlier()
		out = out.or(h)
	}
	return out
}

// earlier takes a step off each change's age.
func (h *history) earlier() {
	for i := range h {
		h[i] >>= 1
		if i+1 < len(h) {
			h[i] |= h[i+1] << 63
		}
	}
}
