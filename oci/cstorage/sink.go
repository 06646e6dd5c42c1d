//go:build !cgo || exclude_graphdriver_btrfs

package cstorage

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
	"go.podman.io/storage/pkg/reexec"
	"go.podman.io/storage/types"

	"github.com/flatroot/flatroot/oci"
)

// Helper tells whether this process is one that the library has started, of the same program, to unpack a layer in a root
// of its own; its work is done then. It is to be asked first in main, before anything that reads arguments.
func Helper() bool { return reexec.Init() }

// Sink writes one image into a store, by the library that the store belongs to and by the rules that podman, skopeo and
// others have for what goes where. It implements oci.LayerSink.
//
// A layer goes in as it comes, whole or not at all, under the ID that podman gives it, and one that is there is taken as it is.
// The image comes with its manifest, and the name last. Close takes out again what was put in if it did not come so far, and
// leaves no mount.
type Sink struct {
	ref   oci.Reference
	name  string
	store storage.Store

	top    string   // ID of the layer that the next one is to lie on; empty: none
	layers int      // below the next one
	made   []string // IDs of those that were not there before; none once the image has them
	config []byte   // nil: has not been put
}

var _ oci.LayerSink = (*Sink)(nil)

// Create opens the store of a containers-storage: reference for writing, and makes one where there is none.
func Create(ref oci.Reference) (oci.LayerSink, error) {
	s, err := create(ref)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return s, nil
}

