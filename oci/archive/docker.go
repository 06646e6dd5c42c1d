package archive

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/files"
)

// dockerManifest is the file that lists the images of a docker-archive.
const dockerManifest = "manifest.json"

// dockerSource is one image of a docker-archive. It implements oci.RangeSource.
//
// Such an archive has no manifest. One is made, which depends on nothing but
// config and layers: a layer that isn't compressed is a blob whose digest is
// the diffID that the config claims, of others the digest is computed.
type dockerSource struct {
	*source
	image *oci.Image              // once it was made
	blobs map[digest.Digest]entry // layers
}

var _ oci.RangeSource = (*dockerSource)(nil)

// Resolve returns the descriptor of the manifest that is made.
func (s *dockerSource) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	m, err := s.load(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return m.Descriptor, nil
}

// Image returns the image with the manifest that is made.
func (s *dockerSource) Image(ctx context.Context) (*oci.Image, error) {
	m, err := s.load(ctx)
	if err != nil {
		return nil, err
	}
	img := *m
	return &img, nil
}

func (s *dockerSource) load(ctx context.Context) (*oci.Image, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.image == nil {
		m, err := s.make(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.ref, err)
		}
		s.image = m
	}
	return s.image, nil
}

// make reads what the archive says of the image.
func (s *dockerSource) make(ctx context.Context) (*oci.Image, error) {
	t, err := s.files(ctx)
	if err != nil {
		return nil, err
	}
	said, err := s.choose(t)
	if err != nil {
		return nil, err
	}
	config, err := files.Read(t, said.Config, oci.MaxManifestSize)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	manifest, err := s.makeManifest(ctx, t, said, config)
	if err != nil {
		return nil, err
	}
	root := oci.Describe(oci.MediaTypeDockerManifest, manifest)
	m, err := oci.Load(ctx, root, func(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
		if d.Digest == root.Digest {
			return manifest, nil
		}
		return config, nil
	}, oci.LoadOptions{Platform: s.opts.Platform})
	if err != nil {
		return nil, err
	}
	m.Reference = s.ref.String()
	return m, nil
}

// choose finds the image that the reference stands for.
func (s *dockerSource) choose(t *tarFiles) (m oci.ArchivedImage, err error) {
	raw, err := files.Read(t, dockerManifest, oci.MaxManifestSize)
	switch {
	case files.IsAbsent(err) && t.has(ocispec.ImageLayoutFile):
		return m, fmt.Errorf("has no %s: it is an OCI archive, write %s:%s", dockerManifest, oci.OCIArchive, s.ref.Path)
	case files.IsAbsent(err) && t.has("repositories"):
		return m, fmt.Errorf("has no %s, as archives from before Docker 1.10: load it and save it again", dockerManifest)
	case files.IsAbsent(err):
		return m, fmt.Errorf("has no %s: it is no docker-archive", dockerManifest)
	case err != nil:
		return m, err
	}
	images, err := oci.ParseDockerArchive(raw)
	if err != nil {
		return m, fmt.Errorf("%s: %w", dockerManifest, err)
	}
	if i, ok := s.ref.Index(); ok {
		if i >= len(images) {
			return m, fmt.Errorf("no image @%d: %s", i, listImages(images))
		}
		return images[i], nil
	}
	if s.ref.Tag == "" {
		if len(images) != 1 {
			return m, fmt.Errorf("has %d images; choose by name or place, %s:FILE:NAME or :@PLACE; %s", len(images), oci.DockerArchive, listImages(images))
		}
		return images[0], nil
	}
	return byName(images, s.ref.Tag)
}

// byName finds the image that has a name, whichever forms that and the
// archive's own are in.
func byName(images []oci.ArchivedImage, name string) (m oci.ArchivedImage, err error) {
	want, err := oci.FullName(name)
	if err != nil {
		return m, err
	}
	found := 0
	for _, image := range images {
		for _, n := range image.Names {
			if full, err := oci.FullName(n); err == nil && full == want {
				m = image
				found++
				break
			}
		}
	}
	switch found {
	case 0:
		return m, fmt.Errorf("%w named %s; %s", oci.ErrNoImage, want, listImages(images))
	case 1:
		return m, nil
	}
	return m, fmt.Errorf("%d images are named %s; choose by place, :@PLACE; %s", found, want, listImages(images))
}

