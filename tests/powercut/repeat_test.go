package powercut

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/store"
)

// repetitions are commands that find their work done, by a process that was killed before it could make it durable, or by one
// that is about to. They announce it, so they have to make it durable themselves.
var repetitions = []struct {
	name    string
	pretend func(w world) error // to be the other process
	args    func(w world) []string
	check   func(w world) error
}{
	{
		"pull", nameSecond,
		func(w world) []string { return []string{"pull", w.source("v1"), "--name", "second"} },
		func(w world) error { return w.has("second") },
	},
	{
		"push", func(w world) error { return move(filepath.Join(w.layout(), "index.json")) },
		func(w world) []string { return []string{"push", "web", "oci:" + w.layout() + ":web"} },
		func(w world) error { return w.pushed(promise{Pushed: true}) },
	},
	{
		"init", func(w world) error { return move(w.store()) },
		func(w world) []string { return []string{"init"} },
		func(w world) error { return w.has("web") },
	},
}

// nameSecond gives the image web the name second, and syncs nothing.
func nameSecond(w world) error {
	s, err := store.Open(w.store(), store.OpenOptions{})
	if err != nil {
		return err
	}
	defer s.Close()
	entry, err := s.Ref(store.Streams, "oci/web")
	if err != nil {
		return err
	}
	return s.SetRef(store.Streams, "oci/second", entry)
}

// move moves a file away, durably, and back, but not durably.
func move(path string) error {
	if err := errors.Join(os.Rename(path, path+".away"), syncPath(filepath.Dir(path))); err != nil {
		return err
	}
	return os.Rename(path+".away", path)
}

func (w world) has(name string) error {
	s, err := store.Open(w.store(), store.OpenOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = index.Find(s, name)
	return err
}

// What a command announces is durable even if it had nothing to do.
func TestRepeated(t *testing.T) {
	need(t)
	dir := sources(t)
	forEach(t, func(t *testing.T, r *rig) {
		for _, c := range repetitions {
			w := world{at: r.at, sources: dir}
			rec := r.record(t, nil, func(_ string, mark func()) {
				var err error
				p := promise{}
				for _, s := range []step{steps[0], pull("v1", "web"), push} {
					if err == nil {
						p, err = s.run(w, p)
					}
				}
				if err == nil {
					err = c.pretend(w)
				}
				if err == nil {
					_, err = w.flatroot(c.args(w)...)
				}
				if err != nil {
					t.Fatal(err)
				}
				mark()
			})
			cut := state{cut: rec.position(1) + 1, way: subset}
			r.tryAll(t, rec, []state{cut}, func(s state, _ string) {
				if err := c.check(w); err != nil {
					t.Errorf("%s %v after %s: %v", r.name, s, c.name, err)
				}
			})
		}
	})
}
