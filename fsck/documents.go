package fsck

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// What begins the entries of streams.
const (
	layerPrefix    = "oci-layer-"
	configPrefix   = "oci-config-"
	manifestPrefix = "oci-manifest-"
	indexPrefix    = "oci-index-"
	blobPrefix     = "oci-blob-"
)

// kindOf is what a stream has to be that an entry of this name leads to; ok is false for entries of unknown kinds.
func kindOf(entry string) (prefix string, k stream.ContentType, ok bool) {
	for _, e := range []struct {
		prefix string
		kind   stream.ContentType
	}{
		{layerPrefix, stream.OCILayer}, {configPrefix, stream.OCIConfig},
		{manifestPrefix, stream.OCIManifest}, {indexPrefix, stream.OCIIndex}, {blobPrefix, stream.OCIBlob},
	} {
		if strings.HasPrefix(entry, e.prefix) {
			return e.prefix, e.kind, true
		}
	}
	return "", 0, false
}

// checkOriginal checks what a stream holds against what its entries promise.
func (c *checker) checkOriginal(n *streamNode) {
	c.checkKinds(n)
	switch n.kind {
	case stream.OCIConfig:
		c.checkDocument(n, configPrefix, c.checkConfig)
	case stream.OCIManifest:
		c.checkDocument(n, manifestPrefix, c.checkManifest)
	case stream.OCIIndex:
		c.checkDocument(n, indexPrefix, c.checkIndex)
	case stream.OCILayer:
		c.checkLayer(n)
	case stream.OCIBlob:
		c.checkBlob(n)
	}
}

// checkKinds looks for entries that lead to a stream of another kind, among those that we know.
func (c *checker) checkKinds(n *streamNode) {
	if !n.kind.Known() {
		return
	}
	for _, name := range n.names {
		if _, kind, ok := kindOf(name); ok && kind != n.kind {
			c.misled(n, name, errors.New("it leads to a stream of another kind"))
		}
	}
}

// misled tells of an entry that leads to a stream which is not what it says. The stream itself may be all right, and what
// others refer to.
func (c *checker) misled(n *streamNode, entry string, err error) {
	code := DocumentDiffers
	if prefix, _, _ := kindOf(entry); prefix == layerPrefix || prefix == blobPrefix {
		code = LayerDiffers
	}
	p := &Problem{Code: code, Subject: string(store.Streams) + "/" + entry, Err: err, entry: entry}
	for _, r := range c.graph.refs[store.Streams] {
		if name, ok := index.NameOfRef(store.Streams, r.Name); ok && r.Entry == entry {
			p.Images = append(p.Images, Hit{Name: name, Paths: []string{}})
		}
	}
	c.add(p)
}

// checkDocument reads a config, manifest or image index. One without an entry has no digest to be held
// against; the other stream that has its entry is checked.
func (c *checker) checkDocument(n *streamNode, prefix string, parts func(*streamNode, []byte)) {
	if !c.contentsAreGood(n) {
		return
	}
	raw, err := index.ReadDocument(c.s, n.id)
	if err != nil {
		n.wrong = true
		c.add(&Problem{Code: DocumentDiffers, Subject: n.subject(), Err: reason(err), object: n.id})
		return
	}
	got := digest.FromBytes(raw).String()
	wrong := slices.DeleteFunc(n.promises(prefix), func(d string) bool { return d == got })
	n.wrong = len(wrong) > 0 && len(wrong) == len(n.promises(prefix))
	for _, d := range wrong {
		err := fmt.Errorf("its digest is %s", got)
		if n.wrong {
			c.add(&Problem{Code: DocumentDiffers, Subject: string(store.Streams) + "/" + prefix + d, Err: err, object: n.id})
		} else {
			c.misled(n, prefix+d, err)
		}
	}
	if !n.wrong {
		parts(n, raw)
	}
}

