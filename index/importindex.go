package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// ImageIndexReport says what the import of an image index did. Its JSON form is part of the command's interface.
type ImageIndexReport struct {
	Name     string          `json:"name,omitempty"`
	Index    digest.Digest   `json:"index,omitempty"` // empty: the source has one image, and no index
	Images   []*Report       `json:"images"`
	Others   OtherCounts     `json:"others"`
	Healed   HealCounts      `json:"healed"` // of the index itself
	SignedBy []digest.Digest `json:"signed_by,omitempty"`
}

// OtherCounts counts the manifests of an image index that are no image's, and their blobs that are kept.
type OtherCounts struct {
	Total int `json:"total"`
	Blobs int `json:"blobs"`
}

// ImportAll brings an image index into the store, with the images of all platforms, and gives it a name: the images as Import
// does, one after the other, then what else it lists, then the index, then the name, which nothing has that is not whole. Where
// the source has no image index that is Import.
func ImportAll(ctx context.Context, s *store.Store, src oci.Source, o ImportOptions) (*ImageIndexReport, error) {
	im := newImporter(s.Algorithm(), src, o)
	im.s = s
	root, err := src.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	im.root = root.Digest
	from, ok := src.(oci.DocumentSource)
	if !ok || oci.IsManifest(root.MediaType) {
		return importOne(ctx, s, src, o)
	}
	a := &indexImporter{importer: im, from: from, report: ImageIndexReport{Name: o.Name, Index: root.Digest}}
	a.x, err = oci.LoadIndex(ctx, root, a.document)
	switch {
	case errors.Is(err, oci.ErrNoIndex):
		return importOne(ctx, s, src, o)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", src, err)
	case !o.Expect.IsZero() || im.Rules != OCI1:
		return nil, fmt.Errorf("%s: an image index has several images: there is no one digest to expect of it, and its rules are %s", src, OCI1)
	}
	if err := a.run(ctx); err != nil {
		return nil, err
	}
	return &a.report, nil
}

func importOne(ctx context.Context, s *store.Store, src oci.Source, o ImportOptions) (*ImageIndexReport, error) {
	r, err := Import(ctx, s, src, o)
	if err != nil {
		return nil, err
	}
	return &ImageIndexReport{Name: r.Name, Images: []*Report{r}, SignedBy: r.SignedBy}, nil
}

// indexImporter is an importer of an image index: its signatures are those of the index.
type indexImporter struct {
	*importer
	from   oci.DocumentSource
	x      *oci.Index
	kept   []*otherBlob
	report ImageIndexReport
}

// otherBlob is a blob of an image index that is no layer.
type otherBlob struct {
	desc ocispec.Descriptor
	id   fsverity.Digest
}

// document takes a manifest, image index or config from the store if that has it, else from the source.
func (a *indexImporter) document(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	for _, entry := range []string{
		indexEntry(desc.Digest), manifestEntry(desc.Digest), configEntry(desc.Digest), BlobEntry(desc.Digest),
	} {
		id, err := a.s.Entry(store.Streams, entry)
		if err != nil {
			continue
		}
		if raw, err := readDocument(a.s, id); err == nil && oci.Verify(entry, raw, desc) == nil {
			return raw, nil
		}
	}
	return a.from.Document(ctx, desc)
}

// run imports what the index lists, then the index. Who has signed that has signed all images.
func (a *indexImporter) run(ctx context.Context) error {
	if err := a.accept(ctx, a.root); err != nil {
		return err
	}
	a.report.SignedBy = a.importer.report.SignedBy
	for _, img := range a.x.Images {
		r, err := a.image(ctx, img)
		if err != nil {
			return fmt.Errorf("image for %s, which %s lists: %w", oci.Printable(img.Platform.String(), 100), a.root, err)
		}
		a.report.Images = append(a.report.Images, r)
	}
	for _, o := range a.x.Others {
		if err := a.other(ctx, o); err != nil {
			return fmt.Errorf("manifest %s of %s, which is no image's: %w", o.Descriptor.Digest, a.src, err)
		}
	}
	if err := a.s.Sync(); err != nil {
		return err
	}
	if err := a.nameIndex(ctx); err != nil {
		return err
	}
	return settle(a.s)
}

