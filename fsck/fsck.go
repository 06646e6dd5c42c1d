// Package fsck checks that a store is what it should be, says what damage hits, and
// mends it.
//
// A check goes from the names inwards. The catalogue comes first: refs lead to
// entries, entries to streams and images, streams to each other and to objects.
// Streams and images are read and hashed there, since all that follows rests on
// them. Then every object is read and hashed, several at a time; layers whose tar
// was never hashed here give it back and have it hashed; and each image is
// generated anew from its layers. What is found goes through the images once more:
// a problem names the images that it hits, and the paths in them.
//
// Words: a problem is something that a user of the store can get to feel, a remark
// something worth knowing, such as what a killed process has left. The subject is a
// path below the store.
//
// Invariants:
//
//   - Nothing is believed that can be computed. The exception is a layer's tar: its
//     bytes follow from its stream and objects, all of which are hashed, so that a
//     note of this store saying which diffID they came to still holds. VerifyTars
//     has them hashed all the same.
//   - A store in use gives no false alarm: what looks wrong while others write to
//     the store is looked at again before it counts.
//   - Check changes nothing but its own notes: when which part was last verified,
//     and which objects are bad, so that the next pull replaces them.
package fsck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
)

// Options are Check's.
type Options struct {
	// Quick looks at structure, sizes and the kernel's digests, and reads no content.
	Quick bool
	// VerifyTars hashes the tar of every layer, also where that was done before.
	VerifyTars bool
	// Names limits the check to these images; empty: all of the store.
	Names []string
	// Since leaves out what was verified within this time; 0: nothing.
	Since time.Duration
	// Rate limits what is read, in bytes a second; 0: no limit.
	Rate int64
	// Jobs is how many objects are read at once; 0: one for each processor.
	Jobs int
	// Progress may be nil.
	Progress Progress
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Progress hears of a check. Its methods are called from several goroutines.
type Progress interface {
	// Step announces a part of the work.
	Step(what string)
	// Objects announces how many objects are going to be checked.
	Objects(n int)
	// Checked tells of one object, and how many bytes of it were read.
	Checked(bytes int64)
}

// Report is what a check found.
type Report struct {
	Problems []*Problem // problems and remarks, by severity, code and subject
	// CheckedObjects is the number of objects looked at, CheckedBytes the bytes of
	// them that were read.
	CheckedObjects, CheckedBytes int64
	// Unreferenced objects are named by no stream and no image; `gc` or `gc --full`
	// takes them. They are not counted if only some images are checked.
	Unreferenced, UnreferencedBytes int64
	// Skipped objects were verified recently enough.
	Skipped int64
}

// Count is the number of those with this severity.
func (r *Report) Count(s Severity) int {
	n := 0
	for _, p := range r.Problems {
		if p.Severity == s {
			n++
		}
	}
	return n
}

// Check checks a store, which may be open read-only; then nothing is noted. The
// error is about the check itself: what is wrong with the store is in the report.
func Check(ctx context.Context, s *store.Store, o Options) (*Report, error) {
	c, err := check(ctx, s, o, nil)
	if err != nil {
		return nil, err
	}
	return &c.report, nil
}

// checker is one check.
type checker struct {
	Options
	s       *store.Store
	objects *objectSet
	graph   *graph
	records *records
	limit   *limiter
	report  Report
	earlier *checker
	noted   map[fsverity.Digest]string // objects that were noted as bad before

	mu       sync.Mutex
	good     map[string]bool // parts that were found in order
	problems []*Problem
	bad      map[fsverity.Digest]*Problem // damaged and missing objects
}

// check makes a check. What an earlier one found in order, if there was one just before, is not read again.
func check(ctx context.Context, s *store.Store, o Options, earlier *checker) (*checker, error) {
	c := &checker{
		Options: o, s: s, earlier: earlier, limit: newLimiter(ctx, o.Rate),
		bad: map[fsverity.Digest]*Problem{}, good: map[string]bool{},
	}
	c.Jobs = cmp.Or(o.Jobs, runtime.GOMAXPROCS(0))
	if o.Now == nil {
		c.Now = time.Now
	}
	if o.Progress == nil {
		c.Progress = silent{}
	}
	steps := []func(context.Context) error{
		c.openRecords, c.readNoted, c.listObjects, c.readCatalogue, c.checkContents, c.checkPrivate, c.finish,
	}
	for _, step := range steps {
		if err := inTurn(ctx, []job{step}); err != nil {
			// What was verified so far needn't be again.
			return nil, errors.Join(err, c.records.save())
		}
	}
	return c, nil
}

type silent struct{}

func (silent) Step(string)   {}
func (silent) Objects(int)   {}
func (silent) Checked(int64) {}

// add notes a problem.
func (c *checker) add(p *Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems = append(c.problems, p)
}

func (c *checker) problem(code Code, subject string, err error) {
	c.add(&Problem{Code: code, Severity: code.severity(), Subject: subject, Err: err})
}

// addBad notes that an object is damaged or missing; the first who finds it tells.
func (c *checker) addBad(p *Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bad[p.object] == nil {
		c.records.forget(partOf(firstByte(p.object)))
		c.bad[p.object] = p
		c.problems = append(c.problems, p)
	}
}

func (c *checker) isBad(d fsverity.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bad[d] != nil
}

// listObjects learns which objects there are.
func (c *checker) listObjects(context.Context) error {
	c.Progress.Step("list objects")
	c.objects = newObjectSet(c.s.Algorithm(), c.Quick)
	strangers, err := c.s.Strangers()
	if err != nil {
		return err
	}
	for first := range 256 {
		ds, strange, err := c.s.ObjectNames(byte(first))
		if err != nil {
			c.problem(ObjectStrange, partOf(first), fmt.Errorf("it can't be listed: %w", err))
		}
		strangers = append(strangers, strange...)
		c.objects.fill(byte(first), ds)
	}
	for _, path := range strangers {
		c.problem(ObjectStrange, path, errors.New("the name is no digest; another tool's collection of garbage stops at it"))
	}
	return nil
}

// checkContents reads objects, layers and images. The long jobs come first.
func (c *checker) checkContents(ctx context.Context) error {
	c.Progress.Step("check objects")
	c.Progress.Objects(c.objects.count(c.wanted()))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.Jobs)
	remake := func(ctx context.Context) error { return inTurn(ctx, c.graph.remakes) }
	for _, do := range slices.Concat([]job{remake}, c.graph.jobs, c.objectJobs()) {
		g.Go(func() error { return inTurn(ctx, []job{do}) })
	}
	return g.Wait()
}