// contentsAreGood checks the objects that a small stream refers to.
func (c *checker) contentsAreGood(n *streamNode) bool {
	good := true
	_, err := c.s.CheckObject(n.id, store.CheckOptions{Use: c.eachObject(func(d fsverity.Digest) {
		if first, i, ok := c.objects.find(d); ok && !c.objects.isDone(first, i) && c.due(d) {
			c.checkObject(d)
		}
		good = good && !c.isBad(d)
	})})
	return good && err == nil
}

func (c *checker) checkConfig(n *streamNode, raw []byte) {
	config, err := oci.ParseConfig(raw)
	if err != nil {
		return // of an artifact: any document may be one's config
	}
	for _, d := range config.DiffIDs {
		if !c.checkRefTo(n, d.String(), layerPrefix+d.String()) {
			return
		}
	}
	if !c.graph.live[n] {
		return
	}
	for _, r := range n.refs {
		if index.IsImageName(r.Name) && c.graph.entries[store.Images][r.ID.String()] != r.ID {
			c.add(&Problem{
				Code: ImageUnnamed, Subject: n.subject(), object: r.ID,
				Err: fmt.Errorf("it refers to image %s, and there is no good entry %s/%s", r.ID, store.Images, r.ID),
			})
		}
	}
}

func (c *checker) checkManifest(n *streamNode, raw []byte) {
	doc, err := oci.ParseDocument(raw, "")
	if err != nil || doc.IsIndex() {
		c.add(&Problem{
			Code: DocumentDiffers, Subject: n.subject(), object: n.id,
			Err: fmt.Errorf("it is no manifest: %w", errOr(err, errors.New("it is an image index"))),
		})
		return
	}
	d := doc.Config.Digest.String()
	c.checkRefTo(n, stream.ConfigPrefix+d, configPrefix+d)
	c.checkBlobRefs(n)
}

// checkIndex checks that an image index refers to all that it lists, be it an image's manifest or not.
func (c *checker) checkIndex(n *streamNode, raw []byte) {
	doc, err := oci.ParseDocument(raw, "")
	if err != nil || !doc.IsIndex() {
		c.add(&Problem{
			Code: DocumentDiffers, Subject: n.subject(), object: n.id,
			Err: fmt.Errorf("it is no image index: %w", errOr(err, errors.New("it is a manifest"))),
		})
		return
	}
	for _, m := range doc.Manifests {
		entry := manifestPrefix + m.Digest.String()
		isOther := slices.ContainsFunc(n.refs, func(r stream.NamedRef) bool { return r.Name == index.BlobEntry(m.Digest) })
		if !isOther && !c.checkRefTo(n, entry, entry) {
			return
		}
	}
	c.checkBlobRefs(n)
}

// checkBlobRefs checks the references to blobs that are kept.
func (c *checker) checkBlobRefs(n *streamNode) {
	for _, r := range n.refs {
		if _, kept := index.CutBlobEntry(r.Name); kept {
			c.checkRefTo(n, r.Name, r.Name)
		}
	}
}

func errOr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// checkRefTo checks that a document refers to a part of it by this name, and to the stream that the part's entry leads to.
func (c *checker) checkRefTo(n *streamNode, name, entry string) bool {
	at := slices.IndexFunc(n.refs, func(r stream.NamedRef) bool { return r.Name == name })
	if at < 0 {
		c.add(&Problem{Code: DocumentIncomplete, Subject: n.subject(), Err: fmt.Errorf("it has no reference %s", name), object: n.id})
		return false
	}
	have, there := c.graph.entries[store.Streams][entry]
	switch {
	case have == n.refs[at].ID:
	case !there && c.graph.live[n]:
		c.add(&Problem{
			Code: EntryMissing, Subject: string(store.Streams) + "/" + entry, object: n.refs[at].ID,
			Err: fmt.Errorf("%s refers to it as stream %s", n.subject(), n.refs[at].ID),
		})
	default:
		c.add(&Problem{
			Code: RefUnmapped, Severity: IsRemark, Subject: n.subject(), object: n.id,
			Err: fmt.Errorf("%s is stream %s, and %s leads elsewhere or is not there", name, n.refs[at].ID, entry),
		})
	}
	return true
}

