package fsck

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
)

// fileMode is that of a store's files. Other tools make them under a umask, so that bits
// may be missing; all that matters is that the owner can read them.
const (
	fileMode  = 0o644
	ownerRead = 0o400
)

// wanted tells which objects are to be checked.
func (c *checker) wanted() func(first, i int) bool {
	if len(c.Names) > 0 {
		return c.objects.isUsed
	}
	return func(int, int) bool { return true }
}

// objectJobs are 256, one for each directory of objects.
func (c *checker) objectJobs() []func(context.Context) error {
	var jobs []func(context.Context) error
	for first := range 256 {
		if c.objects.len(first) > 0 {
			jobs = append(jobs, func(ctx context.Context) error { return c.checkDirectory(ctx, first) })
		}
	}
	return jobs
}

// partOf names the directory of objects that starts with this byte, in the records.
func partOf(first int) string { return fmt.Sprintf("objects/%02x", first) }

func (c *checker) checkDirectory(ctx context.Context, first int) error {
	part := partOf(first)
	wanted := c.wanted()
	fresh := c.records.fresh(part)
	for i := range c.objects.len(first) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !wanted(first, i) || c.objects.isDone(first, i) {
			continue
		}
		if d := c.objects.at(first, i); !fresh || c.isNoted(d) {
			c.checkObject(d)
		} else {
			atomic.AddInt64(&c.report.Skipped, 1)
		}
	}
	if !c.Quick && len(c.Names) == 0 && !fresh && !c.anyBad(first) {
		c.records.verified(part)
	}
	return nil
}

// anyBad tells whether an object whose digest starts with this byte is bad. Its directory then stays due.
func (c *checker) anyBad(first int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for d := range c.bad {
		if firstByte(d) == first {
			return true
		}
	}
	return false
}

func firstByte(d fsverity.Digest) int {
	var b [64]byte
	return int(d.AppendTo(b[:0])[0])
}

// due tells whether the content of an object is to be read. What is noted as bad always is, so that the note can go.
func (c *checker) due(d fsverity.Digest) bool {
	first, i, ok := c.objects.find(d)
	switch {
	case c.Quick || c.wasGood(d) || ok && c.objects.isDone(first, i):
		return false
	}
	return !ok || c.isNoted(d) || !c.records.fresh(partOf(first))
}

// isNoted tells whether an object was noted as bad when the check began.
func (c *checker) isNoted(d fsverity.Digest) bool {
	_, noted := c.noted[d]
	return noted
}

// wasGood tells whether the check before this one found an object in order.
func (c *checker) wasGood(d fsverity.Digest) bool {
	if c.earlier == nil {
		return false
	}
	first, i, ok := c.earlier.objects.find(d)
	return ok && c.earlier.objects.isDone(first, i) && c.earlier.bad[d] == nil
}

func (c *checker) checkObject(d fsverity.Digest) {
	check, err := c.examine(d, !c.wasGood(d))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return // whoever refers to it will miss it
	case err != nil:
		c.strange(d, err)
		return
	}
	c.checked(d, check)
}

// examine looks at an object, and reads it if its content is asked for and this is no quick check. That goes by the size.
func (c *checker) examine(d fsverity.Digest, content bool) (store.ObjectCheck, error) {
	check, err := c.s.CheckObject(d, store.CheckOptions{Read: content && !c.Quick, Throttle: c.limit.wait})
	if want := c.objects.size(d); want != 0 && err == nil && check.Size != want {
		check.Content = fmt.Errorf("it has %d bytes, and %d in an image", check.Size, want)
	}
	return check, err
}

// checked takes in what was found of an object.
func (c *checker) checked(d fsverity.Digest, check store.ObjectCheck) {
	first, i, ok := c.objects.find(d)
	if ok && c.objects.isDone(first, i) {
		return
	}
	c.objects.finish(d)
	atomic.AddInt64(&c.report.CheckedObjects, 1)
	atomic.AddInt64(&c.report.CheckedBytes, check.Read)
	c.Progress.Checked(check.Read)
	used := !ok || c.objects.isUsed(first, i)
	if !used {
		atomic.AddInt64(&c.report.Unreferenced, 1)
		atomic.AddInt64(&c.report.UnreferencedBytes, check.Size)
	}
	subject := "objects/" + d.ObjectPath()
	if err := damage(check); err != nil {
		code := ObjectDamaged
		if !used {
			code = UnusedDamaged
		}
		c.addBad(&Problem{Code: code, Severity: code.severity(), Subject: subject, Err: err, object: d})
		return
	}
	if check.Verity != nil {
		c.add(&Problem{Code: ObjectUnsealed, Subject: subject, Err: check.Verity, object: d})
	}
	c.checkMode(subject, check)
}

// damage is what is wrong with an object's content, as far as was looked.
func damage(check store.ObjectCheck) error {
	var mismatch *store.MismatchError
	if errors.As(check.Verity, &mismatch) {
		return check.Verity
	}
	return check.Content
}

func (c *checker) checkMode(subject string, check store.ObjectCheck) {
	if check.Mode&^fileMode != 0 || check.Mode&ownerRead == 0 {
		c.problem(ModeOdd, subject, fmt.Errorf("its permissions are %#o; a store's files have %#o", check.Mode, fileMode))
	}
	if owner := c.records.owner; check.UID != owner {
		c.problem(OwnerOdd, subject, fmt.Errorf("it belongs to user %d, the store to user %d", check.UID, owner))
	}
}

// limiter spreads reading over time, until the check is called off.
type limiter struct {
	ctx  context.Context
	rate int64 // bytes a second; 0: no limit
	mu   sync.Mutex
	next time.Time // when the next byte may be read
}

func newLimiter(ctx context.Context, rate int64) *limiter { return &limiter{ctx: ctx, rate: rate} }

// wait waits until n more bytes may be read. The error is why they may never be.
func (l *limiter) wait(n int) error {
	if l.rate <= 0 || l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	l.mu.Lock()
	now := time.Now()
	if l.next.Before(now) {
		l.next = now
	}
	pause := l.next.Sub(now)
	l.next = l.next.Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
	l.mu.Unlock()
	select {
	case <-time.After(pause):
		return nil
	case <-l.ctx.Done():
		return context.Cause(l.ctx)
	}
}