// listImages says which images there are, and not too many.
func listImages(images []oci.ArchivedImage) string {
	const most = 20
	var list []string
	for i, m := range images {
		if len(list) == most {
			return "there is " + strings.Join(list, ", ") + " and others"
		}
		item := fmt.Sprintf("@%d without a name", i)
		if len(m.Names) > 0 {
			item = fmt.Sprintf("%s (@%d)", oci.Printable(m.Names[0], 200), i)
		}
		list = append(list, item)
	}
	if len(list) == 0 {
		return "there is none"
	}
	return "there is " + strings.Join(list, ", ")
}

// makeManifest makes the manifest, and notes where its layers are.
func (s *dockerSource) makeManifest(ctx context.Context, t *tarFiles, said oci.ArchivedImage, config []byte) ([]byte, error) {
	c, err := oci.ParseConfig(config)
	if err != nil {
		return nil, fmt.Errorf("config %q: %w", oci.Printable(said.Config, 100), err)
	}
	if len(c.DiffIDs) != len(said.Layers) {
		return nil, fmt.Errorf("config %q has %d diff_ids, %s %d layers", oci.Printable(said.Config, 100), len(c.DiffIDs), dockerManifest, len(said.Layers))
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: oci.MediaTypeDockerManifest,
		Config:    oci.Describe(oci.MediaTypeDockerConfig, config),
		Layers:    make([]ocispec.Descriptor, len(said.Layers)),
	}
	s.blobs = map[digest.Digest]entry{}
	known := map[int64]ocispec.Descriptor{} // of compressed layers, by where they are
	for i, name := range said.Layers {
		e, err := t.find(name)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
		d, ok := known[e.offset]
		if !ok {
			if d, err = describeLayer(ctx, t.open(e), c.DiffIDs[i]); err != nil {
				return nil, fmt.Errorf("layer %d: %w", i+1, err)
			}
			if d.MediaType != oci.MediaTypeDockerLayer {
				known[e.offset] = d
			}
		}
		m.Layers[i] = d
		s.blobs[d.Digest] = e
	}
	return json.Marshal(m)
}

// describeLayer makes the descriptor of a layer's blob. Those that aren't
// compressed are not read: whoever reads them will compare their digest.
func describeLayer(ctx context.Context, f tarFile, d oci.DiffID) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: oci.MediaTypeDockerLayer, Digest: digest.Digest(d), Size: f.Size()}
	head, err := readHead(f)
	if err != nil {
		return desc, err
	}
	switch compressionOf(head) {
	case gz:
		desc.MediaType = oci.MediaTypeDockerLayerGzip
	case zst:
		desc.MediaType = oci.MediaTypeDockerLayerZstd
	default:
		return desc, nil
	}
	h := digest.SHA256.Digester()
	if _, err := io.Copy(h.Hash(), &counter{ctx: ctx, r: f}); err != nil {
		return desc, err
	}
	desc.Digest = h.Digest()
	return desc, nil
}

// OpenBlob opens a layer where it lies.
func (s *dockerSource) OpenBlob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	f, err := s.openBlob(ctx, desc)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// OpenRange opens a part of a layer where it lies.
func (s *dockerSource) OpenRange(ctx context.Context, desc ocispec.Descriptor, offset, length int64) (io.ReadCloser, error) {
	f, err := s.openBlob(ctx, desc)
	if err == nil {
		err = oci.CheckRange(desc, offset, length)
	}
	if err != nil {
		return nil, err
	}
	return tarFile{io.NewSectionReader(f, offset, length)}, nil
}

func (s *dockerSource) openBlob(ctx context.Context, desc ocispec.Descriptor) (f tarFile, err error) {
	if _, err := s.load(ctx); err != nil {
		return f, err
	}
	e, there := s.blobs[desc.Digest]
	switch {
	case !there:
		err = fmt.Errorf("there is no layer %s", oci.Printable(desc.Digest.String(), 100))
	case e.size != desc.Size:
		err = &oci.SizeError{What: "layer " + desc.Digest.String(), Want: desc.Size, Got: e.size}
	default:
		return s.tar.open(e), nil
	}
	return f, fmt.Errorf("%s: %w", s.ref, err)
}
