package pkgdb

import (
	"errors"
	"io/fs"
	"path"
)

// readPacman reads the database of pacman, which is a directory with one for each package, that has these texts, and others:
//
//	desc   %NAME%, %VERSION%, %ARCH%, %BASE%, %BUILDDATE%: each a line, with its value on the next
//	files  %FILES%, and a path on each line that follows, up to an empty one
//
// lib/libalpm/be_local.c of pacman is what describes it.
func readPacman(t *tree, dir string) (*Database, error) {
	entries, err := fs.ReadDir(t.root, dir)
	if err != nil {
		if missing(err) {
			err = nil
		}
		return nil, err
	}
	d := &Database{Kind: "pacman"}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		p, err := readPacmanEntry(t, path.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if err := d.add(*p); err != nil {
			return nil, err
		}
	}
	d.Files, err = t.absolute(dir)
	return d, err
}

// readPacmanEntry reads the directory of a package.
func readPacmanEntry(t *tree, dir string) (*Package, error) {
	p := &Package{}
	for _, part := range []struct {
		name  string
		limit int64
		parse func(p *Package, text []byte, all *paths) error
	}{
		{"desc", maxEntry, parseDesc},
		{"files", maxText, parseFiles},
	} {
		name := path.Join(dir, part.name)
		text, _, err := t.readText(name, part.limit)
		if err != nil {
			return nil, err
		}
		if err := part.parse(p, text, t.pathsOf(len(text))); err != nil {
			return nil, inFile(name, err)
		}
	}
	about, err := t.absolute(dir)
	p.Paths = append(p.Paths, about...)
	return p, err
}

// sections calls yield for each line of a text that is not empty, with the title, in percent signs, that it is below.
func sections(text []byte, yield func(title, value string) error) error {
	title := ""
	return lines(text, func(_ int, line []byte) error {
		switch {
		case len(line) == 0:
			title = ""
			return nil
		case title != "":
			return yield(title, string(line))
		case len(line) > 2 && line[0] == '%' && line[len(line)-1] == '%':
			title = string(line)
			return nil
		}
		return errors.New("no title in percent signs")
	})
}

// parseDesc reads what a package is.
func parseDesc(p *Package, text []byte, _ *paths) error {
	err := sections(text, func(title, value string) error {
		switch title {
		case "%NAME%":
			p.Name = value
		case "%VERSION%":
			p.Version = value
		case "%ARCH%":
			p.Arch = value
		case "%BASE%":
			p.Source = value
		case "%BUILDDATE%":
			var err error
			p.Built, err = parseSeconds([]byte(value))
			return err
		}
		return nil
	})
	if err == nil && p.Name == "" {
		err = errors.New("no name of a package")
	}
	return err
}

// parseFiles reads what a package owns.
func parseFiles(p *Package, text []byte, all *paths) error {
	return sections(text, func(title, value string) error {
		if title != "%FILES%" {
			return nil
		}
		clean, err := all.clean(value)
		p.Paths = append(p.Paths, clean)
		return err
	})
}