func inTurn(ctx context.Context, jobs []job) error {
	for _, do := range jobs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// finish completes the report.
func (c *checker) finish(ctx context.Context) error {
	if err := c.confirm(); err != nil {
		return err
	}
	if err := c.explain(ctx); err != nil {
		return err
	}
	c.judge()
	if err := c.noteBad(); err != nil && !errors.Is(err, store.ErrReadOnly) {
		c.problem(NoteBad, "flatroot/bad", fmt.Errorf("what is damaged can't be noted: %w", err))
	}
	if len(c.Names) == 0 && !c.Quick {
		c.records.prune()
	}
	if err := c.records.save(); err != nil {
		c.problem(NoteBad, "flatroot/"+recordsFile, err)
	}
	c.keepNamed()
	c.sort()
	return nil
}

// keepNamed leaves out what doesn't hit the images that were asked for.
func (c *checker) keepNamed() {
	if len(c.Names) == 0 {
		return
	}
	c.problems = slices.DeleteFunc(c.problems, func(p *Problem) bool {
		return !slices.ContainsFunc(p.Images, func(h Hit) bool { return slices.Contains(c.Names, h.Name) })
	})
}

// readNoted learns which objects were found bad before. Notes that can't be read are told of with all others.
func (c *checker) readNoted(context.Context) error {
	var err error
	if c.noted, err = c.s.Bad(); err != nil {
		c.problem(NoteBad, c.below(err, "flatroot/bad"), reason(err))
	}
	return nil
}

// noteBad has the next pull that needs a damaged object write it anew, and takes back what was noted of those that are in
// order again.
func (c *checker) noteBad() error {
	for d, p := range c.bad {
		if p.Code == ObjectDamaged || p.Code == UnusedDamaged {
			if err := c.s.MarkBad(d, string(p.Code)); err != nil {
				return err
			}
		}
	}
	if c.Quick {
		return nil
	}
	for d := range c.noted {
		if first, i, ok := c.objects.find(d); ok && c.objects.isDone(first, i) && c.bad[d] == nil {
			if err := c.s.ClearBad(d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) sort() {
	slices.SortStableFunc(c.problems, func(a, b *Problem) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Subject, b.Subject))
	})
	c.report.Problems = c.problems
}