func create(ref oci.Reference) (*Sink, error) {
	p, what, err := parse(ref.Path)
	if err != nil {
		return nil, err
	}
	s := &Sink{ref: ref}
	if s.name, err = what.newName(); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can write the files of layers; into a store of one's own it is that of its user namespace: `podman unshare flatroot push …`")
	}
	o, err := p.storeOptions()
	if err != nil {
		return nil, err
	}
	// It tells of what goes wrong in its errors as well, and here the names of files would reach a terminal as they are.
	logrus.SetOutput(io.Discard)
	if s.store, err = storage.GetStore(o); err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	if err := checkWritable(s.store.GraphDriverName()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// storeOptions are what the library needs to know of a store. Left to itself it would begin another one, of the driver overlay,
// in the directory of one that has images of vfs.
func (p place) storeOptions() (o types.StoreOptions, err error) {
	if p.graphRoot != "" {
		o = types.StoreOptions{GraphDriverName: driverName(p.driver), GraphRoot: p.graphRoot, RunRoot: p.runRoot, GraphDriverOptions: p.options}
	} else if o, err = configured(); err != nil {
		return o, err
	}
	if o.GraphDriverName == "" {
		o.GraphDriverName = usedDriver(o.GraphRoot)
	}
	if o.GraphDriverName == "" {
		return o, nil
	}
	return o, checkWritable(o.GraphDriverName)
}

// checkWritable refuses drivers whose layers could not be read again.
func checkWritable(driver string) error {
	if !slices.Contains(drivers, driver) {
		return fmt.Errorf("stores of the storage driver %s can't be written to, only those of %s; push to oci:DIR, and have `skopeo copy oci:DIR containers-storage:…` bring it there",
			shown(driver), strings.Join(drivers, " and "))
	}
	return nil
}

// newName is the full name of an image that is to be written, by the rules by which names without a registry are understood
// where images are copied: they are docker.io's.
func (t target) newName() (string, error) {
	if t.id != "" || t.digest != "" {
		return "", errors.New("an image can't be written to a digest or an ID: want a name")
	}
	return oci.FullName(t.name)
}

// String returns the reference.
func (s *Sink) String() string { return s.ref.String() }

// PutLayer has the library unpack a layer, unless it is there.
func (s *Sink) PutLayer(ctx context.Context, tar, blob ocispec.Descriptor, r io.Reader) (bool, error) {
	id := layerID(s.top, tar.Digest)
	has, err := s.hasLayer(id, tar.Digest)
	if err == nil && !has {
		err = s.unpack(ctx, id, tar, blob, r)
	}
	if errors.Is(err, storage.ErrDuplicateID) { // somebody else was faster
		has, err = s.hasLayer(id, tar.Digest)
		if err == nil && !has {
			err = errors.New("another process has put it there and removed it again: try once more")
		}
	}
	if err != nil {
		return false, fmt.Errorf("%s: put layer %s: %w", s.ref, tar.Digest, err)
	}
	s.top = id
	s.layers++
	return !has, nil
}

// layerID is the ID of a layer on another one: of go.podman.io/image, which podman, skopeo and buildah put layers in with. All
// that find a layer to share find it by this.
func layerID(parent string, diffID digest.Digest) string {
	if parent == "" {
		return diffID.Encoded()
	}
	return digest.FromString(parent + "+" + diffID.Encoded()).Encoded()
}

// hasLayer tells whether the store has the layer. What else may have its ID is not taken for it.
func (s *Sink) hasLayer(id string, diffID digest.Digest) (bool, error) {
	l, err := s.store.Layer(id)
	switch {
	case errors.Is(err, storage.ErrLayerUnknown):
		return false, nil
	case err != nil:
		return false, err
	case l.ID != id || l.UncompressedDigest != diffID || l.Parent != s.top:
		return false, fmt.Errorf("the store has another layer under its ID, %s: diffID %s, on %s", id, shown(l.UncompressedDigest.String()), shown(l.Parent))
	}
	return true, nil
}

// sniffed is how much of a tar the library looks at to tell whether it is compressed, in bytes; it is less than that.
const sniffed = 512

// unpack puts in a layer that is not there. Digest and size of the tar are compared before the library is told that it has
// ended, so that the layer never is there if they are others.
func (s *Sink) unpack(ctx context.Context, id string, tar, blob ocispec.Descriptor, r io.Reader) error {
	from, to := io.Pipe()
	copied := make(chan error, 1)
	go func() {
		err := oci.CopyBlob(ctx, to, r, tar)
		to.CloseWithError(err)
		copied <- err
	}()
	err := s.putTar(id, tar, blob, bufio.NewReaderSize(from, 128<<10))
	from.Close()
	// The library tells of what can't be read as of a tar that is too short.
	if cause := <-copied; cause != nil && (err == nil || !errors.Is(cause, io.ErrClosedPipe)) {
		return cause
	}
	return err
}

func (s *Sink) putTar(id string, tar, blob ocispec.Descriptor, r *bufio.Reader) error {
	if begin, _ := r.Peek(sniffed); archive.DetectCompression(begin) != archive.Uncompressed {
		return errors.New("its tar begins as a compressed file does, and would be taken for one there")
	}
	if blob.Digest == "" {
		blob = tar
	}
	_, _, err := s.store.PutLayer(id, s.top, nil, "", false, &storage.LayerOptions{
		UncompressedDigest: tar.Digest, OriginalDigest: blob.Digest, OriginalSize: &blob.Size,
	}, r)
	if err == nil {
		s.made = append(s.made, id)
	}
	return err
}

// HasBlob is about configs, which are kept until the image is there.
func (s *Sink) HasBlob(context.Context, ocispec.Descriptor) (bool, error) { return false, nil }

// PutBlob takes the config. There is nowhere to put other blobs.
func (s *Sink) PutBlob(ctx context.Context, desc ocispec.Descriptor, r io.Reader) error {
	if err := s.putConfig(ctx, desc, r); err != nil {
		return fmt.Errorf("%s: put blob %s: %w", s.ref, desc.Digest, err)
	}
	return nil
}

func (s *Sink) putConfig(ctx context.Context, desc ocispec.Descriptor, r io.Reader) error {
	switch {
	case oci.IsLayer(desc.MediaType):
		return errors.New("layers are kept unpacked there, not as blobs")
	case desc.Size > oci.MaxManifestSize:
		return fmt.Errorf("the config has %d bytes, more than %d", desc.Size, oci.MaxManifestSize)
	}
	var b bytes.Buffer
	if err := oci.CopyBlob(ctx, &b, r, desc); err != nil {
		return err
	}
	s.config = b.Bytes()
	return nil
}

// PutManifest makes the image of the layers that were put and gives it its name, which another image may lose by that.
func (s *Sink) PutManifest(ctx context.Context, raw []byte, desc ocispec.Descriptor) error {
	if err := s.putManifest(ctx, raw, desc); err != nil {
		return fmt.Errorf("%s: put manifest %s: %w", s.ref, desc.Digest, err)
	}
	return nil
}

func (s *Sink) putManifest(ctx context.Context, raw []byte, desc ocispec.Descriptor) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := oci.Verify("manifest", raw, desc); err != nil {
		return err
	}
	if err := s.check(raw, desc.MediaType); err != nil {
		return err
	}
	return s.putImage(raw, desc.Digest)
}

