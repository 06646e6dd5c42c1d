package store

import (
	"errors"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/fsverity"
	"golang.org/x/sys/unix"
)

// sweep removes what was planned. Entries go first, so that nobody can take for whole
// what is being removed; their traces stay until the end.
func (c *collector) sweep() error {
	p := c.plan
	for _, r := range c.view.gone {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.s.RemoveRef(Images, r.Name); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	links, err := c.buryAll()
	if err != nil {
		return err
	}
	if p.objects.len() > p.objects.numKept() {
		// Else an entry might come back after a power cut without what it refers to.
		if err := c.s.Sync(); err != nil {
			return err
		}
	}
	if err := c.removeObjects(); err != nil {
		return err
	}
	for _, l := range links {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.s.RemoveNote(deadDirOf(l.kind), l.name); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

// buryAll makes traces of the entries that go, and gives those traces that have no use
// once the objects are gone.
func (c *collector) buryAll() ([]deadLink, error) {
	p := c.plan
	links := slices.Clone(p.links)
	for _, k := range []Kind{Streams, Images} {
		for _, e := range p.entries[k] {
			if err := c.ctx.Err(); err != nil {
				return nil, err
			}
			l, err := c.s.bury(k, e)
			if err != nil {
				return nil, err
			}
			links = append(links, l)
		}
		for _, e := range p.aside[k] {
			if err := c.putAside(k, e); err != nil {
				return nil, err
			}
		}
	}
	for _, d := range p.bury {
		if err := c.s.Bury(Streams, d); err != nil {
			return nil, err
		}
	}
	return links, nil
}

// putAside moves an entry that can't be read to the dead. Should its object be put
// again, that has to replace it if it is damaged, though it has no entry any more by
// which that would show.
func (c *collector) putAside(k Kind, e EntryInfo) error {
	check, err := c.s.CheckObject(e.Digest, CheckOptions{Read: true})
	if err != nil || check.Content != nil {
		if err := c.s.MarkBad(e.Digest, badContent); err != nil {
			return err
		}
	}
	_, err = c.s.bury(k, e)
	return err
}

// removeObjects removes the candidates that nobody keeps, and then those of them that
// tell of others.
func (c *collector) removeObjects() error {
	bad, err := c.s.noteNames(notesBad)
	if err != nil {
		return err
	}
	p := c.plan
	for i := range p.objects.len() {
		if p.objects.isKept(i) {
			continue
		}
		if d := p.objects.at(i); !p.parents[d] {
			if err := c.removeObject(d, bad); err != nil {
				return err
			}
		}
	}
	for _, d := range p.order {
		if p.objects.keeps(d) {
			continue
		}
		if err := c.removeObject(d, bad); err != nil {
			return err
		}
	}
	return nil
}

// removeObject removes an object and the note that it is damaged.
func (c *collector) removeObject(d fsverity.Digest, bad map[string]bool) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if err := c.s.RemoveObject(d); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if !bad[d.String()] {
		return nil
	}
	if err := c.s.RemoveNote(notesBad, d.String()); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}

// noteNames is the set of the notes in flatroot/where.
func (s *Store) noteNames(where string) (map[string]bool, error) {
	names := map[string]bool{}
	for name, err := range s.Notes(where) {
		if err != nil {
			return nil, err
		}
		names[name] = true
	}
	return names, nil
}

// tidy removes what has no more use: marks, now that all objects were looked at;
// temporary names; files in quarantine that were replaced; notes.
func (c *collector) tidy() error {
	n, err := c.s.RemoveLeftovers()
	c.report.Leftovers += int64(n)
	if err != nil {
		return err
	}
	c.s.removeEmptyLive()
	replaced, err := c.replaced()
	if err != nil {
		return err
	}
	for _, d := range replaced {
		if err := c.s.RemoveNote(quarantineDir, d); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		c.report.Leftovers++
	}
	n, err = c.prune()
	c.report.Leftovers += int64(n)
	if err != nil {
		return err
	}
	if err := c.s.removeEmptyRefDirs(); err != nil {
		return err
	}
	for _, name := range c.view.marks {
		if err := c.s.RemoveNote(uncleanDir, name); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		c.report.Leftovers++
	}
	return nil
}

// replaced lists the files in quarantine that are of no use to a repair: their objects are good again, or are no more. A
// directory that was in an object's place stays, since nobody knows what is in it.
func (c *collector) replaced() ([]string, error) {
	bad, err := c.s.noteNames(notesBad)
	if err != nil {
		return nil, err
	}
	var list []string
	for name, err := range c.s.Notes(quarantineDir) {
		if err != nil {
			return nil, err
		}
		if _, err := fsverity.ParseDigest(name); err == nil && !bad[name] {
			list = append(list, name)
		}
	}
	return list, nil
}

// countLeftovers is what tidy would do.
func (c *collector) countLeftovers() error {
	unfinished, err := c.s.Unfinished()
	if err != nil {
		return err
	}
	replaced, err := c.replaced()
	if err != nil {
		return err
	}
	notes, err := c.prune()
	c.report.Leftovers = int64(len(unfinished) + len(c.view.marks) + len(replaced) + notes)
	return err
}

// prune has notes removed, or counted.
func (c *collector) prune() (int, error) {
	if c.o.Prune == nil {
		return 0, nil
	}
	gone := map[string]bool{}
	for _, e := range slices.Concat(c.plan.entries[Streams], c.plan.aside[Streams]) {
		gone[e.Name] = true
	}
	return c.o.Prune(func(entry string) bool { return gone[entry] }, c.o.DryRun)
}

// lookAtMounts takes the refs of mounts that are no more out of the view: those of other
// boots, and of this one what is surely not mounted. What is mounted without a ref, since
// the store couldn't be written then, is kept like what has one.
func (c *collector) lookAtMounts() error {
	mounted, complete := map[fsverity.Digest]bool{}, false
	if c.o.Mounted != nil {
		var err error
		if mounted, complete, err = c.o.Mounted(); err != nil {
			return err
		}
	}
	v := c.view
	refs := v.refs[Images]
	v.refs[Images] = nil
	for _, r := range refs {
		if c.isOver(r, mounted, complete) {
			v.gone = append(v.gone, r)
		} else {
			v.refs[Images] = append(v.refs[Images], r)
		}
	}
	for _, e := range v.entries[Images] {
		if mounted[e.Digest] {
			v.refs[Images] = append(v.refs[Images], RefInfo{Name: livePrefix + c.o.BootID + "/" + e.Name, Entry: e.Name})
		}
	}
	c.report.Mounts = int64(len(v.gone))
	return nil
}

// isOver tells of a ref that it is that of a mount which is no more.
func (c *collector) isOver(r RefInfo, mounted map[fsverity.Digest]bool, complete bool) bool {
	rest, ok := strings.CutPrefix(r.Name, livePrefix)
	if !ok || c.o.BootID == "" {
		return false
	}
	boot, hex, _ := strings.Cut(rest, "/")
	if boot != c.o.BootID {
		return true
	}
	d, err := fsverity.ParseDigest(hex)
	return err == nil && complete && !mounted[d]
}

// removeEmptyDirs removes the directories that a ref leaves empty, up to refs/.
func (s *Store) removeEmptyDirs(k Kind, ref string) {
	names := strings.Split(ref, "/")
	for n := len(names) - 1; n > 0; n-- {
		at, err := s.kindDir(k, append([]string{refsDir}, names[:n-1]...), false)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return
		}
		err = unix.Unlinkat(at.fd, names[n-1], unix.AT_REMOVEDIR)
		at.close()
		if err != nil && err != unix.ENOENT { // it is in use
			return
		}
	}
}

// removeEmptyRefDirs removes the directories without refs below refs/flatroot/, which
// are ours alone; other tools may keep theirs.
func (s *Store) removeEmptyRefDirs() error {
	for _, k := range []Kind{Streams, Images} {
		at, err := s.kindDir(k, []string{refsDir}, false)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		err = at.removeEmpty(privateDir, maxDepth)
		at.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// removeEmpty removes a directory in d if no file is in it or below.
func (d dir) removeEmpty(name string, depth int) error {
	at, err := d.sub(name, false)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer at.close()
	names, err := at.names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if depth == 0 {
			return nil
		}
		if err := at.removeEmpty(n, depth-1); err != nil {
			return err
		}
	}
	err = unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR)
	if err == unix.ENOTEMPTY || err == unix.EEXIST {
		return nil
	}
	if err != nil {
		return pathError("remove", at.path, err)
	}
	return nil
}
