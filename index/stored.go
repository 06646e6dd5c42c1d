package index

import (
	"context"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
	"github.com/flatroot/flatroot/tree"
)

// StoredLayer is a layer by what it holds and by the stream that has it in a store.
type StoredLayer struct {
	DiffID oci.DiffID
	Stream fsverity.Digest
}

// noLimits are for what a store has: it was held against the limits when it came in.
func noLimits() Limits {
	l := Limits{}.withDefaults()
	for _, p := range []*int64{
		&l.MaxEntries, &l.MaxImageEntries, &l.MaxImageMetadata, &l.MaxFileSize, &l.MaxLayerSize, &l.MaxXattrs,
		&l.MaxXattrBytes, &l.MaxLayerXattrBytes, &l.MaxPAXBytes, &l.MaxRatio,
	} {
		*p = math.MaxInt64 >> 1
	}
	return l
}

// StoredTree flattens layers that a store has, lowest first. It reads one after the other, and has in memory the tree and
// the entries of one layer.
func StoredTree(ctx context.Context, s *store.Store, layers []StoredLayer, r Rules) (*tree.Tree, error) {
	limits := noLimits()
	f := newFlattening(FlattenOptions{Rules: r, Algorithm: s.Algorithm(), MaxEntries: limits.MaxImageEntries})
	for _, l := range layers {
		layer, err := LoadLayer(ctx, s, l)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.DiffID, err)
		}
		if err := f.add(ctx, layer); err != nil {
			return nil, err
		}
	}
	return f.finish()
}

// StoredDiffID computes the diffID of the tar that a layer's stream gives back, from the objects that it refers to.
func StoredDiffID(ctx context.Context, s *store.Store, id fsverity.Digest) (oci.DiffID, error) {
	return tarDigest(ctx, s, id, io.Discard)
}

// ReadDocument reads the JSON document that the stream of a config or manifest holds. Whether it is the one of a digest is
// for the caller to see.
func ReadDocument(s *store.Store, id fsverity.Digest) ([]byte, error) { return readDocument(s, id) }

// VerifiedStream is the stream of which it was noted that it gives back the tar of this diffID, after that had been computed
// here; zero if there is none.
func VerifiedStream(s *store.Store, d oci.DiffID) (fsverity.Digest, error) {
	note, err := s.Note(notesVerified, d.String())
	if note == "" || err != nil {
		return fsverity.Digest{}, ignoreMissing(err)
	}
	return fsverity.ParseDigest(note)
}

// ImageRules tells by which rules the image was made that a config's stream refers to by this name; false: the name is no
// image's, or one of a kind that is not made here.
func ImageRules(name string) (Rules, bool) {
	for _, r := range []Rules{OCI1, Faithful1} {
		if name == imageKey(r) {
			return r, true
		}
	}
	return "", false
}

// IsImageName tells whether what a named ref leads to is an EROFS image, of whatever kind.
func IsImageName(name string) bool {
	return strings.HasPrefix(name, stream.ImageV2) || strings.HasPrefix(name, ownImagePrefix)
}

// NameOfRef is the image name that a ref stands for: of streams/refs one below oci/ or flatroot/indexes/, of images/refs one at
// the top; false if it is none.
func NameOfRef(k store.Kind, ref string) (string, bool) {
	if k == store.Streams {
		tag, ok := strings.CutPrefix(ref, tagRefs)
		if !ok {
			tag, ok = strings.CutPrefix(ref, indexRefs)
		}
		return store.DecodeTag(tag), ok
	}
	return store.DecodeTag(ref), !strings.Contains(ref, "/")
}

// Where a store's notes about layers and manifests are, below flatroot/.
const (
	NotesVerified = notesVerified
	NotesBlobs    = notesBlobs
	NotesIndexes  = notesIndexes
	DirOrigins    = dirOrigins
	DirSignatures = dirSignatures
)
