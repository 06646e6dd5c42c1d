package chunk

import (
	"errors"
	"fmt"
	"time"

	"github.com/flatroot/flatroot/tree"
)

// MtimePolicy says what becomes of the times of a tree.
type MtimePolicy string

const (
	// MtimeKeep leaves them alone.
	MtimeKeep MtimePolicy = "keep"
	// MtimeClamp makes what is later than an epoch the epoch.
	MtimeClamp MtimePolicy = "clamp"
	// MtimeStable gives what has not changed since the build before the time that it had there.
	MtimeStable MtimePolicy = "stable"
)

// ParseMtimePolicy checks a policy's name; the empty one is MtimeKeep.
func ParseMtimePolicy(s string) (MtimePolicy, error) {
	switch p := MtimePolicy(s); p {
	case "":
		return MtimeKeep, nil
	case MtimeKeep, MtimeClamp, MtimeStable:
		return p, nil
	}
	return "", fmt.Errorf("unknown policy for times %q: use %s, %s or %s", s, MtimeKeep, MtimeClamp, MtimeStable)
}

// MtimeOptions are NormaliseMtimes'.
type MtimeOptions struct {
	Policy MtimePolicy // empty: MtimeKeep
	// Epoch is the latest time that a file may have; zero: any time. MtimeClamp must have it.
	Epoch time.Time
	// Previous is the tree of the build before, after its own times were normalised; nil: there is none.
	Previous *tree.Tree
	// Base is the tree of a base image whose layers stay as they are; nil: there is none.
	Base *tree.Tree
}

// directoryMtime is the time of directories. It has to be the same in every build: directories stand in many layers, each of
// which would change with them. It is 1970 since caches that are older than their directory count as stale (icons, fonts,
// man pages), so it must not be late, and since fontconfig takes a time of 0, the one that OSTree gives all files, for "not
// known" and believes a cache that has recorded another one. A time that zip can hold, from 1980 on, would lose that.
var directoryMtime = mtime{}

// NormaliseMtimes changes the times of a tree as a policy has it.
//
// But with MtimeKeep, all directories, the root too, get one constant: the beginning of 1970. So the rule that the root has
// the time of /usr, and /run that of the root, gives the constant again. Of what is no directory, with MtimeStable that
// which the build before has at the same path with the same content and metadata gets the time that it had there; any other
// that is later than Epoch gets Epoch.
//
// What a base has too keeps the base's time, with all policies: directories, and files that are equal, with MtimeStable even
// those of which only the time differs. So nothing that has not changed has to be put above it.
func NormaliseMtimes(t *tree.Tree, o MtimeOptions) error {
	policy, err := ParseMtimePolicy(string(o.Policy))
	switch {
	case err != nil:
		return err
	case policy == MtimeKeep:
		return nil
	case policy == MtimeClamp && o.Epoch.IsZero():
		return errors.New("no time to clamp to: set SOURCE_DATE_EPOCH, or use another policy")
	}
	m := &mtimes{t: t, stable: policy == MtimeStable, base: other{o.Base}, settled: make([]bool, t.Len())}
	if m.stable {
		m.previous = other{o.Previous}
	}
	if err := m.dir(tree.Root, m.base.root(), m.previous.root()); err != nil || o.Epoch.IsZero() {
		return err
	}
	return m.clamp(mtime{o.Epoch.Unix(), uint32(o.Epoch.Nanosecond())})
}

type mtimes struct {
	t              *tree.Tree
	stable         bool
	base, previous other
	settled        []bool // has the time that it is to have, by node
}

// dir settles the times of a directory and of what is below it. base and previous are what the other trees have at its path.
func (m *mtimes) dir(dir, base, previous tree.Node) error {
	at := directoryMtime
	if m.base.isDir(base) {
		at = mtimeOf(m.base.Tree, base)
	}
	m.settled[dir] = true
	if err := setMtime(m.t, dir, at); err != nil {
		return err
	}
	for e := range m.t.Entries(dir) {
		b, p := m.base.lookup(base, e.Name), m.previous.lookup(previous, e.Name)
		var err error
		if m.t.IsDir(e.Node) {
			err = m.dir(e.Node, b, p)
		} else if !m.settled[e.Node] {
			err = m.file(e.Node, b, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// file settles the time of anything else, if one of the other trees has the same.
func (m *mtimes) file(n, base, previous tree.Node) error {
	if m.base.equal(base, m.t, n) {
		m.settled[n] = true
		return nil
	}
	if !m.stable {
		return nil
	}
	for _, o := range []struct {
		other
		n tree.Node
	}{{m.base, base}, {m.previous, previous}} {
		if o.twins(o.n, m.t, n) {
			m.settled[n] = true
			return setMtime(m.t, n, mtimeOf(o.Tree, o.n))
		}
	}
	return nil
}

func (m *mtimes) clamp(epoch mtime) error {
	for n := range tree.Node(m.t.Len()) {
		if !m.settled[n] && mtimeOf(m.t, n).after(epoch) {
			if err := setMtime(m.t, n, epoch); err != nil {
				return err
			}
		}
	}
	return nil
}
