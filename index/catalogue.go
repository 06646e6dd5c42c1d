package index

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// Info says what a store has of an image.
type Info struct {
	Name       string
	Manifest   digest.Digest // empty: the image came from a dump and has no layers
	Config     digest.Digest
	Image      fsverity.Digest // zero: none was made yet
	ImageBytes int64
	Rules      Rules // empty: not known, as of a dump or of an image that another tool made
	Layers     []LayerInfo

	Index    digest.Digest // of the image index that the name stands for; empty: for no index
	Platform oci.Platform  // for which that lists the image

	ManifestRaw, ConfigRaw []byte
	MediaType              string // of the manifest

	documents []fsverity.Digest // objects of its manifest and config: the streams, and the JSON
}

// LayerInfo is a layer of an image in a store.
type LayerInfo struct {
	DiffID    oci.DiffID
	Blob      digest.Digest // as the manifest has it
	BlobSize  int64
	MediaType string
	Stream    fsverity.Digest
	TarSize   int64
	Objects   int  // that the stream refers to
	Verified  bool // the stream was hashed here
	// Kept is the stream of the blob, if that is kept as it was; zero: it is not.
	Kept fsverity.Digest
}

func (l *LayerInfo) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: l.MediaType, Digest: l.Blob, Size: l.BlobSize}
}

// layer is the layer as its image's source has it.
func (l *LayerInfo) layer() oci.Layer {
	return oci.Layer{DiffID: l.DiffID, Descriptor: l.descriptor()}
}

// ErrNoImage is wrapped by errors about names that the store does not have.
var ErrNoImage = errors.New("no such image")

// refs are the places where a name may stand: for a manifest, for an image itself, and for an image index.
type refs struct{ tag, image, index string }

func refsOf(name string) (refs, error) {
	enc, err := store.EncodeTag(name)
	if err == nil && enc == reservedName {
		err = fmt.Errorf("the name %q is taken: the store keeps refs of its own there", name)
	}
	if err != nil {
		return refs{}, err
	}
	return refs{tag: tagRefs + enc, image: enc, index: indexRefs + enc}, nil
}

const (
	// reservedName is the directory of images/refs and of streams/refs that is flatroot's own.
	reservedName = "flatroot"
	// tagRefs and indexRefs are the directories of streams/refs that a name's are in.
	tagRefs   = "oci/"
	indexRefs = reservedName + "/indexes/"
)

// refOf reads a ref; empty: there is none.
func refOf(s *store.Store, k store.Kind, ref string) (string, error) {
	entry, err := s.Ref(k, ref)
	return entry, ignoreMissing(err)
}

// Images yields the images that the store has names for, in byte order of the names: of an image index the one for this
// machine, or if there is none, one without manifest and image. What can't be read of one is that one's error.
func Images(s *store.Store) iter.Seq2[*Info, error] {
	return func(yield func(*Info, error) bool) {
		names, err := Names(s)
		if err != nil {
			yield(nil, err)
			return
		}
		for _, name := range names {
			i, err := findAny(s, name)
			if err != nil {
				err = fmt.Errorf("image %s: %w", name, err)
			}
			if !yield(i, err) {
				return
			}
		}
	}
}

