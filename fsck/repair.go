package fsck

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

// RepairOptions are Repair's.
type RepairOptions struct {
	Options
	// Sources are asked before the places that layers came from.
	Sources []oci.Source
	// Open opens the place that a layer came from. Of an image in a registry it is the
	// one with this manifest, if that is known; whose blobs are asked for does not
	// matter. Nil: only Sources are asked.
	Open func(repository string, manifest digest.Digest) (oci.Source, error)
}

// Repair checks a store and repairs what it can: first from what the store itself has,
// then from sources, and of these only what is needed. Whatever it replaces stays in
// quarantine until the next collection of garbage. What the report says of repairs was
// checked again afterwards.
func Repair(ctx context.Context, s *store.Store, o RepairOptions) (*Report, error) {
	c, err := check(ctx, s, o.Options, nil)
	if err != nil {
		return nil, err
	}
	if len(c.wrong()) == 0 {
		return &c.report, s.Sync() // who has repaired it may have been killed before that
	}
	f := &fixer{checker: c, o: o, failed: map[*Problem]error{}, doubted: map[string]error{}}
	defer f.close()
	last, err := f.rounds(ctx)
	if err != nil {
		return nil, err
	}
	f.settle(c, last)
	return &c.report, nil
}

// maxRounds bounds the rounds of a repair, of which each may show what damage to a
// manifest, a config, a layer, or a file of it has hidden from the one before, or
// repair an image that rests on what was repaired then.
const maxRounds = 5

// rounds repairs and checks until that changes nothing more, and gives the last check.
func (f *fixer) rounds(ctx context.Context) (*checker, error) {
	for range maxRounds {
		if err := f.run(ctx); err != nil {
			return nil, err
		}
		again, err := check(ctx, f.s, f.o.Options, f.checker)
		if err != nil {
			return nil, fmt.Errorf("check what was repaired: %w", err)
		}
		left := again.wrong()
		f.doubt(left)
		if len(left) == 0 || maps.Equal(left, f.wrong()) {
			return again, nil
		}
		f.checker = again
	}
	return f.checker, nil
}

// doubt keeps in mind what looks right though its repair has failed: a sync that failed
// can't be made good, so that it may not be on the disk.
func (f *fixer) doubt(left map[string]bool) {
	for p, err := range f.failed {
		if !left[p.key()] {
			f.doubted[p.key()] = err
		}
	}
}

// key tells problems of two checks apart.
func (p *Problem) key() string { return string(p.Code) + " " + p.Subject }

// canMend: a remark of one kind may be about something to repair.
func (p *Problem) canMend() bool { return p.Severity == IsProblem || p.Code == RefUnmapped }

// wrong has the keys of what may be repaired.
func (c *checker) wrong() map[string]bool {
	keys := map[string]bool{}
	for _, p := range c.problems {
		if p.canMend() {
			keys[p.key()] = true
		}
	}
	return keys
}

// errNoWay is why there was no try to repair something.
var errNoWay = errors.New("no way to mend it is known; if it is nothing of this store's, remove it")

// settle says what was repaired, by what the last check has found. Problems that came
// up in between and were repaired need no mention.
func (f *fixer) settle(first, last *checker) {
	left, why := map[string]bool{}, maps.Clone(f.doubted)
	for _, p := range last.problems {
		left[p.key()] = true
	}
	for p, err := range f.failed {
		why[p.key()] = errors.Join(why[p.key()], err)
	}
	known := map[string]bool{}
	for _, p := range first.problems {
		known[p.key()] = true
		p.Repaired = !left[p.key()] && f.doubted[p.key()] == nil && p.canMend()
		p.Repairable = p.Repairable || p.Repaired
		if !p.Repaired {
			p.NotRepaired = why[p.key()]
		}
		if !p.Repaired && p.NotRepaired == nil && p.Severity == IsProblem {
			p.NotRepaired = errNoWay
		}
	}
	for _, p := range last.problems {
		if !known[p.key()] {
			p.NotRepaired = why[p.key()]
			first.problems = append(first.problems, p)
		}
	}
	first.report.Unreferenced, first.report.UnreferencedBytes = last.report.Unreferenced, last.report.UnreferencedBytes
	first.sort()
}

