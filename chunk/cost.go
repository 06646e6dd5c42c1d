package chunk

import (
	"math"
	"math/bits"
)

// probability is a fixed-point number. Floating point would give other plans on machines that fuse multiplication and
// addition.
type probability uint64

const (
	oneBits             = 32
	certain probability = 1 << oneBits
)

func (p probability) times(q probability) probability { return p * q >> oneBits }

func (p probability) not() probability { return certain - p }

// over undoes times, but for rounding. q is not zero.
func (p probability) over(q probability) probability { return min(p<<oneBits/q, certain) }

// mean is the geometric mean.
func (p probability) mean(q probability) probability {
	if p == certain && q == certain {
		return certain
	}
	return probability(sqrt(uint64(p * q)))
}

// sqrt is the root rounded down, exactly: floating point only says where to begin.
func sqrt(x uint64) uint64 {
	root := min(uint64(math.Sqrt(float64(x))), math.MaxUint32)
	for root*root > x {
		root--
	}
	for root < math.MaxUint32 && (root+1)*(root+1) <= x {
		root++
	}
	return root
}

// ratio is a/b as a probability; a is not greater than b.
func ratio(a, b uint64) probability {
	if a >= b {
		return certain
	}
	hi, lo := bits.Mul64(a, uint64(certain))
	q, _ := bits.Div64(hi, lo, b)
	return probability(q)
}

// cost is an expected number of bytes, with costBits of fraction: what is fetched once in a thousand updates still counts.
type cost int64

const costBits = 12

// sizeMax bounds a component's size: sums of costs of 64 Ki of that size don't overflow.
const sizeMax = 1 << 34

func expected(bytes int64, p probability) cost {
	hi, lo := bits.Mul64(uint64(bytes), uint64(p))
	return cost(hi<<(64-oneBits+costBits) | lo>>(oneBits-costBits))
}

func (c cost) bytes() int64 { return int64(c >> costBits) }
