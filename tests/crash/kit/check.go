package kit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store/stream"
	"github.com/flatroot/flatroot/tree"
)

// State is what there is in a store.
type State struct {
	// Names has what each name leads to: the entry of a manifest and the digest of its image, or the digest alone.
	Names map[string]string
	// Problems are what makes the store a wrong one: names that lead nowhere, contents that are not what their names say.
	Problems []string
	// Leftovers are what does no harm, and what collecting garbage has to take away: temporary names, marks of work that was
	// not finished, and all that no name leads to.
	Leftovers []string
}

// Check reads everything in a store that nobody uses meanwhile. It takes the format from its description: that fsck and it
// come to the same answer is worth something, since they have only the reading of streams and images in common.
func Check(store string) (*State, error) {
	c := &checker{
		dir: store, State: State{Names: map[string]string{}},
		objects: map[fsverity.Digest]bool{}, streams: map[fsverity.Digest]*stream.Stream{}, live: map[fsverity.Digest]bool{},
	}
	if _, err := os.Stat(filepath.Join(store, "meta.json")); err != nil {
		return nil, err
	}
	for _, step := range []func() error{c.readObjects, c.readImages, c.readStreams, c.readImageRefs, c.readTags, c.findLeftovers} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return &c.State, nil
}

type checker struct {
	State
	dir     string
	objects map[fsverity.Digest]bool // all that there are
	streams map[fsverity.Digest]*stream.Stream
	live    map[fsverity.Digest]bool // objects that a name leads to
	entries []entry
}

// entry is one of streams/ or images/.
type entry struct {
	path   string // below the store
	object fsverity.Digest
}

func (c *checker) problem(format string, args ...any) {
	c.Problems = append(c.Problems, fmt.Sprintf(format, args...))
}

func (c *checker) objectPath(d fsverity.Digest) string {
	return filepath.Join(c.dir, "objects", d.ObjectPath())
}

// list reads a directory; one that is not there is empty.
func (c *checker) list(path string) ([]fs.DirEntry, error) {
	es, err := os.ReadDir(filepath.Join(c.dir, path))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return es, err
}

