package powercut

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/store"
)

// figures count states.
type figures struct {
	states, corrupt, lost, next int
	torn, rightSize             int // unreferenced objects, not states
	during                      [1 + numSteps]int
}

func (f figures) String() string {
	return fmt.Sprintf("%d states were mounted, %v during each step: %d with corrupt objects, %d with announced ones lost, %d in which a next command failed; "+
		"%d torn objects that nothing refers to, %d of them of the right size",
		f.states, f.during, f.corrupt, f.lost, f.next, f.torn, f.rightSize)
}

// Nothing that flatroot has announced is lost or damaged by a power cut, and it goes on afterwards.
func TestPowerCut(t *testing.T) {
	need(t)
	dir := sources(t)
	forEach(t, func(t *testing.T, r *rig) {
		w := world{at: r.at, sources: dir}
		h := load(t, r)
		if h == nil {
			h = newHistory()
			h.perform(t, r, w, nil)
			h.states = h.choose(pick(100, 1000), *seed)
		}
		h.try(t, r, w)
	})
}

// try tries the states of a history, and keeps it if one fails.
func (h *history) try(t *testing.T, r *rig, w world) {
	t.Helper()
	var f figures
	r.tryAll(t, h.recording, h.states, func(s state, _ string) {
		f.states++
		n := h.done(s)
		f.during[n]++
		if err := h.examine(w, s, &f); err != nil {
			t.Errorf("%s, %v during %s: %v", r.name, s, stepName(n), err)
		}
	})
	t.Logf("%s: %d events, %v", r.name, len(h.events), f)
	if t.Failed() && *keptIn == "" {
		h.keep(t, r)
	}
}

// The same holds for a second power cut, when the first one has left whatever it could, and flatroot has gone on from there.
func TestCutTwice(t *testing.T) {
	need(t)
	dir := sources(t)
	forEach(t, func(t *testing.T, r *rig) {
		w := world{at: r.at, sources: dir}
		h := newHistory()
		h.perform(t, r, w, nil)
		b := h.builder()
		for _, s := range h.whilePutting(pick(2, 8)) {
			h := h.until(h.done(s))
			h.perform(t, r, w, b.build(s))
			h.states = h.choose(pick(15, 60), s.seed)
			h.try(t, r, w)
		}
	})
}

// whilePutting chooses n states in which a command was cut that was putting objects.
func (h *history) whilePutting(n int) []state {
	putting := slices.DeleteFunc(h.choose(100, *seed), func(s state) bool {
		name := stepName(h.done(s))
		return name != "build" && !strings.HasPrefix(name, "pull")
	})
	for len(putting) > n {
		i := int(putting[len(putting)-1].seed % uint64(len(putting)))
		putting = slices.Delete(putting, i, i+1)
	}
	return putting
}

func stepName(n int) string {
	if n < len(steps) {
		return steps[n].name
	}
	return "nothing"
}

// perform carries the workload out, from its first step that is not done, and records it; a nil disk is a new one.
func (h *history) perform(t *testing.T, r *rig, w world, disk *blocks) {
	t.Helper()
	h.recording = r.record(t, disk, func(dir string, mark func()) {
		stop, err := neighbour(r.filesystem, dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}()
		for n := h.first; n < len(steps); n++ {
			p, err := steps[n].run(w, h.promises[n])
			if err != nil {
				t.Fatal(err)
			}
			mark()
			h.promises = append(h.promises, p)
			if tag, ok := strings.CutPrefix(steps[n].name, "pull "); ok {
				h.tags[p.Names["web"]] = tag
			}
			if err := h.note(w); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// note notes the sizes of the objects that there are now.
func (h *history) note(w world) error {
	s, err := store.Open(w.store(), store.OpenOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer s.Close()
	for o, err := range s.Objects() {
		if err != nil {
			return err
		}
		h.sizes[o.Digest.String()] = o.Size
	}
	return nil
}

// examine looks at a state: first at all that is there, then at whether flatroot goes on from there.
func (h *history) examine(w world, s state, f *figures) error {
	n := h.done(s)
	now, next := h.promises[n], h.promises[min(n+1, len(steps))]
	if err := look(w, h, now, next, f); err != nil {
		return err
	}
	if err := resume(w, h, s, n, now, next); err != nil {
		f.next++
		return err
	}
	return nil
}

func look(w world, h *history, now, next promise, f *figures) error {
	if err := w.pushed(now); err != nil {
		f.lost++
		return err
	}
	s, err := store.Open(w.store(), store.OpenOptions{ReadOnly: true})
	if err != nil {
		if now.Store {
			f.lost++
			return err
		}
		return nil
	}
	defer s.Close()
	held, err := hold(s)
	if err == nil {
		held.forgive(append(now.Damaged, next.Damaged...))
	}
	if err == nil && len(held.corrupt) > 0 {
		f.corrupt++
		return fmt.Errorf("%d objects corrupt, such as %v", len(held.corrupt), held.corrupt[0])
	}
	if err == nil && len(held.missing) > 0 {
		err = fmt.Errorf("%d objects missing, such as %v", len(held.missing), held.missing[0])
	}
	if err == nil {
		err = w.names(s, now, next)
	}
	if err != nil {
		f.lost++
		return err
	}
	torn, rightSize := held.unreferenced(h.sizes)
	f.torn, f.rightSize = f.torn+torn, f.rightSize+rightSize
	return nil
}

// resume goes on: with the command that was cut, or that would have been next, then with another pull of what is there. In
// half of the states fsck is first, which notes what is damaged; in the others pulls have to notice it themselves.
func resume(w world, h *history, s state, n int, now, next promise) error {
	if len(now.Damaged)+len(next.Damaged) > 0 {
		if err := w.repair(); err != nil {
			return err
		}
		now.Damaged, next.Damaged, n = nil, nil, len(steps)
	}
	if s.seed%2 == 0 && now.Store {
		if err := w.fsck(false); err != nil {
			return err
		}
	}
	if n < len(steps) {
		if err := again(w, steps[n], now, next); err != nil {
			return err
		}
	}
	if web := next.Names["web"]; web != "" {
		got, err := w.flatroot("pull", w.source(h.tags[web]), "--name", "again")
		if err == nil && got != web {
			err = fmt.Errorf("pulled again, the image is %s, not %s", got, web)
		}
		if err != nil {
			return err
		}
	}
	if _, err := w.flatroot("gc"); err != nil {
		return err
	}
	if err := w.fsck(true); err != nil {
		return err
	}
	return w.stillNamed(next)
}

// stillNamed wants the names to be those of a promise, in the end.
func (w world) stillNamed(p promise) error {
	if !p.Store {
		return nil
	}
	s, err := store.Open(w.store(), store.OpenOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer s.Close()
	return w.names(s, p, p)
}

// again repeats the step during which the power was cut.
func again(w world, s step, now, next promise) error {
	got, err := s.run(w, now)
	if err != nil {
		return err
	}
	if !maps.Equal(got.Names, next.Names) {
		return fmt.Errorf("%s gives %v, not %v", s.name, got.Names, next.Names)
	}
	return w.pushed(next)
}