// fixer repairs what a check has found.
type fixer struct {
	*checker
	o      RepairOptions
	failed map[*Problem]error
	// doubted are the keys of problems that are gone, but not for sure.
	doubted map[string]error
	opened  []openedSource
	halfway bool // something was put that may have got no name
}

// openedSource is a source, or why there is none.
type openedSource struct {
	repository string
	manifest   digest.Digest
	src        oci.Source
	err        error
	image      *oci.Image // once it was asked for
	imageErr   error
}

func (f *fixer) close() {
	for _, o := range f.opened {
		if o.src != nil && !slices.Contains(f.o.Sources, o.src) {
			o.src.Close()
		}
	}
}

// run repairs, what others rest on first. Only what ends the whole repair is an error:
// what else goes wrong is told with its problem.
func (f *fixer) run(ctx context.Context) error {
	f.Progress.Step("repair")
	if f.opened == nil {
		for _, s := range f.o.Sources {
			f.opened = append(f.opened, openedSource{repository: s.String(), src: s})
		}
	}
	clear(f.failed) // it may be repaired in this round
	for _, step := range []func(context.Context) error{
		f.fixNotes, f.fixObjects, f.fixLayers, f.fixBlobs, f.fixOthers, f.fixEntries, f.fixDocuments, f.fixImages, f.fixSeals,
	} {
		if err := inTurn(ctx, []job{step}); err != nil {
			return err
		}
	}
	f.halfway = f.halfway || len(f.failed) > 0
	if err := f.s.Sync(); err != nil || f.halfway {
		return err
	}
	return f.s.Settled()
}

// each repairs the problems of some codes, one by one.
func (f *fixer) each(ctx context.Context, fix func(p *Problem) error, codes ...Code) error {
	for _, p := range f.problems {
		if !slices.Contains(codes, p.Code) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fix(p); err != nil {
			f.fail(p, err)
		}
	}
	return nil
}

// fail notes why something could not be repaired.
func (f *fixer) fail(p *Problem, err error) { f.failed[p] = errors.Join(f.failed[p], err) }

// fixNotes removes notes that can't be read: they are made again when they are needed.
func (f *fixer) fixNotes(ctx context.Context) error {
	return f.each(ctx, func(p *Problem) error {
		name := strings.TrimPrefix(p.Subject, "flatroot/")
		if name == recordsFile {
			return nil // the check has written it anew
		}
		at := strings.LastIndexByte(name, '/')
		return ignoreMissing(f.s.RemoveNote(name[:max(at, 0)], name[at+1:]))
	}, NoteBad)
}

func ignoreMissing(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// fixSeals switches on fs-verity where it was left out.
func (f *fixer) fixSeals(ctx context.Context) error {
	return f.each(ctx, func(p *Problem) error { return f.s.Seal(p.object) }, ObjectUnsealed)
}

// present tells whether an object is there and right.
func (f *fixer) present(d fsverity.Digest) bool {
	check, err := f.s.CheckObject(d, store.CheckOptions{Read: true, Throttle: f.limit.wait})
	return err == nil && damage(check) == nil
}

// fixEntries gives entries to what lacks them.
func (f *fixer) fixEntries(ctx context.Context) error {
	unlock, err := f.s.LockEntries(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return f.each(ctx, func(p *Problem) error {
		name := strings.TrimPrefix(p.Subject, string(store.Streams)+"/")
		switch {
		case !f.present(p.object):
			return errors.New("what it has to lead to is not there")
		case p.Code == EntryMissing:
			return f.s.Relink(store.Streams, name, p.object)
		}
		return f.s.Relink(store.Images, p.object.String(), p.object)
	}, EntryMissing, ImageUnnamed)
}
