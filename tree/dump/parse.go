package dump

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

// Parse reads a dump. Errors of the input are a *SyntaxError; those of r are returned as they are.
func Parse(r io.Reader, o Options) (*tree.Tree, error) {
	p := parser{o: o, alg: o.Algorithm}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), lineMax)
	ended := true
	lines.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			return i + 1, data[:i:i], nil
		}
		if atEOF && len(data) > 0 {
			ended = false
			return len(data), data, nil
		}
		return 0, nil, nil
	})
	for lines.Scan() {
		p.line++
		if err := p.parseLine(lines.Bytes()); err != nil {
			return nil, p.fail(p.line, err)
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, p.fail(p.line+1, fmt.Errorf("line of more than %d bytes", lineMax))
	case err != nil:
		return nil, err
	case p.t == nil:
		return nil, p.fail(0, errors.New("no line, so no root directory"))
	case o.Strict && !ended:
		return nil, p.fail(p.line, errors.New("no newline at the end of the last line"))
	}
	return p.t, p.resolveLinks()
}

// parser is the state of one Parse.
type parser struct {
	o    Options
	alg  fsverity.Algorithm // 0 until a digest has shown it
	t    *tree.Tree         // nil until the root's line
	line int

	// The directory of the line before, and its path as it was written: most lines have their parent in common with it.
	dir     tree.Node
	dirPath []byte

	links  []link
	xattrs []tree.Xattr         // for reuse
	sets   map[string]tree.Node // text of extended attributes to a node that has them
}

func (p *parser) fail(line int, err error) error {
	return &SyntaxError{File: p.o.File, Line: line, Err: err}
}

// parseLine adds one line to the tree. It resolves escapes in place: line is not the same afterwards.
func (p *parser) parseLine(line []byte) error {
	if i := bytes.IndexByte(line, 0); i >= 0 {
		return fmt.Errorf(`NUL byte at column %d: write it as \x00`, i+1)
	}
	var f fields
	f.split(line)
	if err := f.need(fieldMode + 1); err != nil {
		return err
	}
	path, err := unescape(f.field[fieldPath])
	if err != nil {
		return fmt.Errorf("PATH: %w", err)
	}
	path = cutNUL(path)
	mode, isLink, err := f.mode()
	switch {
	case err != nil:
		return err
	case isLink:
		return p.addLink(path, mode, &f)
	}
	if err := f.need(fieldCount); err != nil {
		return err
	}
	a, err := f.attr(mode)
	if err != nil {
		return err
	}
	if p.o.Strict {
		if err := strict(&f, &a); err != nil {
			return err
		}
	}
	n, err := p.addNode(path, a)
	if err != nil {
		return err
	}
	if err := p.setData(n, &a, &f); err != nil {
		return err
	}
	return p.setXattrs(n, f.rest)
}

// addNode makes the node of a path. The root's makes the tree.
func (p *parser) addNode(path []byte, a tree.Attr) (tree.Node, error) {
	isRoot := string(path) == "/"
	isDir := a.Mode&tree.TypeMask == tree.Directory
	switch {
	case p.t == nil && !isRoot:
		return tree.None, fmt.Errorf("first path is %q: it must be the root, /", path)
	case p.t == nil && !isDir:
		return tree.None, errors.New("the root is no directory")
	case p.t == nil:
		alg := p.alg
		if alg == 0 {
			alg = fsverity.SHA256
		}
		p.t = tree.New(alg, a)
		return tree.Root, nil
	case isRoot:
		return tree.None, errors.New("a second root")
	}
	dir, name, err := p.parent(path)
	if err != nil {
		return tree.None, err
	}
	n, err := p.t.Add(dir, name, a)
	if err != nil {
		return tree.None, fmt.Errorf("add %q: %w", path, err)
	}
	return n, nil
}

// parent finds the directory that a path is in. What it leads to need not exist.
func (p *parser) parent(path []byte) (dir tree.Node, name []byte, err error) {
	slash := bytes.LastIndexByte(path, '/')
	if slash <= 0 {
		return tree.Root, path[slash+1:], nil
	}
	if head := path[:slash]; !bytes.Equal(head, p.dirPath) {
		dir, err := p.walk(head)
		if err != nil {
			return tree.None, nil, err
		}
		p.dir, p.dirPath = dir, append(p.dirPath[:0], head...)
	}
	return p.dir, path[slash+1:], nil
}