func (c *checker) readObjects() error {
	dirs, err := c.list("objects")
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if !d.IsDir() {
			continue // findLeftovers looks at it
		}
		files, err := c.list("objects/" + d.Name())
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := c.readObject(d.Name() + "/" + f.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) readObject(path string) error {
	d, err := fsverity.ParseObjectPath([]byte(path))
	if err != nil {
		c.problem("objects/%s: no name of an object", path)
		return nil
	}
	b, err := os.ReadFile(c.objectPath(d))
	if err != nil {
		return err
	}
	c.objects[d] = true
	if got := fsverity.Sum(d.Algorithm(), b); got != d {
		c.problem("objects/%s: %d bytes whose digest is %v", path, len(b), got)
	}
	return nil
}

// readEntries reads the links of streams/ or images/.
func (c *checker) readEntries(kind string, visit func(name string, object fsverity.Digest) error) error {
	es, err := c.list(kind)
	if err != nil {
		return err
	}
	for _, e := range es {
		if e.Name() == "refs" {
			continue
		}
		path := kind + "/" + e.Name()
		text, err := os.Readlink(filepath.Join(c.dir, path))
		if err != nil {
			c.problem("%s: %v", path, err)
			continue
		}
		object, err := fsverity.ParseObjectPath([]byte(strings.TrimPrefix(text, "../objects/")))
		if err != nil {
			c.problem("%s: leads to %s", path, text)
			continue
		}
		c.entries = append(c.entries, entry{path, object})
		if !c.has(path, object) {
			continue
		}
		if err := visit(e.Name(), object); err != nil {
			c.problem("%s: %v", path, err)
		}
	}
	return nil
}

// has complains if there is no such object.
func (c *checker) has(who string, d fsverity.Digest) bool {
	if !c.objects[d] {
		c.problem("%s: object %v, which it needs, is not there", who, d)
	}
	return c.objects[d]
}

func (c *checker) readImages() error {
	return c.readEntries("images", func(name string, d fsverity.Digest) error {
		if name != d.String() {
			return fmt.Errorf("leads to %v", d)
		}
		refs, err := c.imageRefs(d)
		for _, r := range refs {
			c.has("images/"+name, r)
		}
		return err
	})
}

// imageRefs are the objects that an image's files have as contents.
func (c *checker) imageRefs(d fsverity.Digest) ([]fsverity.Digest, error) {
	b, err := os.ReadFile(c.objectPath(d))
	if err != nil {
		return nil, err
	}
	m, err := erofs.OpenBytes(b)
	if err != nil {
		return nil, err
	}
	t, err := erofs.ReadTree(m, erofs.ReadOptions{Algorithm: d.Algorithm()})
	if err != nil {
		return nil, err
	}
	var refs []fsverity.Digest
	for n := range tree.Node(t.Len()) {
		if t.DigestID(n) >= 0 && len(t.Content(n)) == 0 {
			refs = append(refs, t.Digest(n))
		}
	}
	return refs, nil
}

func (c *checker) readStreams() error {
	return c.readEntries("streams", func(name string, d fsverity.Digest) error {
		st, err := c.stream(d)
		if err != nil {
			return err
		}
		return c.compareDigest(name, st)
	})
}

// stream reads a stream and whatever it leads to, once.
func (c *checker) stream(d fsverity.Digest) (*stream.Stream, error) {
	if st := c.streams[d]; st != nil {
		return st, nil
	}
	b, err := os.ReadFile(c.objectPath(d))
	if err != nil {
		return nil, err
	}
	st, err := stream.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	c.streams[d] = st
	who := "stream " + d.String()
	for _, o := range st.ObjectRefs() {
		c.has(who, o)
	}
	for _, r := range st.StreamRefs() {
		if !c.has(who, r) || c.isImage(r) {
			continue
		}
		if _, err := c.stream(r); err != nil {
			c.problem("%s, which %s needs: %v", r, who, err)
		}
	}
	return st, nil
}

// isImage tells images from streams: these begin with a magic number, those don't.
func (c *checker) isImage(d fsverity.Digest) bool {
	b, err := os.ReadFile(c.objectPath(d))
	return err == nil && !bytes.HasPrefix(b, []byte("SplitStream"))
}

// compareDigest puts together again what a stream was made of, and compares it with the digest in the entry's name.
func (c *checker) compareDigest(name string, st *stream.Stream) error {
	_, want, ok := strings.Cut(name, "-sha256:")
	if !ok {
		return errors.New("an entry of a kind that nothing here makes")
	}
	h := sha256.New()
	_, err := st.Copy(h, c.openObject)
	if got := hex.EncodeToString(h.Sum(nil)); err == nil && got != want {
		err = fmt.Errorf("gives back what has SHA-256 %s", got)
	}
	return err
}

func (c *checker) openObject(d fsverity.Digest) (stream.Object, error) {
	return os.Open(c.objectPath(d))
}

// readRefs visits the links below refs/ of a kind: names as users see them, and entries.
func (c *checker) readRefs(kind string, visit func(name, entry string)) error {
	root := filepath.Join(c.dir, kind, "refs")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.Readlink(path)
		if err != nil {
			return err
		}
		if fi, err := os.Stat(path); err != nil || !fi.Mode().IsRegular() {
			c.problem("%s: leads nowhere: %v", path, err)
			return nil
		}
		name := strings.NewReplacer("%2F", "/", "%25", "%").Replace(strings.TrimPrefix(path, root+"/"))
		visit(name, filepath.Base(text))
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return err
}

func (c *checker) readImageRefs() error {
	return c.readRefs("images", func(name, entry string) {
		c.Names[name] = entry
		if d, ok := c.entry("images/" + entry); ok {
			c.keepImage(d)
		}
	})
}

func (c *checker) entry(path string) (fsverity.Digest, bool) {
	i := slices.IndexFunc(c.entries, func(e entry) bool { return e.path == path })
	if i < 0 {
		c.problem("%s: not there, though a name leads to it", path)
		return fsverity.Digest{}, false
	}
	return c.entries[i].object, true
}

func (c *checker) readTags() error {
	return c.readRefs("streams", func(name, entry string) {
		d, ok := c.entry("streams/" + entry)
		if !ok {
			return
		}
		images := c.keepStream(d)
		c.Names[strings.TrimPrefix(name, "oci/")] = strings.Join(append([]string{entry}, images...), " ")
		if len(images) == 0 {
			c.problem("%s: its manifest leads to no image", name)
		}
	})
}

// keepStream marks all that a stream leads to as live, and returns the digests of the images among that.
func (c *checker) keepStream(d fsverity.Digest) (images []string) {
	st := c.streams[d]
	if st == nil {
		return nil // a problem of its own
	}
	c.live[d] = true
	for _, o := range st.ObjectRefs() {
		c.live[o] = true
	}
	for _, r := range st.StreamRefs() {
		if c.isImage(r) {
			c.keepImage(r)
			images = append(images, r.String())
		} else {
			images = append(images, c.keepStream(r)...)
		}
	}
	return images
}

func (c *checker) keepImage(d fsverity.Digest) {
	c.live[d] = true
	refs, err := c.imageRefs(d)
	if err != nil {
		c.problem("image %v: %v", d, err)
	}
	for _, r := range refs {
		c.live[r] = true
	}
}

// unfinished tells whether a path is in a directory whose names say that something is still to be done.
func unfinished(path string) bool {
	return slices.ContainsFunc([]string{"dead", "unclean", "quarantine", "bad", "partial"}, func(dir string) bool {
		return strings.HasPrefix(path, "flatroot/"+dir+"/")
	})
}

func (c *checker) findLeftovers() error {
	for d := range c.objects {
		if !c.live[d] {
			c.leftover("objects/" + d.ObjectPath())
		}
	}
	for _, e := range c.entries {
		if !c.live[e.object] {
			c.leftover(e.path)
		}
	}
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		rel := strings.TrimPrefix(path, c.dir+"/")
		if err == nil && path != c.dir && (strings.HasPrefix(d.Name(), ".") || unfinished(rel) && !d.IsDir()) {
			c.leftover(rel)
		}
		return err
	})
	slices.Sort(c.Leftovers)
	return err
}

func (c *checker) leftover(path string) { c.Leftovers = append(c.Leftovers, path) }