// checkLayer has a layer's tar hashed, unless this store noted that the stream gives back the right one.
func (c *checker) checkLayer(n *streamNode) {
	promised := n.promises(layerPrefix)
	for _, want := range promised {
		part := "layers/" + want
		c.records.keep(part)
		noted, err := index.VerifiedStream(c.s, oci.DiffID(want))
		if c.Quick || err == nil && noted == n.id && !c.VerifyTars && len(promised) == 1 {
			continue
		}
		c.later(&c.graph.jobs, part, func(ctx context.Context) (bool, error) {
			return c.compareOriginal(ctx, n, layerPrefix, want, "the tar that it gives back has the diffID")
		})
	}
}

// checkBlob checks a blob that is named by its digest. A layer of an artifact may be named by that of its compressed form.
func (c *checker) checkBlob(n *streamNode) {
	for _, want := range n.promises(blobPrefix) {
		part := "blobs/" + want
		c.records.keep(part)
		if c.Quick {
			continue
		}
		c.later(&c.graph.jobs, part, func(ctx context.Context) (bool, error) {
			return c.compareOriginal(ctx, n, blobPrefix, want, "what it gives back has the digest")
		})
	}
}

// compareOriginal computes what a stream gives back. Of several entries that lead to it one may be right.
func (c *checker) compareOriginal(ctx context.Context, n *streamNode, prefix, want, what string) (good bool, err error) {
	got, err := index.StoredDiffID(ctx, c.s, n.id)
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err == nil && got.String() == want:
		return true, nil
	case err == nil:
		err = fmt.Errorf("%s %s", what, got)
		if slices.Contains(n.promises(prefix), got.String()) {
			c.misled(n, prefix+want, err)
			return false, nil
		}
	}
	c.add(&Problem{
		Code: LayerDiffers, Subject: string(store.Streams) + "/" + prefix + want, Err: reason(err), object: n.id, derived: true,
	})
	return false, nil
}

func (c *checker) isGood(part string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.good[part] = true
}

type job = func(context.Context) error

// later has a job done beside the reading of objects, unless it was done recently.
func (c *checker) later(list *[]job, part string, do func(context.Context) (good bool, err error)) {
	if c.records.fresh(part) || c.earlier != nil && c.earlier.good[part] {
		return
	}
	*list = append(*list, func(ctx context.Context) error {
		good, err := do(ctx)
		if good {
			c.records.verified(part)
			c.isGood(part)
		} else {
			c.records.forget(part)
		}
		return err
	})
}

// layersOf gives the layers of a config, lowest first; ok is false if one can't be had.
func (c *checker) layersOf(config *streamNode) (layers []index.StoredLayer, ok bool) {
	if config.wrong {
		return nil, false
	}
	raw, err := index.ReadDocument(c.s, config.id)
	if err != nil {
		return nil, false
	}
	parsed, err := oci.ParseConfig(raw)
	if err != nil {
		return nil, false
	}
	for _, d := range parsed.DiffIDs {
		at := slices.IndexFunc(config.refs, func(r stream.NamedRef) bool { return r.Name == d.String() })
		if at < 0 {
			return nil, false
		}
		n := c.graph.streams[config.refs[at].ID]
		if n == nil || !n.good() || c.isBad(n.id) {
			return nil, false
		}
		layers = append(layers, index.StoredLayer{DiffID: d, Stream: n.id})
	}
	return layers, true
}

// isDigest tells whether a text is a digest as the store's names have them.
func isDigest(text string) bool {
	return strings.HasPrefix(text, "sha256:") && oci.CheckDigest(digest.Digest(text)) == nil
}
