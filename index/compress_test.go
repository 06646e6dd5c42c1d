package index

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestCompressAgain: an encoder that has compressed other layers writes the same as a new one, also after an error.
func TestCompressAgain(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	inputs := make([][]byte, 12)
	for i := range inputs {
		b := make([]byte, rng.IntN(6<<20))
		for at := 0; at < len(b); { // runs of few letters, so that there is something to find
			n := min(1+rng.IntN(1000), len(b)-at)
			for k := range n {
				b[at+k] = byte(rng.IntN(1 + i))
			}
			at += n
		}
		inputs[i] = b
	}
	compress := func(c *compressors, in []byte) []byte {
		var out bytes.Buffer
		z, err := c.open(zst, &out)
		must(t, err)
		for len(in) > 0 {
			n := min(len(in), 100_000)
			_, err := z.Write(in[:n])
			must(t, err)
			in = in[n:]
		}
		must(t, z.Close())
		return out.Bytes()
	}
	again := new(compressors)
	z, err := again.open(zst, failing{})
	must(t, err)
	_, _ = z.Write(inputs[11])
	if err := z.Close(); err == nil {
		t.Error("no error of a writer that fails")
	}
	var wg sync.WaitGroup
	for i := range 3 * len(inputs) {
		in := inputs[i%len(inputs)]
		wg.Go(func() {
			got, want := compress(again, in), compress(new(compressors), in)
			if !bytes.Equal(got, want) {
				t.Errorf("input %d: other bytes, %d of them, than the %d of a new encoder", i%len(inputs), len(got), len(want))
			}
			d, err := zstd.NewReader(nil)
			must(t, err)
			defer d.Close()
			if back, err := d.DecodeAll(got, nil); err != nil || !bytes.Equal(back, in) {
				t.Errorf("input %d: it is not what comes back: %v", i%len(inputs), err)
			}
		})
	}
	wg.Wait()
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errChanged }
