package fsverity

import (
	"bytes"
	"testing"
)

// TestRuns compares runs of every length, with and without a head, at odd
// addresses, with the same hashes one by one; it also sees to it that nothing is
// written behind the last hash.
func TestRuns(t *testing.T) {
	data := randomBytes(18*BlockSize + 64)
	for _, a := range algorithms {
		for blocks := range 18 {
			for _, skew := range []int{0, 1, 7, 16, 33} {
				body := data[skew : skew+blocks*BlockSize]
				head := (*block)(data[len(data)-BlockSize:])
				checkRun(t, a, nil, body)
				checkRun(t, a, head, body)
			}
		}
	}
}

func checkRun(t *testing.T, a Algorithm, head *block, body []byte) {
	t.Helper()
	var want []byte
	if head != nil {
		want = chop(a, head[:])
	}
	want = append(want, chop(a, body)...)
	for name, run := range map[string]func([]byte, *block, []byte){"hashBlocks": a.hashBlocks, "hashEach": a.hashEach} {
		got := make([]byte, len(want)+a.Size())
		run(got[:len(want)], head, body)
		if !bytes.Equal(got[:len(want)], want) {
			t.Errorf("%s: %v over %d blocks, head %t: wrong hashes", name, a, len(body)/BlockSize, head != nil)
		}
		if !bytes.Equal(got[len(want):], make([]byte, a.Size())) {
			t.Errorf("%s: %v over %d blocks writes too much", name, a, len(body)/BlockSize)
		}
	}
}

// FuzzRuns looks for block contents on which the two ways differ.
func FuzzRuns(f *testing.F) {
	f.Add([]byte("a"), uint8(4))
	f.Add(bytes.Repeat([]byte{0xff}, 100), uint8(3))
	f.Add([]byte{}, uint8(0))
	f.Fuzz(func(t *testing.T, seed []byte, blocks uint8) {
		body := make([]byte, int(blocks%18)*BlockSize)
		for i := range body {
			if len(seed) > 0 {
				body[i] = seed[i%len(seed)] + byte(i/BlockSize)
			}
		}
		checkRun(t, SHA256, nil, body)
	})
}