// Names lists all names of images, each once, in byte order.
func Names(s *store.Store) ([]string, error) {
	var names []string
	for _, dir := range []string{tagRefs, indexRefs} {
		for r, err := range s.Refs(store.Streams, dir) {
			if err != nil {
				return nil, err
			}
			names = append(names, store.DecodeTag(strings.TrimPrefix(r.Name, dir)))
		}
	}
	for r, err := range s.Refs(store.Images, "") {
		if err != nil {
			return nil, err
		}
		if !strings.Contains(r.Name, "/") { // what lies deeper are refs of another kind
			names = append(names, store.DecodeTag(r.Name))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Find finds an image by its name; of an image index the one for the machine that pulled it, or for this one. A ref to an image
// goes before a tag of the same name.
func Find(s *store.Store, name string) (*Info, error) { return FindFor(s, name, oci.Platform{}) }

// FindFor is Find for one platform, of which the image has to be: of an image index it takes the one for that. The error may be
// *oci.PlatformError.
func FindFor(s *store.Store, name string, p oci.Platform) (*Info, error) {
	i, err := findFor(s, name, p)
	if err == nil && p != (oci.Platform{}) && i.Index == "" {
		err = i.checkPlatform(p)
	}
	if err != nil {
		return nil, err
	}
	return i, nil
}

// checkPlatform refuses an image that is for another platform, if it says for which.
func (i *Info) checkPlatform(p oci.Platform) error {
	if i.Manifest == "" {
		return nil
	}
	c, err := oci.ParseConfig(i.ConfigRaw)
	if err == nil && c.Platform.OS != "" && c.Platform.Architecture != "" && p.Match(c.Platform) == 0 {
		err = &oci.PlatformError{Want: p, Have: []oci.Platform{c.Platform}}
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", i.Name, err)
	}
	return nil
}

func findFor(s *store.Store, name string, p oci.Platform) (*Info, error) {
	n, err := standingOf(s, name)
	if err != nil {
		return nil, err
	}
	x, err := findIndex(s, name, n)
	switch {
	case err != nil && isDamage(err) && n.tag != "" && p == (oci.Platform{}):
		i, err := findTagged(s, name, n.tag, "")
		if err == nil {
			i.Index, _ = cutDigest(n.index, indexPrefix) // whoever wants more than this image of it learns what is wrong
		}
		return i, err
	case err != nil:
		return nil, err
	case x != nil:
		return x.find(s, n.tag, p)
	case n.tag != "":
		return findTagged(s, name, n.tag, n.image)
	case n.image == "":
		return nil, noImage(name)
	}
	return findImage(s, name, n.image)
}

func noImage(name string) error {
	return fmt.Errorf("%w: %q (flatroot images lists what there is)", ErrNoImage, name)
}

func findImage(s *store.Store, name, hex string) (*Info, error) {
	d, err := s.Entry(store.Images, hex)
	if err != nil {
		return nil, err
	}
	i := &Info{Name: name, Image: d}
	i.ImageBytes, err = objectSize(s, d)
	return i, err
}

// findTagged reads a tag's manifest; hex, if there is one, is the image that the name itself refers to.
func findTagged(s *store.Store, name, entry, hex string) (*Info, error) {
	d, ok := strings.CutPrefix(entry, manifestEntry(""))
	if !ok || oci.CheckDigest(digest.Digest(d)) != nil {
		return nil, fmt.Errorf("tag %q leads to %q, which is no manifest", name, entry)
	}
	rules := OCI1
	if hex != "" {
		var err error
		rules, err = rulesOf(s, digest.Digest(d), hex)
		if errors.Is(err, errForeignImage) {
			return findImage(s, name, hex) // somebody was cut off while the name changed: see nameSteps
		}
		if err != nil {
			return nil, err
		}
	}
	i, err := readInfo(s, digest.Digest(d), rules)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, errIncomplete) {
		err = fmt.Errorf("parts of it are missing, pull it again: %w", err)
	}
	if err != nil {
		return nil, err
	}
	i.Name = name
	return i, nil
}

// rulesOf finds the rule of an image among those that its config refers to.
func rulesOf(s *store.Store, manifest digest.Digest, hex string) (Rules, error) {
	_, refs, err := entryRefs(s, manifestEntry(manifest))
	if err != nil {
		return "", err
	}
	_, config, err := configOf(refs)
	if err != nil {
		return "", err
	}
	if refs, err = streamRefs(s, config); err != nil {
		return "", err
	}
	for _, r := range []Rules{OCI1, Faithful1} {
		if id, ok := refNamed(refs, imageKey(r)); ok && id.String() == hex {
			return r, nil
		}
	}
	return "", errForeignImage
}

var errForeignImage = errors.New("the image is none of those that the config refers to")

func configOf(refs []stream.NamedRef) (digest.Digest, fsverity.Digest, error) {
	for _, r := range refs {
		if d, ok := strings.CutPrefix(r.Name, stream.ConfigPrefix); ok {
			return digest.Digest(d), r.ID, nil
		}
	}
	return "", fsverity.Digest{}, errors.New("the manifest's stream names no config")
}

func refNamed(refs []stream.NamedRef, name string) (fsverity.Digest, bool) {
	i := slices.IndexFunc(refs, func(r stream.NamedRef) bool { return r.Name == name })
	if i < 0 {
		return fsverity.Digest{}, false
	}
	return refs[i].ID, true
}

// lookUp reads what the store has of a manifest. It is nil if a part is missing or damaged: manifest, config, the image by
// these rules, or a layer that was verified here.
func lookUp(s *store.Store, manifest digest.Digest, rules Rules) (*Info, error) {
	i, err := readInfo(s, manifest, rules)
	if err != nil && isDamage(err) {
		return nil, nil
	}
	if err != nil || i.Rules != rules || slices.ContainsFunc(i.Layers, func(l LayerInfo) bool { return !l.Verified }) {
		return nil, err
	}
	return i, nil
}

var errIncomplete = errors.New("incomplete")

func readInfo(s *store.Store, manifest digest.Digest, rules Rules) (*Info, error) {
	id, manifestRefs, err := entryRefs(s, manifestEntry(manifest))
	if err != nil {
		return nil, err
	}
	i := &Info{Manifest: manifest, Rules: rules}
	var configID fsverity.Digest
	if i.Config, configID, err = configOf(manifestRefs); err != nil {
		return nil, err
	}
	if i.ManifestRaw, err = readDocument(s, id); err != nil {
		return nil, err
	}
	if i.ConfigRaw, err = readDocument(s, configID); err != nil {
		return nil, err
	}
	refs, err := streamRefs(s, configID)
	if err != nil {
		return nil, err
	}
	i.documents = []fsverity.Digest{
		id, configID, fsverity.Sum(s.Algorithm(), i.ManifestRaw), fsverity.Sum(s.Algorithm(), i.ConfigRaw),
	}
	if err := i.readImage(s, refs); err != nil {
		return nil, err
	}
	if err := i.readLayers(s, refs); err != nil {
		return i, err
	}
	for n := range i.Layers {
		i.Layers[n].Kept, _ = refNamed(manifestRefs, BlobEntry(i.Layers[n].Blob))
	}
	return i, nil
}

// readImage finds the image by the rules asked for, else the one of format version 2 that another tool may have made.
func (i *Info) readImage(s *store.Store, refs []stream.NamedRef) error {
	var ok bool
	if i.Image, ok = refNamed(refs, imageKey(i.Rules)); !ok {
		i.Rules = ""
		if i.Image, ok = refNamed(refs, stream.ImageV2); !ok {
			return nil
		}
	}
	if d, err := s.Entry(store.Images, i.Image.String()); err != nil || d != i.Image {
		return cmp.Or(err, errIncomplete)
	}
	var err error
	i.ImageBytes, err = objectSize(s, i.Image)
	return err
}

func (i *Info) readLayers(s *store.Store, refs []stream.NamedRef) error {
	img, err := oci.ParseImage(ocispec.Descriptor{Digest: i.Manifest, Size: int64(len(i.ManifestRaw))}, i.ManifestRaw, i.ConfigRaw)
	if err != nil {
		return err
	}
	i.MediaType = img.Descriptor.MediaType
	for _, l := range img.Layers {
		id, ok := refNamed(refs, l.DiffID.String())
		if !ok {
			return errIncomplete
		}
		info := LayerInfo{DiffID: l.DiffID, Blob: l.Descriptor.Digest, BlobSize: l.Descriptor.Size, MediaType: l.Descriptor.MediaType, Stream: id}
		if err := info.read(s); err != nil {
			return err
		}
		i.Layers = append(i.Layers, info)
	}
	return nil
}

func (l *LayerInfo) read(s *store.Store) error {
	note, err := s.Note(notesVerified, l.DiffID.String())
	if ignoreMissing(err) != nil {
		return err
	}
	l.Verified = note == l.Stream.String()
	st, err := openLayer(s, l.Stream)
	if err != nil {
		return err
	}
	defer st.Close()
	l.Objects, l.TarSize = st.NumObjects(), st.Size()
	return nil
}

func objectSize(s *store.Store, d fsverity.Digest) (int64, error) {
	f, err := s.OpenObject(d)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() == 0 { // what a crash can leave of an image that another tool did not sync
		return 0, errIncomplete
	}
	return info.Size(), nil
}
