package store_test

import (
	"testing"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
)

// TestDoubt has an object of the right length and other content, as a power cut leaves
// it. It is believed unless a writer has left its mark.
func TestDoubt(t *testing.T) {
	good, torn := []byte("the content"), make([]byte, len("the content"))
	for _, settled := range []bool{true, false} {
		first := storetest.New(t, store.InitOptions{Verity: store.VerityOff})
		d := fsverity.Sum(first.Algorithm(), good)
		putBoth(t, first, good)
		if settled {
			must(t, first.Settled())
		}
		must(t, first.Close())
		s, err := store.Open(first.Dir(), store.OpenOptions{})
		must(t, err)
		defer s.Close()
		if a, b := putBoth(t, s, good); a || b {
			t.Errorf("settled %t: an object that is whole was replaced", settled)
		}
		spoil(t, s, d, torn)
		if a, b := putBoth(t, s, good); a == settled || b {
			t.Errorf("settled %t: replaced %t, then %t", settled, a, b)
		}
		want := good
		if settled {
			want = torn
		}
		wantFile(t, objectFile(s, d), want)
		if settled {
			must(t, s.MarkBad(d, "object-damaged")) // so that the store is whole in the end
			putBoth(t, s, good)
		}
	}
}
