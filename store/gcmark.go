package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/fsverity"
)

// sweepPlan is what is going to be removed.
type sweepPlan struct {
	full    bool
	entries map[Kind][]EntryInfo // that have lost their names
	links   []deadLink           // traces of earlier ones; those among them that live just go
	// parents are the dead streams and images themselves: they go last, since they
	// are the only ones that tell what else is to go. In order, a stream without an
	// entry comes before those that lead to it: it has no other trace.
	parents map[fsverity.Digest]bool
	order   []fsverity.Digest
	// aside are entries that can't be read: they become traces, since what they refer
	// to may not all be there the day that they can. Bury are streams like that which
	// have no entry.
	aside   map[Kind][]EntryInfo
	bury    []fsverity.Digest
	objects *digestSet // candidates; those that are kept in it stay
}

// tracing follows references.
type tracing struct {
	c       *collector
	mapped  map[Kind]map[fsverity.Digest]bool // what entries lead to
	live    map[fsverity.Digest]bool          // streams
	images  map[fsverity.Digest]bool          // live by a config
	rooted  map[fsverity.Digest]string        // images, by a ref: that
	covered map[fsverity.Digest]bool          // images that dead configs name
	stuck   []fsverity.Digest                 // dead, but not to be read
	objects *digestSet
	hollow  bool // a dead stream could not be read: images are, which its config would stand for
}

// makePlan decides what goes: first which entries live, then what those that don't
// have, and then which of that others have too.
func (c *collector) makePlan(full bool) error {
	t := &tracing{
		c: c, mapped: map[Kind]map[fsverity.Digest]bool{}, objects: newDigestSet(c.s.meta.algorithm),
		live: map[fsverity.Digest]bool{}, images: map[fsverity.Digest]bool{}, rooted: map[fsverity.Digest]string{},
		covered: map[fsverity.Digest]bool{},
	}
	for k, entries := range c.view.entries {
		t.mapped[k] = map[fsverity.Digest]bool{}
		for _, e := range entries {
			t.mapped[k][e.Digest] = true
		}
	}
	if err := t.findLive(); err != nil {
		return err
	}
	c.report.Kept, c.report.Removed, c.report.Unreadable = GCCounts{}, GCCounts{}, nil
	c.report.Full, c.report.Strange = full, nil
	p := &sweepPlan{
		full: full, entries: map[Kind][]EntryInfo{}, aside: map[Kind][]EntryInfo{},
		parents: map[fsverity.Digest]bool{}, objects: t.objects,
	}
	if err := t.findDead(p); err != nil {
		return err
	}
	if full {
		if err := t.addAll(); err != nil {
			return err
		}
	}
	t.objects.seal()
	if t.objects.len() > 0 {
		if err := t.keepLive(); err != nil {
			return err
		}
	}
	c.plan = p
	return c.count(p)
}

// findLive follows refs to streams, and streams to others and to images.
func (t *tracing) findLive() error {
	for k, refs := range t.c.view.refs {
		for _, r := range refs {
			i, ok := slices.BinarySearchFunc(t.c.view.entries[k], r.Entry, func(e EntryInfo, n string) int { return strings.Compare(e.Name, n) })
			if !ok {
				return unsure(t.c.s.linkError(k, refsDir+"/"+r.Name, fmt.Errorf("there is no entry %s", r.Entry)))
			}
			d := t.c.view.entries[k][i].Digest
			if k == Images {
				t.rooted[d] = r.Name
				continue
			}
			if err := t.liveStream(d); err != nil {
				return unsure(fmt.Errorf("%s/%s/%s: %w", k, refsDir, r.Name, err))
			}
		}
	}
	return nil
}

// errEnough ends a trace.
var errEnough = errors.New("enough was seen")

