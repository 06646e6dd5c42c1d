package pkgdb

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
)

const (
	// maxChangelog bounds, in bytes, a changelog as stored, and maxExpanded how much of it is read. Long ones have 3 MB and
	// expand to 11. They begin with what is newest.
	maxChangelog = 16 << 20
	maxExpanded  = 16 << 20
	// maxChangelogs bounds, in bytes, what all changelogs of a tree expand to: twenty times what a machine with 770 packages
	// has. It takes some ten seconds to expand that, as a bomb would have it.
	maxChangelogs = 4 << 30
	// maxChangelogLine is how long a line can be that is looked at. Dates and titles have some 100 bytes.
	maxChangelogLine = 16 << 10
)

// debianChanges are the dates of a Debian package's changelog: its own if it is packaged apart from upstream, which is called
// changelog.Debian then, else the only one; and that of rebuilds for one architecture. There may be none, as in images that
// have no documentation.
func (t *tree) debianChanges(name, arch string) ([]time.Time, error) {
	dir := path.Join("usr/share/doc", name)
	var dates []time.Time
	for _, n := range []string{"changelog.Debian.gz", "changelog.Debian", "changelog.gz", "changelog"} {
		found, ok, err := t.changelog(path.Join(dir, n))
		if err != nil {
			return nil, err
		}
		if ok {
			dates = found
			break
		}
	}
	rebuilds, _, err := t.changelog(path.Join(dir, "changelog.Debian."+arch+".gz"))
	return append(dates, rebuilds...), err
}

// changelog reads a file that may be a changelog. ok: there is one. It is no part of a database: what can't be understood of
// it, or can't be expanded, is left out.
func (t *tree) changelog(name string) (dates []time.Time, ok bool, err error) {
	text, ok, err := t.readText(name, maxChangelog)
	if errors.Is(err, errNotRegular) || errors.Is(err, errTooLong) {
		return nil, false, nil
	}
	if err != nil || !ok {
		return nil, false, err
	}
	in := io.Reader(bytes.NewReader(text))
	if strings.HasSuffix(name, ".gz") {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, true, nil
		}
		in = z
	}
	counted := &io.LimitedReader{R: in, N: maxExpanded}
	dates = parseChangelog(counted)
	if t.changelogs -= maxExpanded - counted.N; t.changelogs < 0 {
		return nil, false, fmt.Errorf("%s: the changelogs of all packages expand to more than %d bytes", name, int64(maxChangelogs))
	}
	return dates, true, nil
}

// parseChangelog are the dates of a changelog as deb-changelog(5) has them, in its order, up to what can't be read:
//
//	NAME (VERSION) SUITES; urgency=medium
//
//	  * Text.
//
//	 -- NAME <ADDRESS>  Mon, 02 Jan 2006 15:04:05 -0700
//
// What goes to UNRELEASED is no upload, and what goes to experimental comes into no other suite: when that gets the changes, there
// is an entry for it.
func parseChangelog(in io.Reader) []time.Time {
	var dates []time.Time
	released := false
	for r := bufio.NewReaderSize(in, maxChangelogLine); len(dates) < maxChanges; {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue // the rest will be no title or date either
		case bytes.HasPrefix(line, []byte(" -- ")):
			if date, ok := trailerDate(string(line)); ok && released {
				dates = append(dates, date)
			}
			released = false
		case len(line) > 0 && line[0] > ' ':
			if suites, ok := titleSuites(string(line)); ok {
				released = inSuite(suites)
			}
		}
		if err != nil {
			break
		}
	}
	return dates
}

// titleSuites are the suites of an entry, by its title.
func titleSuites(line string) (string, bool) {
	_, rest, ok := strings.Cut(line, " (")
	if !ok {
		return "", false
	}
	if _, rest, ok = strings.Cut(rest, ") "); !ok {
		return "", false
	}
	suites, _, ok := strings.Cut(rest, ";")
	return suites, ok
}

// inSuite tells whether an upload to these suites comes into one that trees are made of.
func inSuite(suites string) bool {
	words := strings.Fields(suites)
	return !slices.Contains(words, "UNRELEASED") && !slices.Equal(words, []string{"experimental"})
}

// trailerDate is the date of an entry. Old ones have single digits, two spaces, or a comment behind.
func trailerDate(line string) (time.Time, bool) {
	words := strings.Fields(line[strings.LastIndexByte(line, '>')+1:])
	if len(words) > 0 && strings.HasSuffix(words[0], ",") {
		words = words[1:] // the day of the week, which is wrong at times
	}
	const parts = 5
	if len(words) < parts {
		return time.Time{}, false
	}
	date, err := time.Parse("2 Jan 2006 15:04:05 -0700", strings.Join(words[:parts], " "))
	return date.UTC(), err == nil
}
