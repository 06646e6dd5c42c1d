package pkgdb

import (
	"bytes"
	"errors"
	"fmt"
	"path"
)

// apkState is where the reading of apk's database is. The text "installed" has a stanza for each package, of lines that are a
// letter, a colon and a value:
//
//	P:NAME  V:VERSION  A:ARCH  o:ORIGIN  t:BUILT, in seconds since 1970
//	F:DIRECTORY, and then for each file in it R:NAME, both with more lines about them
//
// apk-db(5), or src/database.c of apk-tools, tell of it.
type apkState struct {
	*Database
	paths *paths
	pkg   Package
	dir   string
	some  bool // a stanza has begun
}

func readApk(t *tree, dir string) (*Database, error) {
	name := path.Join(dir, "installed")
	text, ok, err := t.readText(name, maxText)
	if err != nil || !ok {
		return nil, err
	}
	d, err := parseApk(text, t.pathsOf(len(text)))
	if err != nil {
		return nil, inFile(name, err)
	}
	d.Files, err = t.absolute(dir)
	return d, err
}

func parseApk(text []byte, p *paths) (*Database, error) {
	s := &apkState{Database: &Database{Kind: "apk"}, paths: p}
	err := lines(text, func(_ int, line []byte) error {
		if len(line) == 0 {
			return s.flush()
		}
		s.some = true
		return s.line(line)
	})
	if err != nil {
		return nil, err
	}
	if err := s.flush(); err != nil {
		return nil, fmt.Errorf("the last stanza: %w", err)
	}
	return s.Database, nil
}

// flush adds the package whose stanza ends.
func (s *apkState) flush() error {
	if !s.some {
		return nil
	}
	err := s.add(s.pkg)
	s.pkg, s.dir, s.some = Package{}, "", false
	return err
}

func (s *apkState) line(line []byte) error {
	key, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(key) != 1 {
		return errors.New("no letter, colon and value")
	}
	switch key[0] {
	case 'P':
		s.pkg.Name = string(value)
	case 'V':
		s.pkg.Version = string(value)
	case 'A':
		s.pkg.Arch = string(value)
	case 'o':
		s.pkg.Source = string(value)
	case 't':
		var err error
		s.pkg.Built, err = parseSeconds(value)
		return err
	case 'F':
		s.dir = string(value)
		return s.path(s.dir)
	case 'R':
		return s.path(s.dir + "/" + string(value))
	}
	return nil
}

// path adds a path of the package.
func (s *apkState) path(name string) error {
	clean, err := s.paths.clean(name)
	s.pkg.Paths = append(s.pkg.Paths, clean)
	return err
}