// liveStream follows the names in a stream. What it has of objects is looked at later:
// which of them matter is not known yet.
func (t *tracing) liveStream(d fsverity.Digest) error {
	if t.live[d] {
		return nil
	}
	if err := t.c.ctx.Err(); err != nil {
		return err
	}
	t.live[d] = true
	var next []fsverity.Digest
	err := t.trace(Streams, d, func(e Edge, to fsverity.Digest) error {
		follow, err := e == ToStream, error(nil)
		switch e {
		case ToObject:
			return errEnough
		case ToImage:
			t.images[to] = true
		case ToAny:
			if t.mapped[Images][to] {
				t.rooted[to] = "a reference of an unknown kind in stream " + d.String()
			}
			follow, err = t.isStream(to)
		}
		if follow {
			next = append(next, to)
		}
		return err
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	for _, to := range next {
		if err := t.liveStream(to); err != nil {
			return err
		}
	}
	return nil
}

// isStream tells of a reference of an unknown kind whether to follow it: if an entry
// says so, or else the content. An error means that it may be a stream.
func (t *tracing) isStream(d fsverity.Digest) (bool, error) {
	if t.mapped[Streams][d] || t.mapped[Images][d] {
		return t.mapped[Streams][d], nil
	}
	err := t.trace(Streams, d, func(Edge, fsverity.Digest) error { return errEnough })
	switch {
	case err == nil || errors.Is(err, errEnough):
		return true, nil
	case errors.Is(err, ErrNotFound):
		return false, nil // there is nothing to follow
	case !errors.Is(err, ErrUntraceable):
		return false, err
	}
	// A damaged stream does not look like one either.
	check, err := t.c.s.CheckObject(d, CheckOptions{Read: true})
	if err == nil && check.Content != nil {
		err = t.c.s.objectError("trace", d, check.Content)
	}
	return false, err
}

func (t *tracing) trace(k Kind, d fsverity.Digest, visit func(Edge, fsverity.Digest) error) error {
	f, err := t.c.s.OpenObject(d)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil {
		err = t.c.o.Tracers[k](f, st.Size(), visit)
	}
	if err != nil {
		return t.c.s.objectError("trace", d, err)
	}
	return nil
}

// findDead takes in what has lost its names, and makes candidates of all that it has.
func (t *tracing) findDead(p *sweepPlan) error {
	lives := map[Kind]func(fsverity.Digest) bool{
		Streams: func(d fsverity.Digest) bool { return t.live[d] },
		Images:  func(d fsverity.Digest) bool { return t.images[d] || t.rooted[d] != "" },
	}
	// Streams first: the images that dead configs name have no files but those of layers.
	for _, k := range []Kind{Streams, Images} {
		for _, e := range t.c.view.entries[k] {
			if lives[k](e.Digest) {
				t.c.report.Kept.add(k)
				continue
			}
			if err := t.dead(k, e.Digest, p); err != nil {
				t.c.report.Kept.add(k)
				p.aside[k] = append(p.aside[k], e)
				t.unreadable(e.Digest, t.c.s.linkError(k, e.Name, err))
				continue
			}
			t.c.report.Removed.add(k)
			p.entries[k] = append(p.entries[k], e)
		}
		for _, l := range t.c.view.dead {
			if l.kind != k {
				continue
			}
			if !lives[k](l.id) {
				if err := t.dead(k, l.id, p); err != nil {
					t.unreadable(l.id, err)
					continue
				}
			}
			p.links = append(p.links, l)
		}
	}
	return t.c.ctx.Err()
}

// unreadable notes what stays since it can't be read.
func (t *tracing) unreadable(d fsverity.Digest, err error) {
	t.stuck = append(t.stuck, d)
	t.c.report.Unreadable = append(t.c.report.Unreadable, err)
}

// dead makes candidates of a stream or image and of what it refers to; of one that
// can't be read, none. Where all objects are candidates anyhow that doesn't matter.
func (t *tracing) dead(k Kind, d fsverity.Digest, p *sweepPlan) error {
	if p.parents[d] {
		return nil
	}
	trace := t.deadStream
	if k == Images {
		trace = t.deadImage
	}
	before := t.objects.mark()
	err := trace(d, p)
	if err != nil { // it may come after some references
		t.objects.undo(before)
	}
	if err != nil && k == Streams {
		t.hollow = true
	}
	if errors.Is(err, ErrNotFound) || err != nil && p.full {
		err = nil // it has gone already; or all objects are looked at
	}
	if err == nil {
		p.parents[d] = true
		p.order = append(p.order, d)
		t.objects.add(d)
	}
	return err
}

func (t *tracing) deadStream(d fsverity.Digest, p *sweepPlan) error {
	var next []fsverity.Digest
	err := t.trace(Streams, d, func(e Edge, to fsverity.Digest) error {
		t.objects.add(to)
		follow, err := e == ToStream, error(nil)
		switch {
		case e == ToObject:
			return nil
		case e == ToImage:
			t.covered[to] = true
		case t.mapped[Streams][to] || t.live[to]: // it is dead by itself, or not at all
			return nil
		case e == ToAny:
			follow, err = t.isStream(to)
		}
		if follow {
			next = append(next, to)
		}
		return err
	})
	if err != nil {
		return err
	}
	p.parents[d] = true // should one lead back to it
	for _, to := range next {
		if err := t.dead(Streams, to, p); err != nil {
			// It has no entry that could stay, so a trace has to be made.
			t.unreadable(to, err)
			p.bury = append(p.bury, to)
		}
	}
	return nil
}

func (t *tracing) deadImage(d fsverity.Digest, _ *sweepPlan) error {
	if t.covered[d] && !t.hollow {
		return nil
	}
	return t.trace(Images, d, func(_ Edge, to fsverity.Digest) error {
		t.objects.add(to)
		return nil
	})
}

// addAll makes candidates of all objects that there are.
func (t *tracing) addAll() (err error) {
	if t.c.report.Strange, err = t.c.s.Strangers(); err != nil {
		return err
	}
	for first := range 256 {
		if err := t.c.ctx.Err(); err != nil {
			return err
		}
		ds, strange, err := t.c.s.ObjectNames(byte(first))
		if err != nil {
			return err
		}
		t.c.report.Strange = append(t.c.report.Strange, strange...)
		for _, d := range ds {
			t.objects.add(d)
		}
	}
	return nil
}

// keepLive takes out of the candidates all that lives.
func (t *tracing) keepLive() error {
	keep := func(_ Edge, d fsverity.Digest) error {
		t.objects.keep(d)
		return nil
	}
	for d := range t.live {
		t.objects.keep(d)
		if err := t.trace(Streams, d, keep); err != nil {
			return unsure(err)
		}
	}
	for d := range t.images {
		t.objects.keep(d)
	}
	for d, ref := range t.rooted {
		t.objects.keep(d)
		if err := t.trace(Images, d, keep); err != nil {
			return unsure(fmt.Errorf("%s/%s/%s: %w", Images, refsDir, ref, err))
		}
	}
	for _, d := range t.stuck {
		t.objects.keep(d)
	}
	return nil
}

func (n *GCCounts) add(k Kind) {
	if k == Streams {
		n.Streams++
	} else {
		n.Images++
	}
}

// count looks at the objects that are going to be removed, and with full at all.
func (c *collector) count(p *sweepPlan) error {
	for i := range p.objects.len() {
		if i%1024 == 0 && c.ctx.Err() != nil {
			return c.ctx.Err()
		}
		kept := p.objects.isKept(i)
		if kept && !p.full {
			c.report.Kept.Objects++
			continue
		}
		size, err := c.s.ObjectSize(p.objects.at(i))
		switch {
		case errors.Is(err, ErrNotFound):
			continue
		case errors.Is(err, errNotRegular):
			p.objects.keep(p.objects.at(i)) // it is no object of ours
			c.report.Strange = append(c.report.Strange, "objects/"+p.objects.at(i).ObjectPath())
			continue
		case err != nil:
			return err
		}
		n := &c.report.Removed
		if kept {
			n = &c.report.Kept
		}
		n.Objects++
		n.Bytes += size
	}
	return nil
}
