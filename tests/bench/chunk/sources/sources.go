// Package sources finds, for the benchmarks of package chunk, the source packages that a root tree is made of.
package sources

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/flatroot/flatroot/chunk/pkgdb"
)

// Source is a source package.
type Source struct {
	Name    string
	Paths   []string    // of regular files and symlinks, relative to the root; each has one owner
	Size    int64       // bytes of regular files, hard links once
	Tar     int64       // bytes that a tar has of Paths
	Changes []time.Time // days, oldest first, each once
}

type reader struct {
	root    *os.Root
	sources map[string]*Source
	counted map[inode]bool
}

type inode struct{ dev, ino uint64 }

// Read has the sources of a tree's packages by name, but for those without content. Of Debian's changelogs it takes uploads
// to unstable only, where all other suites' changes go sooner or later.
func Read(root *os.Root) ([]*Source, error) {
	found, err := pkgdb.Read(root.FS(), pkgdb.ReadOptions{})
	if err != nil {
		return nil, err
	}
	r := &reader{root: root, sources: map[string]*Source{}, counted: map[inode]bool{}}
	for _, d := range found {
		for _, p := range d.Packages {
			if err := r.add(d.Kind, p); err != nil {
				return nil, fmt.Errorf("package %s: %w", p.Name, err)
			}
		}
	}
	var all []*Source
	for _, s := range r.sources {
		slices.SortFunc(s.Changes, time.Time.Compare)
		s.Changes = slices.CompactFunc(s.Changes, time.Time.Equal)
		slices.Sort(s.Paths)
		if s.Size > 0 {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *Source) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func (r *reader) add(kind string, p pkgdb.Package) error {
	s := r.sources[p.Source]
	if s == nil {
		s = &Source{Name: p.Source}
		r.sources[p.Source] = s
	}
	for _, name := range p.Paths {
		if err := r.addPath(s, "."+name); err != nil {
			return err
		}
	}
	if kind != "dpkg" {
		for _, t := range p.Changes {
			s.Changes = append(s.Changes, t.UTC().Truncate(24*time.Hour))
		}
		return nil
	}
	for _, name := range p.Paths {
		dir, base := path.Split(name)
		if !strings.HasPrefix(dir, "/usr/share/doc/") || !strings.HasPrefix(base, "changelog") || path.Ext(base) != ".gz" {
			continue
		}
		days, err := uploads(r.root, "."+name)
		if err != nil {
			return err
		}
		s.Changes = append(s.Changes, days...)
	}
	return nil
}

// addPath counts what has not been counted yet. Symlinks to directories on the way, as to /usr, are followed.
func (r *reader) addPath(s *Source, name string) error {
	const block = 512 // bytes, of a tar
	info, err := r.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: no inode number", name)
	}
	at := inode{uint64(stat.Dev), stat.Ino}
	if r.counted[at] {
		return nil
	}
	r.counted[at] = true
	s.Paths = append(s.Paths, name)
	s.Tar += block
	if info.Mode().IsRegular() {
		s.Size += info.Size()
		s.Tar += (info.Size() + block - 1) / block * block
	}
	return nil
}

// Digest is that of a source's paths and their content, without times.
func (s *Source) Digest(root *os.Root) (string, error) {
	h := sha256.New()
	for _, name := range s.Paths {
		info, err := root.Lstat(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%q %v %d\n", name, info.Mode(), info.Size())
		if err := content(h, root, name, info); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

func content(w io.Writer, root *os.Root, name string, info fs.FileInfo) error {
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := root.Readlink(name)
		fmt.Fprintf(w, "%q\n", target)
		return err
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

var (
	title = regexp.MustCompile(`^\S+ \([^)]*\) ([^;]*);`)
	date  = regexp.MustCompile(`^ -- .*>  \w+, +(\d+ \w+ \d+)`)
)

// uploads are the days of a Debian changelog's entries that went to unstable. pkgdb doesn't tell suites.
func uploads(root *os.Root, name string) (days []time.Time, err error) {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // left out of the tree
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	suites := ""
	lines := bufio.NewReader(z)
	for err == nil {
		var line string
		line, err = lines.ReadString('\n')
		if m := title.FindStringSubmatch(line); m != nil {
			suites = m[1]
		}
		if m := date.FindStringSubmatch(line); m != nil {
			if day, err := time.Parse("2 Jan 2006", m[1]); err == nil && (strings.Contains(suites, "unstable") || suites == "sid") {
				days = append(days, day)
			}
			suites = ""
		}
	}
	if err != io.EOF {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return days, nil
}
