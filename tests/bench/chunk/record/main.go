// Command record makes a trace for tests/bench/chunk of a root tree: the source packages that its files come from, how much
// they have, and the days on which its changelogs say that they changed.
//
//	go run ./tests/bench/chunk/record -end DATE -about TEXT ROOT >tests/bench/chunk/testdata/NAME.json.gz
//
// What has no owner, and the package database, is left out: all ways to cut an image fetch these alike. Of Debian's packages
// only uploads to unstable count, since a trace is to be of an image that follows it, or its successor testing: so a tree of
// a stable release has its end where the freeze began.
package main

import (
	"bufio"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/flatroot/flatroot/chunk/pkgdb"
	"github.com/flatroot/flatroot/tests/bench/chunk/replay"
)

func main() {
	end := flag.String("end", "", "`date` of the last change that counts, as 2006-01-02")
	about := flag.String("about", "", "`text`: what the tree is")
	flag.Parse()
	if err := run(*end, *about, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

func run(end, about, dir string) error {
	t := &replay.Trace{About: about}
	var err error
	if t.End, err = time.Parse(time.DateOnly, end); err != nil {
		return fmt.Errorf("-end: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := record(root, t); err != nil {
		return err
	}
	return replay.WriteTrace(os.Stdout, t)
}

type recorder struct {
	root    *os.Root
	sources map[string]*replay.Component
	counted map[inode]bool
}

type inode struct{ dev, ino uint64 }

func record(root *os.Root, t *replay.Trace) error {
	found, err := pkgdb.Read(root.FS())
	if err != nil {
		return err
	}
	r := &recorder{root: root, sources: map[string]*replay.Component{}, counted: map[inode]bool{}}
	for _, d := range found {
		for _, p := range d.Packages {
			if err := r.add(d.Kind, p); err != nil {
				return fmt.Errorf("package %s: %w", p.Name, err)
			}
		}
	}
	for _, c := range r.sources {
		if c.Size > 0 {
			t.Components = append(t.Components, *c)
		}
	}
	return nil
}

func (r *recorder) add(kind string, p pkgdb.Package) error {
	c := r.sources[p.Source]
	if c == nil {
		c = &replay.Component{Name: p.Source}
		r.sources[p.Source] = c
	}
	changes, err := r.changes(kind, p)
	if err != nil {
		return err
	}
	c.Changes = append(c.Changes, changes...)
	for _, name := range p.Paths {
		n, err := r.size(name)
		if err != nil {
			return err
		}
		c.Size += n
	}
	return nil
}

// size is what a file has that has not been counted yet. Symlinks to directories on the way, as to /usr, are followed.
func (r *recorder) size(name string) (int64, error) {
	info, err := r.root.Lstat("." + name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	at := inode{}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		at = inode{uint64(s.Dev), s.Ino}
	}
	if r.counted[at] {
		return 0, nil
	}
	r.counted[at] = true
	return info.Size(), nil
}

// changes are the days of a package's changes.
func (r *recorder) changes(kind string, p pkgdb.Package) ([]time.Time, error) {
	if kind != "dpkg" {
		return days(p.Changes), nil
	}
	var all []time.Time
	for _, name := range p.Paths {
		if dir, base := path.Split(name); strings.HasPrefix(dir, "/usr/share/doc/") && strings.HasPrefix(base, "changelog") &&
			strings.HasSuffix(base, ".gz") {
			uploads, err := r.uploads(name)
			if err != nil {
				return nil, err
			}
			all = append(all, uploads...)
		}
	}
	return all, nil
}

func days(times []time.Time) []time.Time {
	var out []time.Time
	for _, t := range times {
		out = append(out, t.UTC().Truncate(24*time.Hour))
	}
	return out
}

var (
	title = regexp.MustCompile(`^\S+ \([^)]*\) ([^;]*);`)
	date  = regexp.MustCompile(`^ -- .*>  \w+, +(\d+ \w+ \d+)`)
)

// uploads are the days of a Debian changelog's entries, but for those of other suites. pkgdb doesn't tell suites.
func (r *recorder) uploads(name string) (all []time.Time, err error) {
	f, err := r.root.Open("." + name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // excluded from the tree, or a link to another package's
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	suites := ""
	lines := bufio.NewReader(z)
	for err == nil {
		var line string
		line, err = lines.ReadString('\n')
		if m := title.FindStringSubmatch(line); m != nil {
			suites = m[1]
		}
		if m := date.FindStringSubmatch(line); m != nil && (strings.Contains(suites, "unstable") || suites == "sid") {
			if day, err := time.Parse("2 Jan 2006", m[1]); err == nil {
				all = append(all, day)
			}
			suites = ""
		}
	}
	if err != io.EOF {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return all, nil
}
