package fsck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// graph is what the store's refs and entries lead to.
type graph struct {
	refs    map[store.Kind][]store.RefInfo
	entries map[store.Kind]map[string]fsverity.Digest
	streams map[fsverity.Digest]*streamNode
	images  map[fsverity.Digest]*imageNode
	order   []*streamNode // in the order in which they were found
	names   []namedImage
	nameAt  map[string]int       // of names, while they are collected
	live    map[*streamNode]bool // what refs lead to
	jobs    []job                // what is left to do about layers
	remakes []job                // and about images; one after the other, since a tree takes memory
}

// streamNode is a stream. One that can't be read has nothing but its ID.
type streamNode struct {
	id    fsverity.Digest
	names []string // entries; none: others refer to it by its ID alone
	kind  stream.ContentType
	refs  []stream.NamedRef
	check store.ObjectCheck
	err   error // why it can't be read
	// wrong: it can be read, but does not hold what it should.
	wrong bool
}

// good tells whether a stream's references can be relied on.
func (n *streamNode) good() bool { return n.err == nil && damage(n.check) == nil }

func (n *streamNode) subject() string {
	if len(n.names) == 0 {
		return "objects/" + n.id.ObjectPath()
	}
	return string(store.Streams) + "/" + n.names[0]
}

// promises are the digests that entries of this prefix promise.
func (n *streamNode) promises(prefix string) (ds []string) {
	for _, name := range n.names {
		if d, ok := strings.CutPrefix(name, prefix); ok {
			ds = append(ds, d)
		}
	}
	return ds
}

// original is the first of them. Where there are more, at most one is kept.
func (n *streamNode) original(prefix string) (string, bool) {
	if ds := n.promises(prefix); len(ds) > 0 {
		return ds[0], true
	}
	return "", false
}

// imageNode is an EROFS image.
type imageNode struct {
	id      fsverity.Digest
	entry   bool
	configs []imageUse // that refer to it
	rooted  bool       // by images/refs
	live    bool       // by a mount
	bad     bool
}

// imageUse is a config's reference to an image.
type imageUse struct {
	config *streamNode
	key    string
}

// namedImage is an image, or all of an image index, by a name that people know.
type namedImage struct {
	name      string
	documents []*streamNode // manifest and image index; none: it has none
	image     *imageNode    // nil: it is the one of its config
}

// readCatalogue builds the graph and checks what it is made of. Others may write
// meanwhile, so that what is wrong at first is looked at once more, in peace.
func (c *checker) readCatalogue(ctx context.Context) error {
	c.Progress.Step("check names, streams and documents")
	before := len(c.problems)
	if err := c.buildGraph(ctx); err != nil {
		return err
	}
	if len(c.problems) == before {
		return nil
	}
	unlock, err := c.s.LockEntries(ctx)
	switch {
	case err == nil:
		defer unlock()
	case !errors.Is(err, store.ErrReadOnly):
		return err
	}
	c.forget(before)
	return c.buildGraph(ctx)
}

// forget drops the problems from this one on, but for those of objects that were read: that isn't done twice.
func (c *checker) forget(from int) {
	kept := slices.DeleteFunc(c.problems[from:], func(p *Problem) bool {
		return !slices.Contains([]Code{ObjectDamaged, UnusedDamaged, ObjectUnsealed, ModeOdd, OwnerOdd}, p.Code)
	})
	c.problems = c.problems[:from+len(kept)]
	clear(c.bad)
	for _, p := range kept {
		if p.Code == ObjectDamaged || p.Code == UnusedDamaged {
			c.bad[p.object] = p
		}
	}
}

