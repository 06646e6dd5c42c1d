package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/flatroot/flatroot/fsverity"
)

// Edge says what a stream or image refers to.
type Edge int

// The kinds of references.
const (
	ToObject Edge = iota // a file's content or the like: kept, not looked into
	ToStream             // another stream
	ToImage              // an image, of which the layers beside it keep the files
	ToAny                // a stream if it looks like one, else an object
)

// Tracer visits all that a stream or image refers to: what is ToObject comes last. An
// error of visit ends it, and is in its own. f is the object, of size bytes.
type Tracer func(f io.ReaderAt, size int64, visit func(Edge, fsverity.Digest) error) error

// ErrUntraceable is wrapped by a Tracer's errors about content that makes no sense.
var ErrUntraceable = errors.New("it can't be read as what it should be")

// GCOptions are GC's. Tracers has one for each Kind; all else may be zero.
type GCOptions struct {
	Tracers map[Kind]Tracer
	// Full looks at all objects; else at those of what has lost its names.
	Full bool
	// DryRun removes nothing.
	DryRun bool
	// Mounted tells what is mounted now, and stays. Nil: nobody knows, and all that was
	// mounted since BootID stays.
	Mounted MountedFunc
	// BootID is that of the running system; empty: live mounts are left alone.
	BootID string
	// Prune removes notes about entries of streams that are gone, as gone says or as
	// the store shows, and tells how many; dry: it only counts them. May be nil.
	Prune func(gone func(entry string) bool, dry bool) (int, error)
	// Waiting is called if others have the store open: see LockExclusive.
	Waiting func(who string)
}

// GCCounts counts what a collection of garbage removed or kept.
type GCCounts struct {
	Objects int64 `json:"objects"`
	Streams int64 `json:"streams"` // entries
	Images  int64 `json:"images"`  // entries
	Bytes   int64 `json:"bytes"`   // of the objects' contents
}

// GCReport says what a collection of garbage did, or would do.
type GCReport struct {
	Removed GCCounts `json:"removed"`
	// Kept has all entries; of the objects those that were looked at: with Full all,
	// else those that something removed referred to and something else needs. Bytes
	// are counted with Full only.
	Kept   GCCounts `json:"kept"`
	DryRun bool     `json:"dry_run"`
	Full   bool     `json:"full"` // all objects were looked at
	// Leftovers are temporary names, partial blobs, old marks, notes and quarantined
	// files that went.
	Leftovers int64 `json:"leftovers"`
	// Mounts are records of mounts that are no more.
	Mounts int64 `json:"mounts"`
	// Strange are the paths below the store of what is in objects/ and no object. It
	// stays. They are known with Full only.
	Strange []string `json:"strange,omitempty"`
	// Unreadable are streams and images that have lost their names, but can't be
	// read, and stay: it is not known what else they refer to. Nobody finds them by
	// their names any more. Full removes them.
	Unreadable []error `json:"-"`
}

// GC removes what no ref leads to. It finds that out under the shared lock, takes the
// exclusive one, makes sure that it is still so, and only then removes anything. What
// it costs follows what has lost its names and how much the live streams refer to;
// only Full, and a process that was killed while it wrote, have it list all objects.
//
// An error before the first removal means that nothing was removed. Killed at any
// moment, it leaves a store in which all that is named is whole, and the next one
// completes what it began.
func (s *Store) GC(ctx context.Context, o GCOptions) (GCReport, error) {
	c := &collector{s: s, o: o, ctx: ctx}
	err := c.run()
	if err != nil {
		err = fmt.Errorf("collect garbage of store %s: %w", s.root.path, err)
	}
	return c.report, err
}

// collector is one collection of garbage.
type collector struct {
	s      *Store
	o      GCOptions
	ctx    context.Context
	report GCReport
	view   *view
	plan   *sweepPlan
}

func (c *collector) run() error {
	if c.o.DryRun {
		return c.dryRun()
	}
	if err := c.s.mayWrite(); err != nil {
		return err
	}
	if err := c.prepare(); err != nil {
		return err
	}
	if err := c.s.LockExclusive(c.ctx, c.o.Waiting); err != nil {
		return err
	}
	err := c.locked()
	return errors.Join(err, c.s.LockShared())
}

// look reads refs and entries, without those of mounts that are no more, and the marks
// of writers that are gone.
func (c *collector) look() (err error) {
	if c.view, err = c.s.readView(); err != nil {
		return err
	}
	if c.view.marks, err = c.s.uncleanMarks(); err != nil {
		return err
	}
	return c.lookAtMounts()
}

// prepare looks and decides.
func (c *collector) prepare() error {
	if err := c.look(); err != nil {
		return err
	}
	return c.makePlan(c.o.Full || len(c.view.marks) > 0)
}

func (c *collector) dryRun() error {
	c.report.DryRun = true
	if err := c.prepare(); err != nil {
		return err
	}
	return c.countLeftovers()
}

// locked does the rest, under the exclusive lock. What was decided before stands if refs,
// entries and marks are as they were: no object is named that was not, and whoever put
// others since has left a mark.
func (c *collector) locked() error {
	before := c.view
	if err := c.look(); err != nil {
		return err
	}
	if !reflect.DeepEqual(before, c.view) {
		if err := c.makePlan(c.o.Full || len(c.view.marks) > 0); err != nil {
			return err
		}
	}
	if err := c.ctx.Err(); err != nil {
		return context.Cause(c.ctx)
	}
	if err := c.sweep(); err != nil {
		return err
	}
	return c.tidy()
}

// view is what a store's refs and entries are at one time.
type view struct {
	refs    map[Kind][]RefInfo
	entries map[Kind][]EntryInfo
	dead    []deadLink
	gone    []RefInfo // of mounts that are no more
	marks   []string  // of writers that are gone
}

// readView fails with the first thing that can't be read: what it leads to is not
// known, so nothing may be removed.
func (s *Store) readView() (*view, error) {
	v := &view{refs: map[Kind][]RefInfo{}, entries: map[Kind][]EntryInfo{}}
	for _, k := range []Kind{Streams, Images} {
		for r, err := range s.Refs(k, "") {
			if err != nil {
				return nil, unsure(err)
			}
			v.refs[k] = append(v.refs[k], r)
		}
		for e, err := range s.Entries(k) {
			if err != nil {
				return nil, unsure(err)
			}
			v.entries[k] = append(v.entries[k], e)
		}
	}
	var err error
	v.dead, err = s.deadLinks()
	return v, err
}

// unsure says of an error why nothing is removed because of it.
func unsure(err error) error {
	return fmt.Errorf("%w; nothing was removed, since it is not known what that refers to (`flatroot fsck --repair` mends what can be)", err)
}
