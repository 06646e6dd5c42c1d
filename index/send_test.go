package index

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
)

// TestSendBlobs: a blob that the sink has, or takes over, is not opened; what is opened is closed.
func TestSendBlobs(t *testing.T) {
	from := oci.Reference{Transport: oci.Docker, Host: "registry.example.com", Repository: "a", Tag: "v1"}
	var opened, closed []string
	h := &having{has: map[digest.Digest]bool{}, mounts: map[digest.Digest]bool{}}
	second := from
	second.Repository = "b"
	var blobs []Blob
	for _, name := range []string{"there", "elsewhere", "new", "new"} {
		d := oci.Describe(ocispec.MediaTypeImageLayer, []byte(name))
		h.has[d.Digest], h.mounts[d.Digest] = name == "there", name == "elsewhere"
		blobs = append(blobs, Blob{
			Layer: oci.Layer{Descriptor: d}, Title: name, From: []oci.Reference{from, second},
			Open: func(context.Context) (io.ReadSeekCloser, error) {
				opened = append(opened, name)
				return noticed{strings.NewReader(name), func() { closed = append(closed, name) }}, nil
			},
		})
	}
	r, err := SendBlobs(context.Background(), h, blobs, SendOptions{Jobs: 1})
	must(t, err)
	if r.Layers != (LayerCounts{Total: 4, Reused: 2, Fetched: 2}) || r.Mounted != 1 || r.Bytes != 6 {
		t.Errorf("%+v", r)
	}
	if want := []string{"new", "new"}; !slices.Equal(opened, want) || !slices.Equal(closed, want) {
		t.Errorf("opened %v, closed %v", opened, closed)
	}
	if want := []string{from.String(), from.String(), second.String(), from.String(), second.String()}; !slices.Equal(h.from, want) {
		t.Errorf("asked to take over from %v", h.from)
	}
	broken := errors.New("broken")
	blobs[2].Open = func(context.Context) (io.ReadSeekCloser, error) { return nil, broken }
	_, err = SendBlobs(context.Background(), h, blobs, SendOptions{Jobs: 1})
	if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "send new: ") {
		t.Error(err)
	}
}

// TestSendStaged: a blob that is on its way into the sink is published, and counts as sent.
func TestSendStaged(t *testing.T) {
	h := &having{has: map[digest.Digest]bool{}, mounts: map[digest.Digest]bool{}}
	staged := &staging{}
	blob := Blob{Layer: oci.Layer{Descriptor: oci.Describe(ocispec.MediaTypeImageLayer, []byte("staged"))}, Title: "it", Staged: staged}
	r, err := SendBlobs(context.Background(), h, []Blob{blob}, SendOptions{})
	must(t, err)
	if r.Layers != (LayerCounts{Total: 1, Fetched: 1}) || r.Bytes != 6 || staged.published != 1 {
		t.Errorf("%+v, published %d times", r, staged.published)
	}
	staged.err = errors.New("broken")
	if _, err := SendBlobs(context.Background(), h, []Blob{blob}, SendOptions{}); !errors.Is(err, staged.err) {
		t.Error(err)
	}
	h.has[blob.Layer.Descriptor.Digest] = true
	if r, err = SendBlobs(context.Background(), h, []Blob{blob}, SendOptions{}); err != nil || r.Layers.Reused != 1 || staged.published != 2 {
		t.Errorf("%+v, %v, published %d times", r, err, staged.published)
	}
}

type staging struct {
	oci.StagedBlob
	published int
	err       error
}

func (s *staging) Publish(context.Context) error {
	s.published++
	return s.err
}

type noticed struct {
	io.ReadSeeker
	close func()
}

func (c noticed) Close() error {
	c.close()
	return nil
}

// TestStoredBlob: the very blob can be had if it was kept, or is a tar, and may be where its image came from.
func TestStoredBlob(t *testing.T) {
	s := fastStore(t, fsverity.SHA256)
	src := newSource(t, keptImage(t))
	src.name = "docker://registry.example.com/some/image:v1"
	pullKept(t, s, src, ImportOptions{})
	i, err := Find(s, "image")
	must(t, err)
	for n, l := range i.Layers {
		b := StoredBlob(s, i, n)
		if len(b.From) == 0 || b.From[0].String() != src.name {
			t.Errorf("layer %d is from %v", n, b.From)
		}
		f, err := b.Open(context.Background())
		if l.HasBlob() != (err == nil) || err != nil && !errors.Is(err, ErrNotKept) {
			t.Errorf("layer %d: %v", n, err)
		}
		if err != nil {
			continue
		}
		data, err := io.ReadAll(f)
		must(t, errors.Join(err, f.Close()))
		must(t, oci.Verify("blob", data, b.Layer.Descriptor))
	}
}
