package object

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tests/testenv"
)

// TestMeasured lets a kernel say what digest it checks reads against: if it is the
// one asked for, nothing is hashed, which shows with content of another digest.
func TestMeasured(t *testing.T) {
	content := randomBytes(200_000)
	wrong := bytes.Clone(content)
	wrong[100_000]++
	other := fsverity.Sum(fsverity.SHA512, content)
	o := newObjects(t)
	r := o.add(fsverity.SHA256, content)
	for _, tt := range []struct {
		name    string
		digest  fsverity.Digest
		err     error
		trusted bool
	}{
		{"same digest", r.Digest, nil, true},
		{"other digest", other, nil, false},
		{"no digest", fsverity.Digest{}, fsverity.ErrNoVerity, false},
		{"digest and error", r.Digest, errors.New("error"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o.write(r, wrong)
			p := o.pool(verified)
			p.measure = func(int) (fsverity.Digest, error) { return tt.digest, tt.err }
			check := func() { failRead(t, readerOf{p, r}, 4096, 100_000&^4095, ErrBad) }
			if tt.trusted {
				check = func() { checkRead(t, readerOf{p, r}, wrong, 4096, 100_000&^4095) }
			}
			check()
			if hashed := p.leaves.built > 0; hashed == tt.trusted {
				t.Errorf("hashed: %t", hashed)
			}
			f, err := p.Open(r)
			if (err == nil) != tt.trusted {
				t.Errorf("open: %v", err)
			}
			if err == nil {
				f.Close()
			}
		})
	}
}

// TestNotMeasured: who verifies nothing needs no kernel for it.
func TestNotMeasured(t *testing.T) {
	o := newObjects(t)
	r := o.add(fsverity.SHA256, []byte("content"))
	p := o.pool(Options{})
	p.measure = func(int) (fsverity.Digest, error) {
		t.Error("measured")
		return fsverity.Digest{}, nil
	}
	checkRead(t, readerOf{p, r}, []byte("content"), 7, 0)
}

// TestKernelVerity reads files that have fs-verity.
func TestKernelVerity(t *testing.T) {
	testenv.Need(t, "verity")
	content := randomBytes(300_000)
	o := newObjects(t)
	p := o.pool(verified)
	for _, enabled := range algorithms {
		for _, asked := range algorithms {
			r := o.add(asked, content)
			r.Path = []byte(enabled.String() + asked.String())
			o.write(r, content)
			f, err := os.Open(o.path(r))
			must(t, err)
			must(t, fsverity.Enable(f, enabled))
			must(t, f.Close())
			before := p.leaves.built
			checkRead(t, readerOf{p, r}, content, 5000, 128*1024)
			if hashed := p.leaves.built > before; hashed == (enabled == asked) {
				t.Errorf("%v of a file with %v: hashed: %t", asked, enabled, hashed)
			}
			r.Digest = fsverity.Sum(asked, []byte("another"))
			failRead(t, readerOf{p, r}, 5000, 128*1024, ErrBad)
			failRead(t, readerOf{p, r}, len(content), 0, ErrBad)
		}
	}
}