// walk finds a directory. Slashes may be doubled, and missing in front.
func (p *parser) walk(path []byte) (tree.Node, error) {
	dir := tree.Root
	for rest := path; len(rest) > 0; {
		var name []byte
		name, rest, _ = bytes.Cut(rest, []byte{'/'})
		if len(name) == 0 {
			continue
		}
		next, ok := p.t.Lookup(dir, name)
		switch {
		case !ok:
			return tree.None, fmt.Errorf("directory %q has no line before this one", path)
		case !p.t.IsDir(next):
			return tree.None, fmt.Errorf("%q: %w", path, tree.ErrNotDir)
		}
		dir = next
	}
	return dir, nil
}

func strict(f *fields, a *tree.Attr) error {
	isLink := a.Mode&tree.TypeMask == tree.Symlink
	isDevice := a.Mode&tree.TypeMask == tree.CharDevice || a.Mode&tree.TypeMask == tree.BlockDevice
	switch {
	case isLink && f.isSet(fieldContent):
		return errors.New("CONTENT of a symlink")
	case !isDevice && a.Rdev != 0:
		return errors.New("RDEV of what is no device")
	}
	return nil
}

// setData gives a node its target, content or object.
func (p *parser) setData(n tree.Node, a *tree.Attr, f *fields) error {
	content, err := f.content(a.Size)
	if err != nil {
		return err
	}
	digest, err := p.digest(f)
	if err != nil {
		return err
	}
	payload, err := f.text(fieldPayload)
	payload = cutNUL(payload)
	switch {
	case err != nil:
		return err
	case len(payload) > tree.TargetMax:
		return fmt.Errorf("PAYLOAD has %d bytes, at most %d are possible", len(payload), tree.TargetMax)
	}
	switch a.Mode & tree.TypeMask {
	case tree.Symlink:
		if p.o.Strict && a.Size != uint64(len(payload)) {
			return fmt.Errorf("SIZE is %d, but the symlink's target has %d bytes", a.Size, len(payload))
		}
		return p.t.SetTarget(n, payload)
	case tree.Regular:
		if len(content) > 0 {
			return p.t.SetContent(n, content)
		}
		return p.setObject(n, digest, payload, f)
	}
	return nil
}

// content reads inline content, whose length must be the size whatever the line's type is.
func (f *fields) content(size uint64) ([]byte, error) {
	b, err := f.text(fieldContent)
	switch {
	case err != nil || !f.isSet(fieldContent):
		return nil, err
	case len(b) > tree.ContentMax:
		return nil, fmt.Errorf("CONTENT has %d bytes, at most %d are possible", len(b), tree.ContentMax)
	case uint64(len(b)) != size:
		return nil, fmt.Errorf("CONTENT has %d bytes, but SIZE is %d", len(b), size)
	}
	return b, nil
}

func (p *parser) digest(f *fields) (d fsverity.Digest, err error) {
	text, err := f.text(fieldDigest)
	if err != nil || !f.isSet(fieldDigest) {
		return d, err
	}
	if err := d.UnmarshalText(text); err != nil {
		return d, fmt.Errorf("DIGEST: %w", err)
	}
	if p.alg != 0 && d.Algorithm() != p.alg {
		return d, fmt.Errorf("DIGEST is of %v, not of %v as the others", d.Algorithm(), p.alg)
	}
	return d, nil
}

// setObject gives a regular file its digest and object path. The first of them shows the tree's algorithm.
func (p *parser) setObject(n tree.Node, digest fsverity.Digest, payload []byte, f *fields) error {
	if p.alg == 0 {
		if err := p.detect(digest, payload); err != nil {
			return err
		}
	}
	if isPathOf(payload, f.field[fieldDigest]) {
		return p.t.SetObject(n, digest)
	}
	if err := p.t.SetDigest(n, digest); err != nil {
		return err
	}
	return p.t.SetPayload(n, payload)
}

// isPathOf tells whether a payload is the object path of the digest that the text is. False is no harm: it only means that
// the payload is looked at for itself, as it would be without this short cut for what nearly all lines have.
func isPathOf(payload, digest []byte) bool {
	if len(digest) < 4 || len(payload) != len(digest)+1 || payload[2] != '/' || !bytes.Equal(payload[3:], digest[2:]) {
		return false
	}
	for _, c := range digest {
		if c >= 'A' && c <= 'F' {
			return false
		}
	}
	return bytes.Equal(payload[:2], digest[:2])
}

func (p *parser) detect(digest fsverity.Digest, payload []byte) error {
	if digest.IsZero() {
		// What is no digest's path is the same payload under every algorithm: the next line may tell.
		digest, _ = fsverity.ParseObjectPath(payload)
	}
	if digest.IsZero() {
		return nil
	}
	p.alg = digest.Algorithm()
	return p.t.SetAlgorithm(p.alg)
}