func (c *checker) buildGraph(ctx context.Context) error {
	c.graph = &graph{
		refs: map[store.Kind][]store.RefInfo{}, entries: map[store.Kind]map[string]fsverity.Digest{},
		streams: map[fsverity.Digest]*streamNode{}, images: map[fsverity.Digest]*imageNode{},
		live: map[*streamNode]bool{}, nameAt: map[string]int{},
	}
	// Refs before entries: what a ref names is there before it.
	for _, k := range []store.Kind{store.Streams, store.Images} {
		c.readRefs(k)
	}
	for _, k := range []store.Kind{store.Streams, store.Images} {
		c.readEntries(k)
	}
	c.checkEntries()
	c.checkRefs()
	c.loadStreams()
	c.loadImages()
	selected, err := c.selected()
	if err != nil {
		return err
	}
	for _, n := range c.graph.order {
		if err := ctx.Err(); err != nil {
			return err
		}
		if selected.stream(n) {
			c.checkStream(n)
		}
	}
	for _, i := range c.graph.sortedImages() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if selected.image(i) {
			c.checkImage(i)
		}
	}
	return nil
}

func (g *graph) sortedImages() []*imageNode {
	list := make([]*imageNode, 0, len(g.images))
	for _, i := range g.images {
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b *imageNode) int { return a.id.Compare(b.id) })
	return list
}

// below is a path in the store as a problem's subject, from an error's.
func (c *checker) below(err error, otherwise string) string {
	var link *store.LinkError
	if errors.As(err, &link) {
		return strings.TrimPrefix(link.Path, c.s.Dir()+"/")
	}
	return otherwise
}

// reason is an error without the path that the subject says already.
func reason(err error) error {
	var link *store.LinkError
	var object *store.ObjectError
	switch {
	case errors.As(err, &link):
		return link.Err
	case errors.As(err, &object):
		return object.Err
	}
	return err
}

func (c *checker) readRefs(k store.Kind) {
	for r, err := range c.s.Refs(k, "") {
		if err != nil {
			c.problem(RefBad, c.below(err, string(k)+"/refs/"+r.Name), reason(err))
			continue
		}
		c.graph.refs[k] = append(c.graph.refs[k], r)
	}
}

func (c *checker) readEntries(k store.Kind) {
	all := map[string]fsverity.Digest{}
	c.graph.entries[k] = all
	for e, err := range c.s.Entries(k) {
		if err != nil {
			c.problem(EntryBad, c.below(err, string(k)+"/"+e.Name), reason(err))
			continue
		}
		if k == store.Images && e.Name != e.Digest.String() {
			c.problem(EntryBad, string(k)+"/"+e.Name, fmt.Errorf("it leads to another image, %s", e.Digest))
			continue
		}
		all[e.Name] = e.Digest
	}
}

// checkEntries looks for the objects that entries lead to. If only some images are checked, these find what they miss.
func (c *checker) checkEntries() {
	if len(c.Names) > 0 {
		return
	}
	for k, entries := range c.graph.entries {
		for _, name := range sortedKeys(entries) {
			d := entries[name]
			if has, err := c.s.HasObject(d); c.has(d) || has || err != nil {
				continue
			}
			c.addBad(&Problem{
				Code: EntryDangling, Subject: string(k) + "/" + name, Err: fmt.Errorf("its object %s is not there", d), object: d,
			})
		}
	}
}

// checkRefs looks for the entries that refs name, and learns the images' names.
func (c *checker) checkRefs() {
	for k, refs := range c.graph.refs {
		for _, r := range refs {
			if _, ok := c.graph.entries[k][r.Entry]; !ok {
				p := &Problem{
					Code: RefDangling, Subject: string(k) + "/refs/" + r.Name, entry: r.Entry,
					Err: fmt.Errorf("there is no good entry %s/%s", k, r.Entry),
				}
				if name, ok := index.NameOfRef(k, r.Name); ok {
					p.Images = []Hit{{Name: name, Paths: []string{}}}
				}
				c.add(p)
			}
		}
	}
}

