// Package pkgdb reads the package databases of a root tree: those of dpkg, rpm, apk and pacman. It needs neither their
// programs nor their libraries, and nothing is run or written.
//
// A database is of use here for one thing, to tell what changes together and how often: which paths a package owns, what it
// was built from, and when it changed. The rest of what databases have is skipped, and not checked.
//
// Databases are as hostile as the image that they are in. Whatever they say, the memory that they take is bounded, by what
// they are long themselves where a bound of that kind is possible, and a damaged one is an error that names the file and the
// line, row or page. Dates alone are no reason for one: a changelog is a document for people, and gives what it can.
package pkgdb

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// Package is one that a database lists as installed, be it in part.
type Package struct {
	Name, Version, Arch string
	// Source is what it was built from: dpkg's Source, rpm's SOURCERPM and apk's origin without versions, pacman's base. A
	// database that doesn't say means the package itself, so that it is never empty.
	Source string
	// Built is when it was built. Zero: not known, as always with dpkg.
	Built time.Time
	// Changes are the dates of its changelog, newest first, each once, at most 1000 of them. dpkg and rpm have some.
	Changes []time.Time
	// Paths are what it owns: absolute, cleaned, sorted, each once. They are as the database has them, so that a directory in
	// one may be a symlink in the tree, and may be missing there. Directories may be among them, "/" too. Those files of the
	// database that are about this package alone are among them as well: they change when it does.
	Paths []string
}

// Database is one that a tree has.
type Database struct {
	Kind     string    // "dpkg", "rpm", "apk" or "pacman"
	Packages []Package // by name, architecture and version
	// Files are the database's own: absolute, sorted. They change whenever any package does. There may be none: each package
	// may have files of its own.
	Files []string
}

const (
	// maxPackages bounds the packages of a database. All of Debian are about 65,000 for an architecture.
	maxPackages = 1 << 17
	// maxChanges bounds the dates of a package. Long changelogs of Debian have 700 entries, and those of rpm more than a thousand,
	// back to the nineties; a rate of change comes from those of the last years.
	maxChanges = 1000
)

// places are where databases are, in the order in which they are read.
func places() []place {
	return []place{
		{"dpkg", "var/lib/dpkg", readDpkg},
		{"rpm", "usr/lib/sysimage/rpm", readRpm},
		{"rpm", "usr/share/rpm", readRpm},                       // of ostree
		{"rpm", "usr/lib/sysimage/rpm-ostree-base-db", readRpm}, // a copy, before packages were added
		{"rpm", "var/lib/rpm", readRpm},
		{"apk", "usr/lib/apk/db", readApk},
		{"apk", "lib/apk/db", readApk},
		{"pacman", "var/lib/pacman/local", readPacman},
	}
}

// place is a directory in which a database may be.
type place struct {
	kind, dir string
	read      func(t *tree, dir string) (*Database, error)
}

// Kinds lists what Database.Kind may be.
func Kinds() (kinds []string) {
	for _, p := range places() {
		kinds = append(kinds, p.kind)
	}
	return slices.Compact(kinds)
}

// ReadOptions are Read's.
type ReadOptions struct {
	// Without lists kinds whose databases are not read, as if they were not there.
	Without []string
}

// Error tells which database could not be read, or makes no sense.
type Error struct {
	Kind string // one of Kinds
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("package database of %s: %v", e.Kind, e.Err) }

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// Read finds all databases of a tree and reads them. A tree without one gives none. A database that can be found by two
// names, by way of symlinks, hard links or copies, is one. What goes wrong is an Error.
//
// Symlinks are followed by root, which has to do so within the tree. One that os.DirFS gives serves for a tree that has no
// absolute symlinks on the way to databases and documentation. Its files are read in place if they have ReadAt.
func Read(root fs.FS, o ReadOptions) ([]Database, error) {
	t := newTree(root)
	var found []Database
	for _, p := range places() {
		if slices.Contains(o.Without, p.kind) {
			continue
		}
		d, err := p.read(t, p.dir)
		if err != nil {
			return nil, &Error{p.kind, err}
		}
		if d != nil {
			d.sort()
			found = join(found, d)
		}
	}
	return found, nil
}

// join adds a database to those found, or its files to the one that has the same packages.
func join(found []Database, d *Database) []Database {
	for i := range found {
		f := &found[i]
		if f.Kind == d.Kind && slices.EqualFunc(f.Packages, d.Packages, samePackage) {
			f.Files = append(f.Files, d.Files...)
			slices.Sort(f.Files)
			return found
		}
	}
	return append(found, *d)
}

func samePackage(a, b Package) bool {
	return comparePackages(a, b) == 0 && a.Built.Equal(b.Built) && slices.Equal(a.Paths, b.Paths)
}

func comparePackages(a, b Package) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Version, b.Version))
}

// sort brings a database as its file had it into the order that is promised.
func (d *Database) sort() {
	for i := range d.Packages {
		p := &d.Packages[i]
		p.Source = cmp.Or(p.Source, p.Name)
		p.Changes = newest(p.Changes)
		slices.Sort(p.Paths)
		p.Paths = slices.Compact(p.Paths)
	}
	slices.SortStableFunc(d.Packages, comparePackages)
	slices.Sort(d.Files)
}

// add adds a package that a database lists.
func (d *Database) add(p Package) error {
	if p.Name == "" {
		return errors.New("a package without a name")
	}
	if len(d.Packages) == maxPackages {
		return fmt.Errorf("more than %d packages", maxPackages)
	}
	d.Packages = append(d.Packages, p)
	return nil
}

// newest sorts dates and leaves out what is there twice, and the oldest if there are too many.
func newest(dates []time.Time) []time.Time {
	slices.SortFunc(dates, func(a, b time.Time) int { return b.Compare(a) })
	dates = slices.CompactFunc(dates, time.Time.Equal)
	return dates[:min(len(dates), maxChanges)]
}
