package fsck

import (
	"context"
	"errors"
	"fmt"
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
	if !slices.ContainsFunc(c.problems, func(p *Problem) bool { return p.Severity == IsProblem || p.Code == RefUnmapped }) {
		return &c.report, nil
	}
	f := &fixer{checker: c, o: o, failed: map[*Problem]error{}}
	defer f.close()
	if err := f.run(ctx); err != nil {
		return nil, err
	}
	again, err := check(ctx, s, o.Options, c)
	if err != nil {
		return nil, fmt.Errorf("check what was repaired: %w", err)
	}
	f.settle(again)
	return &c.report, nil
}

// settle says what was repaired, by what the second check has found.
func (f *fixer) settle(again *checker) {
	key := func(p *Problem) string { return string(p.Code) + " " + p.Subject }
	left := map[string]bool{}
	for _, p := range again.problems {
		left[key(p)] = true
	}
	known := map[string]bool{}
	for _, p := range f.problems {
		known[key(p)] = true
		// A sync that failed can't be made good: what looks right may not be on the disk.
		p.Repaired = !left[key(p)] && f.failed[p] == nil && (p.Severity == IsProblem || p.Code == RefUnmapped)
		p.Repairable = p.Repairable || p.Repaired
		if !p.Repaired {
			p.NotRepaired = f.failed[p]
		}
	}
	for _, p := range again.problems {
		if !known[key(p)] {
			f.problems = append(f.problems, p)
		}
	}
	f.report.Unreferenced, f.report.UnreferencedBytes = again.report.Unreferenced, again.report.UnreferencedBytes
	f.sort()
}

// fixer repairs what a check has found.
type fixer struct {
	*checker
	o      RepairOptions
	failed map[*Problem]error
	opened []openedSource
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
	for _, s := range f.o.Sources {
		f.opened = append(f.opened, openedSource{repository: s.String(), src: s})
	}
	for _, step := range []func(context.Context) error{
		f.fixNotes, f.fixObjects, f.fixLayers, f.fixEntries, f.fixDocuments, f.fixImages, f.fixSeals,
	} {
		if err := inTurn(ctx, []job{step}); err != nil {
			return err
		}
	}
	if err := f.s.Sync(); err != nil {
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
