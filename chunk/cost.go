package chunk

import "math/bits"

// A probability is a fixed-point number of which one is certain: floating point would give other plans on machines that
// fuse multiplication and addition.
type probability uint64

const (
	oneBits             = 32
	certain probability = 1 << oneBits
)

func (p probability) times(q probability) probability { return p * q >> oneBits }
func (p probability) not() probability                { return certain - p }

// over undoes times, but for rounding.
func (p probability) over(q probability) probability {
	if q == 0 {
		return 0
	}
	quotient, _ := bits.Div64(uint64(p)>>(64-oneBits), uint64(p)<<oneBits, max(uint64(q), uint64(p)>>(64-oneBits)+1))
	return min(probability(quotient), certain)
}

// costBits are the fraction of a cost: 1<<costBits is a byte that is certainly fetched. Costs of whole images, 2^46 bytes,
// are far from overflow, and differences of a byte that is fetched once in a thousand updates still count.
const costBits = 12

// cost is an expected number of bytes, see costBits.
type cost int64

func expected(bytes int64, p probability) cost {
	hi, lo := bits.Mul64(uint64(bytes), uint64(p))
	return cost(hi<<(64-oneBits+costBits) | lo>>(oneBits-costBits))
}