// loadStreams reads what all streams refer to, from the entries on.
func (c *checker) loadStreams() {
	g := c.graph
	entries := g.entries[store.Streams]
	for _, name := range sortedKeys(entries) {
		id := entries[name]
		if n := g.streams[id]; n != nil {
			n.names = append(n.names, name)
			continue
		}
		g.streams[id] = &streamNode{id: id, names: []string{name}}
		g.order = append(g.order, g.streams[id])
	}
	for i := 0; i < len(g.order); i++ { // it grows
		c.loadStream(g.order[i])
	}
	for _, r := range g.refs[store.Streams] {
		n := g.streams[entries[r.Entry]]
		if n == nil {
			continue
		}
		if name, ok := index.NameOfRef(store.Streams, r.Name); ok {
			named := g.named(name)
			named.documents = append(named.documents, n)
		}
		cl := &closure{g.live, map[*imageNode]bool{}}
		cl.addStream(g, n)
	}
}

// loadStream reads and hashes a stream, and learns what it refers to by name. What is wrong is said only if the stream is
// going to be checked.
func (c *checker) loadStream(n *streamNode) {
	o := store.CheckOptions{Read: c.due(n.id), Throttle: c.limit.wait, Use: func(f *os.File, size int64) error {
		st, err := stream.Open(f, size)
		if err == nil {
			n.kind = st.Type()
			n.refs, err = st.NamedRefs()
		}
		return err
	}}
	if n.check, n.err = c.s.CheckObject(n.id, o); !n.good() || c.isBad(n.id) {
		n.refs = nil
		return
	}
	for _, r := range n.refs {
		if index.IsImageName(r.Name) {
			i := c.graph.image(r.ID)
			i.configs = append(i.configs, imageUse{n, r.Name})
			continue
		}
		c.follow(r)
	}
}

// follow takes in a stream that no entry leads to. Of a named ref of an unknown kind
// it is known to be one only by its content.
func (c *checker) follow(r stream.NamedRef) {
	if c.graph.streams[r.ID] != nil {
		return
	}
	if !isStreamName(r.Name) && !c.looksLikeStream(r.ID) {
		return
	}
	c.graph.streams[r.ID] = &streamNode{id: r.ID}
	c.graph.order = append(c.graph.order, c.graph.streams[r.ID])
}

