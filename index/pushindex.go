package index

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

// PushImageIndex writes an image index that the store has to a sink, with the images of all platforms, each as Push does. If they all
// keep their manifests, and all else that it lists was kept with its blobs, the index stays the same; else it is rewritten, and
// lists the images alone: what else there was is about other manifests.
func PushImageIndex(ctx context.Context, s *store.Store, x *ImageIndex, to oci.Sink, o PushOptions) (*PushReport, error) {
	listing, ok := to.(oci.IndexSink)
	if !ok {
		return nil, errOneImage
	}
	p := &indexPusher{s: s, x: x, to: listing, became: map[digest.Digest]ocispec.Descriptor{}}
	p.report = &PushReport{Name: x.Name, Manifest: x.Digest, SameManifest: true}
	others, err := p.others()
	if err != nil && o.Compression == AsItWas {
		return nil, fmt.Errorf("the image index can't be sent as it was: %w", err)
	}
	p.report.SameManifest = err == nil
	for _, m := range x.Images {
		if err := p.image(ctx, m, o); err != nil {
			return nil, fmt.Errorf("image for %s: %w", oci.PlatformOf(m), err)
		}
	}
	raw := x.Raw
	if !p.report.SameManifest {
		if raw, err = p.rewritten(); err != nil {
			return nil, fmt.Errorf("image index %s: %w", x.Digest, err)
		}
		others, p.report.LeftOut = nil, len(x.Others)
	}
	for _, other := range others {
		if err := p.other(ctx, other); err != nil {
			return nil, fmt.Errorf("push manifest %s, which is no image's: %w", other.Descriptor.Digest, err)
		}
	}
	desc := oci.Describe(x.MediaType, raw)
	p.report.Manifest = desc.Digest
	if err := to.PutManifest(ctx, raw, desc); err != nil {
		return nil, fmt.Errorf("push image index: %w", err)
	}
	return p.report, nil
}

var errOneImage = errors.New("the destination has one image by a name, and no image index: send one of its images, with --platform")

type indexPusher struct {
	s      *store.Store
	x      *ImageIndex
	to     oci.IndexSink
	became map[digest.Digest]ocispec.Descriptor // of each image's manifest: the one at the destination
	report *PushReport
}

// image sends one image, once, and has the destination know its manifest by the digest.
func (p *indexPusher) image(ctx context.Context, m ocispec.Descriptor, o PushOptions) error {
	if _, done := p.became[m.Digest]; done {
		return nil
	}
	i, err := p.x.image(p.s, m)
	if err != nil {
		return err
	}
	sent, err := push(ctx, p.s, i, p.to, o)
	if err != nil {
		return err
	}
	if err := p.to.PutListed(ctx, sent.raw, sent.desc); err != nil {
		return fmt.Errorf("push manifest: %w", err)
	}
	p.became[m.Digest] = sent.desc
	p.report.add(&sent.report)
	return nil
}

// add counts one image of an image index.
func (r *PushReport) add(i *PushReport) {
	r.Images = append(r.Images, i)
	r.Layers.Total += i.Layers.Total
	r.Layers.Reused += i.Layers.Reused
	r.Layers.Fetched += i.Layers.Fetched
	r.Bytes += i.Bytes
	r.Originals += i.Originals
	r.Mounted += i.Mounted
	r.SameManifest = r.SameManifest && i.SameManifest
}

// others reads the manifests that are no images'. An error says that one of them can't be sent, for want of a blob.
func (p *indexPusher) others() (list []*oci.Other, err error) {
	for _, d := range p.x.Others {
		o := &oci.Other{Descriptor: d}
		if o.Raw, err = p.readKept(d); err == nil {
			o.Document, err = oci.ParseAttachment(o.Raw, d.MediaType)
		}
		if err != nil {
			return nil, fmt.Errorf("manifest %s, which it lists: %w", d.Digest, err)
		}
		o.Descriptor.MediaType = o.Document.MediaType
		for _, b := range o.Blobs() {
			if _, kept := refNamed(p.x.refs, BlobEntry(b.Digest)); !kept {
				return nil, fmt.Errorf("blob %s of manifest %s, which is no image's, was not kept: pull it with --keep-blobs", b.Digest, d.Digest)
			}
		}
		list = append(list, o)
	}
	return list, nil
}

func (p *indexPusher) readKept(d ocispec.Descriptor) ([]byte, error) {
	id, ok := refNamed(p.x.refs, BlobEntry(d.Digest))
	if !ok {
		return nil, errors.New("it is not there")
	}
	f, err := openKept(p.s, id, d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, oci.MaxManifestSize+1))
	if err != nil {
		return nil, err
	}
	return raw, oci.Verify("manifest", raw, d)
}

// other sends the blobs of a manifest, then that.
func (p *indexPusher) other(ctx context.Context, o *oci.Other) error {
	for _, b := range o.Blobs() {
		if err := p.blob(ctx, b); err != nil {
			return err
		}
	}
	return p.to.PutListed(ctx, o.Raw, o.Descriptor)
}

func (p *indexPusher) blob(ctx context.Context, d ocispec.Descriptor) error {
	if has, err := p.to.HasBlob(ctx, d); has || err != nil {
		return err
	}
	id, _ := refNamed(p.x.refs, BlobEntry(d.Digest))
	f, err := openKept(p.s, id, d)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.to.PutBlob(ctx, d, f); err != nil {
		return err
	}
	p.report.Bytes += d.Size
	return nil
}

// rewritten is the index with the manifests that the images have at the destination, and nothing else. What it says besides,
// and what it says of each, stays.
func (p *indexPusher) rewritten() ([]byte, error) {
	var members map[string]json.RawMessage
	var listed []map[string]json.RawMessage
	if err := json.Unmarshal(p.x.Raw, &members); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(members["manifests"], &listed); err != nil {
		return nil, err
	}
	images := []map[string]json.RawMessage{}
	for _, m := range listed {
		var d digest.Digest
		if err := json.Unmarshal(m["digest"], &d); err != nil {
			return nil, err
		}
		now, is := p.became[d]
		if !is {
			continue
		}
		if now.Digest != d {
			m["digest"], m["size"] = fmt.Appendf(nil, "%q", now.Digest), fmt.Appendf(nil, "%d", now.Size)
			delete(m, "data")
			delete(m, "urls")
		}
		images = append(images, m)
	}
	var err error
	if members["manifests"], err = encodeJSON(images); err != nil {
		return nil, err
	}
	return encodeJSON(members)
}

// encodeJSON is json.Marshal, but leaves <, > and & alone, as most do.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
