package powercut

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// publisher publishes files as objects ought to be: written under a temporary name, synced, renamed, and the directory
// synced. Each step may be left out, to see that the harness notices.
type publisher struct {
	syncFile, syncDir bool
}

const published = 24 // files

func (p publisher) publish(dir string, n int) error {
	content := []byte(strings.Repeat(fmt.Sprintf("file %d of %t, %t\n", n, p.syncFile, p.syncDir), 300))
	sum := sha256.Sum256(content)
	tmp := filepath.Join(dir, "tmp")
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil && p.syncFile {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, fmt.Sprintf("%d-%s", n, hex.EncodeToString(sum[:])))); err != nil {
		return err
	}
	if !p.syncDir {
		return nil
	}
	return syncPath(dir)
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// inspect counts the files of which the name is there and not the content, and those of the first n that are not there.
func (p publisher) inspect(dir string, n int) (corrupt, lost int) {
	have := map[string]bool{}
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		number, sum, ok := strings.Cut(e.Name(), "-")
		if err != nil || !e.Type().IsRegular() || !ok {
			return nil
		}
		have[number] = true
		content, err := os.ReadFile(path)
		if got := sha256.Sum256(content); err != nil || hex.EncodeToString(got[:]) != sum {
			corrupt++
		}
		return nil
	})
	for i := range n {
		if !have[fmt.Sprint(i+1)] {
			lost++
		}
	}
	return corrupt, lost
}

// The harness is worth nothing unless it notices what a missing sync does, and only that.
func TestControls(t *testing.T) {
	forEach(t, func(t *testing.T, r *rig) {
		for _, p := range []publisher{{true, true}, {false, true}, {true, false}} {
			t.Run(fmt.Sprintf("file=%t,dir=%t", p.syncFile, p.syncDir), func(t *testing.T) { control(t, r, p) })
		}
	})
}

// control publishes, each file announced, and counts the states in which something is wrong.
func control(t *testing.T, r *rig, p publisher) {
	rec := r.record(t, nil, func(dir string, mark func()) {
		for i := range published {
			if err := p.publish(dir, i+1); err != nil {
				t.Fatal(err)
			}
			mark()
		}
	})
	rec.begin = rec.position(1)
	n, caught := pick(36, 300), 0
	r.tryAll(t, rec, rec.choose(n, *seed), func(s state, dir string) {
		corrupt, lost := p.inspect(dir, rec.marks(s))
		if corrupt+lost > 0 {
			caught++
		}
		if p.syncFile && p.syncDir && corrupt+lost > 0 {
			t.Errorf("%v: %d files corrupt, %d announced ones lost", s, corrupt, lost)
		}
	})
	t.Logf("%d events; something is wrong in %d of %d states", len(rec.events), caught, n)
	if !(p.syncFile && p.syncDir) && caught*2 <= n {
		t.Errorf("only %d of %d states show that a sync is missing", caught, n)
	}
}
