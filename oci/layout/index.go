package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/files"
)

// lockPoll is how often a held lock is tried again. flock(2) can't be
// interrupted by a context, and index.json is held for milliseconds.
const lockPoll = 20 * time.Millisecond

// locked runs f while it holds the lock of the layout's directory. The lock
// is on the directory, as index.json is exchanged by rename and a lock file
// would be one that no other tool expects.
func (s *Sink) locked(ctx context.Context, f func() error) (err error) {
	d, err := s.root.Open(".")
	if err != nil {
		return err
	}
	// Closing the directory releases the lock.
	defer func() { err = errors.Join(err, d.Close()) }()
	for {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return f()
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("lock the directory: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lock the directory: %w", context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}

// PutManifest stores a manifest whose config and layers are there, or an
// image index, and enters it in index.json under the sink's name, in the
// place of what had that name. Without a name it is entered once.
func (s *Sink) PutManifest(ctx context.Context, raw []byte, desc ocispec.Descriptor) error {
	if err := s.putManifest(ctx, raw, desc); err != nil {
		return fmt.Errorf("%s: put manifest %s: %w", s.ref, desc.Digest, err)
	}
	return nil
}

func (s *Sink) putManifest(ctx context.Context, raw []byte, desc ocispec.Descriptor) error {
	doc, err := oci.ParseDocument(raw, desc.MediaType)
	if err != nil {
		return err
	}
	desc.MediaType = doc.MediaType
	if err := s.checkBlobs(doc); err != nil {
		return err
	}
	if err := s.putBlob(ctx, desc, bytes.NewReader(raw)); err != nil {
		return err
	}
	if err := s.syncDir(blobsDir); err != nil {
		return err
	}
	return s.locked(ctx, func() error { return s.enter(desc) })
}

// PutListed stores a manifest as what it is without an entry: a blob.
func (s *Sink) PutListed(ctx context.Context, raw []byte, desc ocispec.Descriptor) error {
	return s.PutBlob(ctx, desc, bytes.NewReader(raw))
}

// checkBlobs makes sure that what is about to get a name is whole. An image
// index may list more than the layout has: most have one platform of many.
func (s *Sink) checkBlobs(doc *oci.Document) error {
	if doc.IsIndex() {
		return nil
	}
	for _, d := range append([]ocispec.Descriptor{doc.Config}, doc.Layers...) {
		has, err := s.hasBlob(d)
		if err != nil {
			return err
		}
		if !has {
			return fmt.Errorf("blob %s, which it lists, has not been put", d.Digest)
		}
	}
	return nil
}

// enter exchanges index.json, under the lock.
func (s *Sink) enter(desc ocispec.Descriptor) error {
	raw, doc, err := readIndex(files.Dir{Root: s.root})
	if files.IsAbsent(err) {
		raw, doc, err = []byte(`{"mediaType":"`+ocispec.MediaTypeImageIndex+`","schemaVersion":2}`), new(oci.Document), nil
	}
	if err != nil {
		return err
	}
	out, err := editIndex(raw, doc.Manifests, entry(desc, s.ref.Tag))
	if err != nil {
		return err
	}
	if bytes.Equal(out, raw) {
		return s.syncDir(".") // who has entered it may have been killed before
	}
	if len(out) > oci.MaxManifestSize {
		return fmt.Errorf("%s would have %d bytes, more than %d", ocispec.ImageIndexFile, len(out), oci.MaxManifestSize)
	}
	if err := s.writeFile(ocispec.ImageIndexFile, out); err != nil {
		return err
	}
	return s.syncDir(".")
}

// entry returns the descriptor to enter: what says which image it is, without
// what was said of another place.
func entry(desc ocispec.Descriptor, name string) ocispec.Descriptor {
	annotations := maps.Clone(desc.Annotations)
	delete(annotations, ocispec.AnnotationRefName)
	if name != "" {
		if annotations == nil {
			annotations = make(map[string]string)
		}
		annotations[ocispec.AnnotationRefName] = name
	}
	return ocispec.Descriptor{
		MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size,
		Platform: desc.Platform, Annotations: annotations,
	}
}

// editIndex returns index.json with an entry in the place of the first one of
// its name, or at the end; further ones of that name go. An entry without a
// name changes nothing if its digest is entered already. All else stays,
// members of the index in the order of their names. entries are raw's,
// parsed.
func editIndex(raw []byte, entries []ocispec.Descriptor, e ocispec.Descriptor) ([]byte, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, err
	}
	var old []json.RawMessage
	if m, ok := members["manifests"]; ok {
		if err := json.Unmarshal(m, &old); err != nil {
			return nil, err
		}
	}
	added, err := oci.EncodeJSON(e)
	if err != nil {
		return nil, err
	}
	name, done := nameOf(e), false
	list := make([]json.RawMessage, 0, len(old)+1)
	for i, item := range old {
		switch {
		case name == "" && entries[i].Digest == e.Digest:
			return raw, nil
		case name == "" || nameOf(entries[i]) != name:
			list = append(list, item)
		case !done:
			list, done = append(list, added), true
		}
	}
	if !done {
		list = append(list, added)
	}
	if members["manifests"], err = oci.EncodeJSON(list); err != nil {
		return nil, err
	}
	return oci.EncodeJSON(members)
}
