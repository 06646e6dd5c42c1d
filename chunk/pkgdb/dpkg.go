package pkgdb

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// dpkg reads a database of dpkg, which are texts in a directory:
//
//	status           a stanza for each package, installed or not
//	status.d/NAME    in distroless images instead: a stanza of a package that is installed
//	info/NAME.list   the paths of a package, and other files about it; NAME:ARCH.list if several architectures can be there
//	diversions       three lines for each path that packages but one have under another name
//
// deb(5), dpkg(1) and dpkg-divert(1) tell of them, and lib/dpkg/{parse,db-fsys-files,db-fsys-divert}.c.
type dpkg struct {
	*tree
	Database
	dir      string
	info     map[string][]string // names of the files in info, by what is before their last dot
	diverted map[string]diversion
	seen     map[string]bool // names and architectures of status
}

// diversion says where a path of all packages but one is.
type diversion struct{ to, owner string }

// anyPackage in a diversion stands for none: the administrator has made it, and all packages' path is elsewhere.
const anyPackage = ":"

// control is a stanza, as far as it is of use.
type control struct {
	name, status, version, arch, source, multiArch string
	line                                           int // where it begins
}

// field is where the value of a field goes. It is nil for those that are skipped.
func (c *control) field(name []byte) *string {
	switch string(bytes.ToLower(name)) {
	case "package":
		return &c.name
	case "status":
		return &c.status
	case "version":
		return &c.version
	case "architecture":
		return &c.arch
	case "source":
		return &c.source
	case "multi-arch":
		return &c.multiArch
	}
	return nil
}

func readDpkg(t *tree, dir string) (*Database, error) {
	d := &dpkg{tree: t, Database: Database{Kind: "dpkg"}, dir: dir, seen: map[string]bool{}}
	one, err := d.readStatus()
	if err != nil {
		return nil, err
	}
	many, err := d.readStatusDir()
	if err != nil || !one && !many {
		return nil, err
	}
	return &d.Database, d.ownFiles()
}

// readStatus reads what dpkg itself has. It tells whether there is anything.
func (d *dpkg) readStatus() (bool, error) {
	name := path.Join(d.dir, "status")
	text, ok, err := d.readText(name, maxText)
	if err != nil || !ok {
		return false, err
	}
	if err := d.readDiversions(); err != nil {
		return false, err
	}
	if d.info, err = d.groups(path.Join(d.dir, "info"), func(string) bool { return true }); err != nil {
		return false, err
	}
	err = parseControl(text, func(c control) error {
		if !present(c.status) {
			return nil
		}
		return d.addInstalled(c)
	})
	return true, inFile(name, err)
}

// present tells whether the files of a package are in the tree, by its status: wanted state, flag, state. Of what is
// half-installed some may be. What has config-files left is removed.
func present(status string) bool {
	words := strings.Fields(status)
	if len(words) != 3 {
		return false // as dpkg has it: what doesn't say is not installed
	}
	switch words[2] {
	case "half-installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending", "installed":
		return true
	}
	return false
}

// groups lists the files of a directory by the package that they are about, which is what is before a suffix.
func (d *dpkg) groups(dir string, isSuffix func(string) bool) (map[string][]string, error) {
	names, err := d.names(dir)
	if err != nil {
		return nil, err
	}
	groups := map[string][]string{}
	for _, n := range names {
		base := n
		if dot := strings.LastIndexByte(n, '.'); dot > 0 && isSuffix(n[dot+1:]) {
			base = n[:dot]
		}
		groups[base] = append(groups[base], n)
	}
	return groups, nil
}

// infoSuffix tells whether a file in status.d is about a package, but not its stanza. Names of packages may have dots.
func infoSuffix(s string) bool {
	switch s {
	case "list", "md5sums", "conffiles", "preinst", "postinst", "prerm", "postrm", "config", "templates", "triggers", "symbols",
		"shlibs":
		return true
	}
	return false
}