// check compares a manifest with what has been put.
func (s *Sink) check(raw []byte, mediaType string) error {
	doc, err := oci.ParseDocument(raw, mediaType)
	switch {
	case err != nil:
		return err
	case doc.IsIndex():
		return errors.New("an image index is no image: it has no layers of its own")
	case s.config == nil || doc.Config.Digest != digest.FromBytes(s.config):
		return fmt.Errorf("config %s, which it lists, has not been put", doc.Config.Digest)
	case len(doc.Layers) != s.layers:
		return fmt.Errorf("it lists %d layers, and %d have been put", len(doc.Layers), s.layers)
	}
	return nil
}

// putImage makes the image or, if there is one with this config and these layers, sees to it that it has the documents.
func (s *Sink) putImage(manifest []byte, d digest.Digest) error {
	config := digest.FromBytes(s.config)
	documents := []storage.ImageBigDataOption{
		{Key: config.String(), Data: s.config, Digest: config},
		{Key: manifestKey(d), Data: manifest, Digest: d},
		{Key: currentManifest, Data: manifest, Digest: d},
	}
	// The image's ID is its config's digest.
	id := config.Encoded()
	_, err := s.store.CreateImage(id, nil, s.top, "", &storage.ImageOptions{CreationDate: created(s.config), BigData: documents})
	isNew := err == nil
	if errors.Is(err, storage.ErrDuplicateID) {
		err = s.update(id, documents)
	}
	if err == nil {
		err = s.store.AddNames(id, []string{s.name})
	}
	if err == nil {
		s.made = nil
		return nil
	}
	if isNew {
		_, undone := s.store.DeleteImage(id, true)
		err = errors.Join(err, undone)
	}
	return err
}

// update writes those documents of an image that it does not have.
func (s *Sink) update(id string, documents []storage.ImageBigDataOption) error {
	image, err := s.store.Image(id)
	if err != nil {
		return err
	}
	if image.TopLayer != s.top {
		return fmt.Errorf("image %s is there with other layers, up to %s: remove it first", id, shown(image.TopLayer))
	}
	for _, d := range documents {
		if have, err := s.store.ImageBigData(id, d.Key); err == nil && bytes.Equal(have, d.Data) {
			continue
		}
		err := s.store.SetImageBigData(id, d.Key, d.Data, func([]byte) (digest.Digest, error) { return d.Digest, nil })
		if err != nil {
			return fmt.Errorf("%s: %w", d.Key, err)
		}
	}
	return nil
}

// created is the time that a config says the image was made at; zero if it does not, for which the library takes the present.
func created(config []byte) time.Time {
	var c struct{ Created time.Time }
	if err := json.Unmarshal(config, &c); err != nil {
		return time.Time{}
	}
	return c.Created
}

// Close takes back what has not become an image, and leaves the store without a mount unless containers run.
func (s *Sink) Close() error {
	var errs []error
	for _, id := range slices.Backward(s.made) {
		if err := s.store.DeleteLayer(id); err != nil && !inUse(err) {
			errs = append(errs, fmt.Errorf("remove layer %s: %w", id, err))
		}
	}
	s.made = nil
	if _, err := s.store.Shutdown(false); err != nil && !errors.Is(err, storage.ErrLayerUsedByContainer) {
		errs = append(errs, fmt.Errorf("close the store: %w", err))
	}
	s.store.Free()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: %w", s.ref, err)
	}
	return nil
}

// inUse tells whether a layer was not removed because somebody else uses it by now, or has removed it.
func inUse(err error) bool {
	return slices.ContainsFunc([]error{
		storage.ErrLayerHasChildren, storage.ErrLayerUsedByImage, storage.ErrLayerUsedByContainer, storage.ErrLayerUnknown, storage.ErrNotALayer,
	}, func(known error) bool { return errors.Is(err, known) })
}
