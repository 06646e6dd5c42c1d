package store

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// SetRef makes a ref, such as "oci/debian:13", name an entry that there is. It
// takes effect at once and as a whole, also where the ref named something else.
func (s *Store) SetRef(k Kind, ref, entry string) error {
	if err := s.setRef(k, ref, entry); err != nil {
		return s.linkError(k, refsDir+"/"+ref, err)
	}
	return nil
}

func (s *Store) setRef(k Kind, ref, entry string) error {
	names, err := splitPath(ref)
	if err := errors.Join(s.mayWrite(), err); err != nil {
		return err
	}
	if _, err := s.Entry(k, entry); err != nil {
		return err
	}
	last := len(names) - 1
	at, err := s.kindDir(k, append([]string{refsDir}, names[:last]...), true)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("a shorter ref is in its way: %w", err)
	}
	if err != nil {
		return err
	}
	defer at.close()
	// From the directory of the ref up to the category's.
	text := strings.Repeat("../", len(names)) + entry
	err = at.setLink(s.root, text, names[last])
	if errors.Is(err, unix.EISDIR) {
		return fmt.Errorf("longer refs begin with it: %w", err)
	}
	return err
}

// Ref returns the name of the entry that a ref names; ErrNotFound. Whether there is
// such an entry is not looked at.
func (s *Store) Ref(k Kind, ref string) (string, error) {
	entry, err := s.ref(k, ref)
	// A shorter ref in the place of a directory is one that is not there too.
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		err = ErrNotFound
	}
	if err != nil {
		return "", s.linkError(k, refsDir+"/"+ref, err)
	}
	return entry, nil
}

func (s *Store) ref(k Kind, ref string) (string, error) {
	names, err := splitPath(ref)
	if err != nil {
		return "", err
	}
	last := len(names) - 1
	at, err := s.kindDir(k, append([]string{refsDir}, names[:last]...), false)
	if err != nil {
		return "", err
	}
	defer at.close()
	return readRef(at, names[last])
}

// readRef takes the last component for the entry, as other tools do.
func readRef(at dir, name string) (string, error) {
	text, err := at.readlink(name)
	if err == unix.EINVAL {
		err = errNoLink
	}
	if err != nil {
		return "", err
	}
	entry := text[strings.LastIndexByte(text, '/')+1:]
	if err := checkEntryName(entry); err != nil {
		return "", fmt.Errorf("link to %.200q: %w", text, err)
	}
	return entry, nil
}

// RemoveRef removes a ref; ErrNotFound. What it named stays, as do directories.
func (s *Store) RemoveRef(k Kind, ref string) error {
	names, err := splitPath(ref)
	if err = errors.Join(s.mayWrite(), err); err == nil {
		last := len(names) - 1
		err = s.removeLink(k, append([]string{refsDir}, names[:last]...), names[last])
	}
	if err != nil {
		return s.linkError(k, refsDir+"/"+ref, err)
	}
	return nil
}

// RefInfo is one ref.
type RefInfo struct {
	Name  string // "oci/TAG"
	Entry string
}

// Refs yields the refs in the directory prefix, such as "oci", and below it, or all
// if it is empty; in byte order of their names. What is no good ref comes with its
// name and an error, and does not end it. Those that others make or remove meanwhile
// may come or not.
func (s *Store) Refs(k Kind, prefix string) iter.Seq2[RefInfo, error] {
	return func(yield func(RefInfo, error) bool) {
		names := []string{}
		if prefix = strings.Trim(prefix, "/"); prefix != "" {
			var err error
			if names, err = splitPath(prefix); err != nil {
				yield(RefInfo{}, s.linkError(k, refsDir+"/"+prefix, err))
				return
			}
		}
		s.walkRefs(k, names, yield)
	}
}

// walkRefs is false if yield was.
func (s *Store) walkRefs(k Kind, below []string, yield func(RefInfo, error) bool) bool {
	where := strings.Join(append([]string{refsDir}, below...), "/")
	if len(below) > maxDepth {
		return yield(RefInfo{Name: strings.Join(below, "/")}, s.linkError(k, where, errors.New("directories too deep")))
	}
	at, names, err := s.list(k, append([]string{refsDir}, below...))
	if err != nil {
		return yield(RefInfo{Name: strings.Join(below, "/")}, s.linkError(k, where, err))
	}
	defer at.close()
	for _, c := range refChildren(at, names) {
		path := append(slices.Clone(below), c.name)
		r := RefInfo{Name: strings.Join(path, "/")}
		err := checkName(c.name)
		if err == nil && c.dir {
			if !s.walkRefs(k, path, yield) {
				return false
			}
			continue
		}
		if err == nil {
			r.Entry, err = readRef(at, c.name)
			if err == unix.ENOENT {
				continue // somebody has removed it since its directory was listed
			}
		}
		if err != nil {
			err = s.linkError(k, refsDir+"/"+r.Name, err)
		}
		if !yield(r, err) {
			return false
		}
	}
	return true
}

type refChild struct {
	name string
	dir  bool
}

// refChildren sorts so that whole names come in byte order: a directory's go on
// with a slash.
func refChildren(at dir, names []string) []refChild {
	cs := make([]refChild, len(names))
	key := func(c refChild) string {
		if c.dir {
			return c.name + "/"
		}
		return c.name
	}
	for i, name := range names {
		st, err := at.lstat(name)
		cs[i] = refChild{name, err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR}
	}
	slices.SortFunc(cs, func(a, b refChild) int { return cmp.Compare(key(a), key(b)) })
	return cs
}

// EncodeTag makes the name of a tag one component of a ref: '/' becomes %2F and,
// so that it can be undone, '%' becomes %25. It refuses what can't be a tag: a
// leading '@' means a digest on command lines.
func EncodeTag(tag string) (string, error) {
	if strings.HasPrefix(tag, "@") {
		return "", fmt.Errorf("tag %.80q: %w: it begins with @", tag, errName)
	}
	enc := strings.NewReplacer("%", "%25", "/", "%2F").Replace(tag)
	if err := checkName(enc); err != nil {
		return "", fmt.Errorf("tag %.80q: %w", tag, err)
	}
	return enc, nil
}

// DecodeTag undoes EncodeTag. Other escapes stay as they are.
func DecodeTag(enc string) string {
	return strings.NewReplacer("%2F", "/", "%25", "%").Replace(enc)
}