// addInstalled adds a package of status, with the list of its files. If there is none, dpkg too takes it to have no files.
func (d *dpkg) addInstalled(c control) error {
	p, err := d.newPackage(c)
	if err != nil {
		return err
	}
	base, qualified := c.name, c.name+":"+c.arch
	if d.seen[qualified] {
		return fmt.Errorf("package %s is there twice", qualified)
	}
	d.seen[qualified] = true
	if len(d.info[qualified]) > 0 {
		base = qualified
	}
	about := d.info[base]
	delete(d.info, base) // it is of one package only
	if err := d.addPaths(p, path.Join(d.dir, "info"), base, about, ".list"); err != nil {
		return err
	}
	return d.add(*p)
}

// newPackage is what a stanza tells.
func (d *dpkg) newPackage(c control) (*Package, error) {
	if !plain(c.name) || c.arch != "" && !plain(c.arch) {
		return nil, fmt.Errorf("%.300q of architecture %.300q can't be the name of a package", c.name, c.arch)
	}
	source, _, _ := strings.Cut(c.source, " ")
	changes, err := d.debianChanges(c.name, c.arch)
	return &Package{Name: c.name, Version: c.version, Arch: c.arch, Source: source, Changes: changes}, err
}

// plain tells whether a name can be a part of those of files.
func plain(name string) bool {
	const longest = 200 // bytes; suffixes come behind it, and 255 are what file systems have
	odd := func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == ':' }
	return name != "" && len(name) <= longest && name[0] != '.' && strings.IndexFunc(name, odd) < 0
}

// addPaths adds the files about a package, and the paths that those of them list whose name ends in one of the suffixes.
func (d *dpkg) addPaths(p *Package, dir, base string, about []string, suffixes ...string) error {
	for _, n := range about {
		p.Paths = append(p.Paths, path.Join("/", dir, n))
	}
	for _, suffix := range suffixes {
		if !slices.Contains(about, base+suffix) {
			continue
		}
		if err := d.addListed(p, path.Join(dir, base+suffix), suffix); err != nil {
			return err
		}
	}
	return nil
}

func (d *dpkg) addListed(p *Package, name, suffix string) error {
	text, _, err := d.readText(name, maxText)
	if err != nil {
		return err
	}
	all := d.pathsOf(len(text))
	err = lines(text, func(_ int, line []byte) error {
		listed, err := listedPath(line, suffix)
		if err != nil {
			return err
		}
		clean, err := all.clean(string(listed))
		if to, ok := d.diverted[clean]; ok && to.owner != p.Name {
			clean = to.to
		}
		p.Paths = append(p.Paths, clean)
		return err
	})
	return inFile(name, err)
}

// md5Digits is how many hexadecimal digits begin a line of .md5sums. Two spaces and a path follow.
const md5Digits = 32

// listedPath is the path in a line: all of it in .list, behind a digest in .md5sums, perhaps behind a flag in .conffiles.
func listedPath(line []byte, suffix string) ([]byte, error) {
	switch suffix {
	case ".md5sums":
		if len(line) < md5Digits+2 || string(line[md5Digits:md5Digits+2]) != "  " {
			return nil, errors.New("no digest and path")
		}
		line = line[md5Digits+2:]
	case ".conffiles":
		line = bytes.TrimPrefix(line, []byte("remove-on-upgrade "))
	}
	if len(line) == 0 {
		return nil, errors.New("an empty path")
	}
	return line, nil
}

// readDiversions reads what dpkg-divert has noted: three lines each, which are the path, where it is instead, and which
// package has its own there nevertheless.
func (d *dpkg) readDiversions() error {
	name := path.Join(d.dir, "diversions")
	text, ok, err := d.readText(name, maxText)
	if err != nil || !ok {
		return err
	}
	d.diverted, err = parseDiversions(text, d.pathsOf(len(text)))
	return inFile(name, err)
}