// image imports one image without giving it a name.
func (a *indexImporter) image(ctx context.Context, img *oci.Image) (*Report, error) {
	o := a.ImportOptions
	o.Name, o.Accept = "", nil
	im := newImporter(a.s.Algorithm(), a.src, o)
	im.s, im.root, im.signatures = a.s, a.root, a.signatures
	im.report.Platform = img.Platform.String()
	if done, err := im.fromStore(ctx, img.Descriptor.Digest); done || err != nil {
		return im.done(err)
	}
	im.img = img
	return im.get(ctx)
}

// other keeps a manifest that is no image's as the blob that it is, and if blobs are to be kept, those that it lists.
func (a *indexImporter) other(ctx context.Context, o *oci.Other) error {
	a.report.Others.Total++
	err := a.keep(ctx, o.Descriptor, func() (*store.ObjectWriter, error) {
		w, err := a.s.NewObject()
		if err == nil {
			_, err = io.Copy(w, bytes.NewReader(o.Raw))
		}
		return w, err
	})
	if err != nil || !a.KeepBlobs {
		return err
	}
	for _, b := range o.Blobs() {
		a.report.Others.Blobs++
		err := a.keep(ctx, b, func() (*store.ObjectWriter, error) {
			w, _, err := fetchObject(ctx, a.s, a.src, b, a.Progress.Start(Reading, oci.Layer{Descriptor: b}))
			return w, err
		})
		if err != nil {
			return fmt.Errorf("blob %s: %w", b.Digest, err)
		}
	}
	return nil
}

// keep stores a blob unless the store has it.
func (a *indexImporter) keep(ctx context.Context, desc ocispec.Descriptor, get func() (*store.ObjectWriter, error)) error {
	b := &otherBlob{desc: desc}
	a.kept = append(a.kept, b)
	id, err := a.s.Entry(store.Streams, BlobEntry(desc.Digest))
	if err == nil {
		good, err := givesBlob(ctx, a.s, id, desc)
		if good || err != nil {
			b.id = id
			return err
		}
	} else if !isDamage(err) {
		return err
	}
	w, err := get()
	if w != nil {
		defer w.Abort()
	}
	if err != nil {
		return err
	}
	b.id, _, err = storeBlob(a.s, w, !errors.Is(err, store.ErrNotFound))
	return err
}

// nameIndex makes the entries of all that is durable now, those of the images apart, which have theirs, then the index, and
// gives it the name.
func (a *indexImporter) nameIndex(ctx context.Context) error {
	unlock, err := a.s.LockEntries(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	refs, err := a.refs(ctx)
	if err != nil {
		return err
	}
	p, err := putDocument(a.s, stream.OCIIndex, indexEntry(a.root), a.x.Raw, refs)
	if err == nil {
		err = a.s.Sync()
	}
	if err != nil {
		return fmt.Errorf("store image index %s: %w", a.root, err)
	}
	if p.old.IsZero() { // first, as with layers
		if err := writeOrigin(a.s, a.root, a.src, a.x.Descriptor); err != nil {
			return err
		}
	}
	if err := a.noteSignatures(a.root); err != nil {
		return err
	}
	a.report.Healed = p.healed
	if p.id != p.old {
		if err := a.s.Relink(store.Streams, p.entry, p.id); err != nil {
			return err
		}
	}
	return setName(a.s, a.Name, standing{tag: a.own(), index: p.entry})
}

// refs are the index's references, in its order: what entries lead to now.
func (a *indexImporter) refs(ctx context.Context) (refs []stream.NamedRef, err error) {
	for _, img := range a.x.Images {
		entry := manifestEntry(img.Descriptor.Digest)
		id, err := a.s.Entry(store.Streams, entry)
		if err != nil {
			return nil, err
		}
		refs = append(refs, stream.NamedRef{Name: entry, ID: id})
	}
	for _, b := range a.kept {
		if b.id, err = moveBlob(ctx, a.s, b.desc, b.id); err != nil {
			return nil, err
		}
		ref := stream.NamedRef{Name: BlobEntry(b.desc.Digest), ID: b.id}
		if !containsRefs(refs, []stream.NamedRef{ref}) {
			refs = append(refs, ref)
		}
	}
	return refs, nil
}

// own is the entry of the image for this machine; "" if the index lists none.
func (a *indexImporter) own() string {
	m, err := oci.Select(a.x.Platforms, oci.DefaultPlatform())
	if err != nil {
		return ""
	}
	return manifestEntry(m.Digest)
}