// isStreamName: configs and blobs that are kept are named by manifests, layers by configs too, manifests by image indexes.
func isStreamName(name string) bool {
	return slices.ContainsFunc([]string{stream.ConfigPrefix, "sha256:", blobPrefix, manifestPrefix}, func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
}

func (c *checker) looksLikeStream(d fsverity.Digest) bool {
	_, err := c.s.CheckObject(d, store.CheckOptions{Use: func(f *os.File, size int64) error {
		_, err := stream.Open(f, size)
		return err
	}})
	return err == nil
}

func (g *graph) image(d fsverity.Digest) *imageNode {
	if g.images[d] == nil {
		g.images[d] = &imageNode{id: d}
	}
	return g.images[d]
}

// livePrefix begins the refs of images that are mounted.
const livePrefix = "flatroot/live/"

func (c *checker) loadImages() {
	g := c.graph
	for _, d := range g.entries[store.Images] {
		g.image(d).entry = true
	}
	for _, r := range g.refs[store.Images] {
		d, ok := g.entries[store.Images][r.Entry]
		if !ok {
			continue
		}
		i := g.image(d)
		i.rooted = true
		i.live = i.live || strings.HasPrefix(r.Name, livePrefix)
		if name, ok := index.NameOfRef(store.Images, r.Name); ok {
			g.named(name).image = i // it goes before the one of a tag's config
		}
	}
	slices.SortFunc(g.names, func(a, b namedImage) int { return strings.Compare(a.name, b.name) })
}

// named is what is known by a name.
func (g *graph) named(name string) *namedImage {
	at, known := g.nameAt[name]
	if !known {
		at = len(g.names)
		g.nameAt[name] = at
		g.names = append(g.names, namedImage{name: name})
	}
	return &g.names[at]
}

// closure is what belongs to a named image.
type closure struct {
	streams map[*streamNode]bool
	images  map[*imageNode]bool
}

func (g *graph) closure(n namedImage) *closure {
	cl := &closure{map[*streamNode]bool{}, map[*imageNode]bool{}}
	for _, d := range n.documents {
		cl.addStream(g, d)
	}
	if n.image != nil {
		cl.images[n.image] = true
	}
	return cl
}

func (cl *closure) addStream(g *graph, n *streamNode) {
	if cl.streams[n] {
		return
	}
	cl.streams[n] = true
	for _, r := range n.refs {
		if index.IsImageName(r.Name) {
			cl.images[g.images[r.ID]] = true
		} else if to := g.streams[r.ID]; to != nil {
			cl.addStream(g, to)
		}
	}
}

// selection is what is to be checked; nil: all.
type selection struct{ closures []*closure }

func (s *selection) stream(n *streamNode) bool {
	return s == nil || slices.ContainsFunc(s.closures, func(c *closure) bool { return c.streams[n] })
}

func (s *selection) image(i *imageNode) bool {
	return s == nil || slices.ContainsFunc(s.closures, func(c *closure) bool { return c.images[i] })
}

// selected finds the images that the check is limited to.
func (c *checker) selected() (*selection, error) {
	if len(c.Names) == 0 {
		return nil, nil
	}
	s := &selection{}
	for _, name := range c.Names {
		at := slices.IndexFunc(c.graph.names, func(n namedImage) bool { return n.name == name })
		if at < 0 {
			if _, err := index.Find(c.s, name); err != nil {
				return nil, err
			}
			return nil, fmt.Errorf("image %s: its name leads nowhere; check the whole store", name)
		}
		s.closures = append(s.closures, c.graph.closure(c.graph.names[at]))
	}
	return s, nil
}

// checkStream takes in what was found of a stream, marks what it refers to, and looks into it.
func (c *checker) checkStream(n *streamNode) {
	c.objects.use(n.id)
	switch {
	case errors.Is(n.err, store.ErrNotFound):
		c.missing(n.id, ObjectMissing) // unless its entry is known to dangle
		return
	case isObjectError(n.err):
		c.strange(n.id, n.err)
		return
	}
	c.checked(n.id, n.check)
	switch {
	case c.isBad(n.id):
		return
	case n.err != nil:
		c.add(&Problem{Code: StreamInvalid, Subject: n.subject(), Err: reason(n.err), object: n.id})
		return
	}
	_, err := c.s.CheckObject(n.id, store.CheckOptions{Use: c.eachReference(c.refer)})
	if err != nil {
		c.add(&Problem{Code: StreamInvalid, Subject: n.subject(), Err: reason(err), object: n.id})
		return
	}
	c.checkOriginal(n)
}

func (c *checker) strange(d fsverity.Digest, err error) {
	c.addBad(&Problem{Code: ObjectStrange, Subject: "objects/" + d.ObjectPath(), Err: reason(err), object: d})
}

func (c *checker) has(d fsverity.Digest) bool {
	_, _, ok := c.objects.find(d)
	return ok
}

// checkPart checks an object that is an image. It is false if that can't be relied on.
func (c *checker) checkPart(d fsverity.Digest, use func(*os.File, int64) error) bool {
	c.objects.use(d)
	if c.isBad(d) {
		return false
	}
	check, err := c.s.CheckObject(d, store.CheckOptions{Read: c.due(d), Throttle: c.limit.wait, Use: use})
	switch {
	case errors.Is(err, store.ErrNotFound):
		c.missing(d, ObjectMissing)
		return false
	case err != nil:
		c.strange(d, err)
		return false
	}
	c.checked(d, check)
	return !c.isBad(d)
}

func isObjectError(err error) bool {
	var e *store.ObjectError
	return errors.As(err, &e)
}

// refer marks an object that something refers to.
func (c *checker) refer(d fsverity.Digest) {
	if !c.objects.use(d) && !c.isBad(d) {
		c.missing(d, ObjectMissing)
	}
}

func (c *checker) missing(d fsverity.Digest, code Code) {
	// It may have come since the objects were listed.
	if has, err := c.s.HasObject(d); err == nil && has {
		return
	}
	c.addBad(&Problem{
		Code: code, Severity: code.severity(), Subject: "objects/" + d.ObjectPath(), Err: errors.New("it is not there"), object: d,
	})
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
