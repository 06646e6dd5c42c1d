package powercut

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
)

// history is a recording of the workload, what was announced at each of its marks, and the states to try.
type history struct {
	*recording
	states   []state
	first    int               // step of the workload that is the first one in the recording
	promises []promise         // by how many steps are done
	sizes    map[string]int64  // of all objects that there ever were, bytes
	tags     map[string]string // of images at their source, by what they come to
}

func newHistory() *history {
	return &history{promises: []promise{{}}, sizes: map[string]int64{}, tags: map[string]string{}}
}

// until is what has happened until so many steps were done, without a recording.
func (h *history) until(done int) *history {
	return &history{first: done, promises: slices.Clone(h.promises[:done+1]), sizes: h.sizes, tags: h.tags}
}

// done is how many steps were done in a state.
func (h *history) done(s state) int { return h.first + h.marks(s) }

// kept is the form of a history in a file.
type kept struct {
	Filesystem string
	Base       map[int64][]byte
	Events     []event
	First      int
	States     []keptState
	Promises   []promise
	Sizes      map[string]int64
	Tags       map[string]string
}

type keptState struct {
	Cut, Way int
	Seed     uint64
}

// keep writes a history to a file that stays, and says how to go on with it.
func (h *history) keep(t *testing.T, r *rig) {
	t.Helper()
	k := kept{
		Filesystem: r.name, Base: h.base.m, Events: h.events, First: h.first, Promises: h.promises, Sizes: h.sizes, Tags: h.tags,
	}
	for _, s := range h.states {
		k.States = append(k.States, keptState{s.cut, s.way, s.seed})
	}
	f, err := os.CreateTemp("", "powercut-"+r.name+"-")
	if err == nil {
		err = errors.Join(gob.NewEncoder(f).Encode(k), f.Close())
	}
	if err != nil {
		t.Errorf("keep the recording: %v", err)
		return
	}
	t.Logf("one state alone: go test ./tests/powercut -run=TestPowerCut/%s -recording=%s -state=NUMBER", r.name, f.Name())
}

// load reads the history that was asked for; nil: none was.
func load(t *testing.T, r *rig) *history {
	t.Helper()
	if *keptIn == "" {
		return nil
	}
	f, err := os.Open(*keptIn)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var k kept
	if err := gob.NewDecoder(f).Decode(&k); err != nil {
		t.Fatalf("read the recording: %v", err)
	}
	if k.Filesystem != r.name {
		t.Skipf("the recording is of %s", k.Filesystem)
	}
	h := &history{
		recording: &recording{base: &blocks{r.size, k.Base}, events: k.Events, sector: r.sector, intact: r.intact},
		first:     k.First, promises: k.Promises, sizes: k.Sizes, tags: k.Tags,
	}
	for i, s := range k.States {
		if s.Cut > len(k.Events) {
			t.Fatal(fmt.Errorf("state %d of the recording is cut after event %d of %d", i, s.Cut, len(k.Events)))
		}
		h.states = append(h.states, state{i, s.Cut, s.Way, s.Seed})
	}
	return h
}
