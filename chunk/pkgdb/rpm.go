package pkgdb

import (
	"fmt"
	"path"
)

// container is a format of a file that rpm keeps the headers of packages in. It calls yield for each of them, in any order,
// and only during the call is the header valid. Errors name the place.
type container func(t *tree, name string, f *file, yield func(header []byte) error) error

// readRpm reads a database of rpm, which is one file in a directory, with indexes beside it. If a system was converted, the
// file of the older format may have been left: the newest one counts, as it does for rpm itself (lib/backend/dbi.c).
func readRpm(t *tree, dir string) (*Database, error) {
	for _, format := range []struct {
		name string
		read container
	}{
		{"rpmdb.sqlite", readSQLite},
		{"Packages.db", readNdb},
		{"Packages", readBDB},
	} {
		name := path.Join(dir, format.name)
		d, err := readRpmFile(t, name, format.read)
		if err != nil {
			return nil, inFile(name, err)
		}
		if d != nil {
			d.Files, err = t.absolute(dir)
			return d, err
		}
	}
	return nil, nil
}

// readRpmFile reads a file of one of the formats. It is nil if there is none, or just an empty one.
func readRpmFile(t *tree, name string, read container) (*Database, error) {
	f, err := t.openFile(name)
	if err != nil || f == nil {
		return nil, err
	}
	defer f.close()
	if f.size == 0 {
		return nil, nil
	}
	d := &Database{Kind: "rpm"}
	err = read(t, name, f, func(header []byte) error {
		p, err := parseHeader(t, header)
		if err != nil || p.Name == "gpg-pubkey" { // a key that is trusted, no package
			return err
		}
		return d.add(*p)
	})
	return d, err
}

// claim takes n bytes off what a file still has. Since no two packages share any of its bytes, one that has too much of them
// in all is damaged, and would take more memory or time than it accounts for.
func claim(left *int64, n int64) error {
	if n < 0 || n > maxHeader {
		return fmt.Errorf("a header of %d bytes, of at most %d", n, int64(maxHeader))
	}
	if *left -= n; *left < 0 {
		return fmt.Errorf("a header of %d bytes: with it they have more in all than the file", n)
	}
	return nil
}