func parseDiversions(text []byte, p *paths) (map[string]diversion, error) {
	diverted := map[string]diversion{}
	var pending []string
	count := 0
	err := lines(text, func(n int, line []byte) (err error) {
		count = n
		word := string(line)
		if len(pending) < 2 {
			if word, err = p.clean(word); err != nil {
				return err
			}
			pending = append(pending, word)
			return nil
		}
		if word == "" {
			return errors.New("no package that diverts")
		}
		if word == anyPackage {
			word = ""
		}
		diverted[pending[0]] = diversion{to: pending[1], owner: word}
		pending = pending[:0]
		return nil
	})
	if err == nil && len(pending) > 0 {
		err = fmt.Errorf("line %d: the diversion that ends here has less than three lines", count)
	}
	return diverted, err
}

// readStatusDir reads what distroless images have. It tells whether there is anything.
func (d *dpkg) readStatusDir() (bool, error) {
	dir := path.Join(d.dir, "status.d")
	groups, err := d.groups(dir, infoSuffix)
	if err != nil {
		return false, err
	}
	bases := make([]string, 0, len(groups))
	for base, about := range groups {
		if slices.Contains(about, base) {
			bases = append(bases, base)
		}
	}
	slices.Sort(bases)
	for _, base := range bases {
		if err := d.readStanza(dir, base, groups[base]); err != nil {
			return false, err
		}
	}
	return len(bases) > 0, nil
}

// readStanza reads a file of status.d and those beside it. It has the name of its package, or did so once in Base64.
func (d *dpkg) readStanza(dir, base string, about []string) error {
	name := path.Join(dir, base)
	text, _, err := d.readText(name, maxEntry)
	if err != nil {
		return err
	}
	err = parseControl(text, func(c control) error {
		if c.status != "" && !present(c.status) {
			return nil // most have no such field
		}
		p, err := d.newPackage(c)
		if err != nil {
			return err
		}
		if err := d.addPaths(p, dir, base, about, ".list", ".md5sums", ".conffiles"); err != nil {
			return err
		}
		about = nil // what is beside it is of one package
		return d.add(*p)
	})
	return inFile(name, err)
}

// ownFiles adds the files of the database that are about no package that is there.
func (d *dpkg) ownFiles() error {
	for _, sub := range []string{"", "triggers", "updates"} {
		files, err := d.absolute(path.Join(d.dir, sub))
		if err != nil {
			return err
		}
		d.Files = append(d.Files, files...)
	}
	for _, names := range d.info {
		for _, n := range names {
			d.Files = append(d.Files, path.Join("/", d.dir, "info", n))
		}
	}
	return nil
}

// parseControl calls yield for each stanza of a text. Errors name the line.
func parseControl(text []byte, yield func(c control) error) error {
	var c control
	flush := func() error {
		defer func() { c = control{} }()
		if c.line == 0 {
			return nil
		}
		if c.name == "" {
			return fmt.Errorf("the stanza from line %d on has no field Package", c.line)
		}
		if err := yield(c); err != nil {
			return fmt.Errorf("the stanza from line %d on: %w", c.line, err)
		}
		return nil
	}
	err := lines(text, func(n int, line []byte) error {
		if len(bytes.TrimSpace(line)) == 0 {
			return flush()
		}
		if line[0] == ' ' || line[0] == '\t' {
			return continues(c)
		}
		if c.line == 0 {
			c.line = n
		}
		return c.set(line)
	})
	if err != nil {
		return err
	}
	return flush()
}

// continues checks that a line which goes on with a field has one.
func continues(c control) error {
	if c.line == 0 {
		return errors.New("it goes on with a field where none begins")
	}
	return nil
}

// set reads a line with which a field begins.
func (c *control) set(line []byte) error {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return errors.New("no field, which is a name, a colon and a value")
	}
	to := c.field(name)
	if to == nil {
		return nil
	}
	if *to != "" {
		return fmt.Errorf("field %s is there twice", name)
	}
	*to = string(bytes.TrimSpace(value))
	return nil
}
