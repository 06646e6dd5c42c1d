package powercut

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/flatroot/flatroot/store"
)

const (
	privateFile     = "records/file" // below flatroot/
	privateVersions = 40
)

// privateVersion is a content that has its own hash in front.
func privateVersion(n int) []byte {
	rng := rand.New(rand.NewPCG(7, uint64(n)))
	random := rand.NewChaCha8([32]byte{byte(n)})
	b := make([]byte, sha256.Size+1+rng.IntN(200<<rng.IntN(11)))
	_, _ = random.Read(b[sha256.Size:])
	sum := sha256.Sum256(b[sha256.Size:])
	copy(b, sum[:])
	return b
}

// A store's own file has one of its versions after a power cut, or none before the first one was written, never a part.
func TestPrivateFile(t *testing.T) {
	forEach(t, func(t *testing.T, r *rig) {
		at := filepath.Join(r.at, "store")
		rec := r.record(t, nil, func(dir string, mark func()) {
			stop, err := neighbour(r.filesystem, dir)
			if err != nil {
				t.Fatal(err)
			}
			err = writeVersions(at, mark)
			if err := errors.Join(err, stop()); err != nil {
				t.Fatal(err)
			}
		})
		rec.begin = rec.position(1)
		r.tryAll(t, rec, rec.choose(pick(40, 1000), *seed), func(st state, dir string) {
			if err := readVersion(at); err != nil {
				t.Errorf("%v: %v", st, err)
			}
		})
	})
}

func writeVersions(at string, mark func()) error {
	if err := store.Init(at, store.InitOptions{}); err != nil {
		return err
	}
	mark()
	s, err := store.Open(at, store.OpenOptions{})
	if err != nil {
		return err
	}
	defer s.Close()
	for n := range privateVersions {
		if err := s.WriteFile(privateFile, privateVersion(n)); err != nil {
			return err
		}
		mark()
	}
	return nil
}

func readVersion(at string) error {
	s, err := store.Open(at, store.OpenOptions{})
	if err != nil {
		return err
	}
	defer s.Close()
	b, err := s.ReadFile(privateFile)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	case len(b) <= sha256.Size:
		return errors.New("the file is cut short")
	}
	if sum := sha256.Sum256(b[sha256.Size:]); !bytes.HasPrefix(b, sum[:]) {
		return errors.New("the file has other content")
	}
	return nil
}
