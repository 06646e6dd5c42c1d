package index

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/layout"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// keptImage has a layer of each compression, and one layer twice, compressed in two ways.
func keptImage(t testing.TB) ocitest.Image {
	return ocitest.Image{
		Layers:      text(t, hurtText, goodText, wholeText, hurtText),
		Compression: []ocitest.Compression{ocitest.Gzip, ocitest.None, ocitest.Zstd, ocitest.Zstd},
	}
}

// counted counts how often each blob is opened.
func counted(src *memSource) map[digest.Digest]int {
	opened := map[digest.Digest]int{}
	for _, b := range src.built.Blobs {
		d := b.Descriptor.Digest
		src.open[d] = func(context.Context) io.ReadCloser {
			opened[d]++
			return io.NopCloser(bytes.NewReader(b.Data))
		}
	}
	return opened
}

func pullKept(t testing.TB, s *store.Store, src oci.Source, o ImportOptions) *Report {
	t.Helper()
	o.Image, o.Name, o.ImageObjects, o.Jobs = writeImage, "image", imageObjects, 1
	r, err := Import(context.Background(), s, src, o)
	must(t, err)
	return r
}

// kept checks that the blobs of all compressed layers are in the store, named by the manifest, and returns how many they are.
func kept(t testing.TB, s *store.Store, src *memSource) (n int) {
	t.Helper()
	img, err := src.Image(context.Background())
	must(t, err)
	_, refs, err := entryRefs(s, manifestEntry(img.Descriptor.Digest))
	must(t, err)
	seen := map[digest.Digest]bool{}
	for _, l := range img.Layers {
		d := l.Descriptor.Digest
		if d == digest.Digest(l.DiffID) {
			if _, err := s.Entry(store.Streams, BlobEntry(d)); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("a blob that is a tar was kept: %v", err)
			}
			continue
		}
		if seen[d] {
			continue
		}
		seen[d] = true
		id := mustEntry(t, s, BlobEntry(d))
		if ref, ok := refNamed(refs, BlobEntry(d)); !ok || ref != id {
			t.Errorf("the manifest names %s for blob %s, its entry %s", ref, d, id)
		}
		f, err := openKept(s, id, l.Descriptor)
		must(t, err)
		b, err := io.ReadAll(f)
		must(t, errors.Join(err, f.Close()))
		if digest.FromBytes(b) != d {
			t.Errorf("blob %s is another one", d)
		}
		st, err := openLayer(s, id)
		must(t, err)
		if st.Type() != stream.OCIBlob {
			t.Errorf("blob %s: a stream of type %s", d, st.Type())
		}
		must(t, st.Close())
	}
	return len(seen)
}

// TestKeepBlobs: each blob is read once, though layers and blobs are both kept.
func TestKeepBlobs(t *testing.T) {
	for _, a := range []fsverity.Algorithm{fsverity.SHA256, fsverity.SHA512} {
		s := fastStore(t, a)
		src := newSource(t, keptImage(t))
		opened := counted(src)
		r := pullKept(t, s, src, ImportOptions{KeepBlobs: true})
		if n := kept(t, s, src); n != 3 || r.Blobs.Total != 3 || r.Blobs.New != 3 || r.Healed.Any() {
			t.Errorf("%d blobs, report %+v, healed %+v", n, r.Blobs, r.Healed)
		}
		for d, n := range opened {
			if n != 1 {
				t.Errorf("blob %s was opened %d times", d, n)
			}
		}
		clear(opened)
		again := pullKept(t, s, src, ImportOptions{KeepBlobs: true})
		if len(opened) > 0 || again.Blobs != (BlobCounts{Total: 3}) || again.Image != r.Image {
			t.Errorf("once more: opened %v, report %+v", opened, again)
		}
		// Who doesn't ask for it loses nothing.
		pullKept(t, s, src, ImportOptions{})
		kept(t, s, src)
	}
}

// TestKeepBlobsLater: of layers that are there the blobs alone are fetched.
func TestKeepBlobsLater(t *testing.T) {
	s := fastStore(t, fsverity.SHA256)
	src := newSource(t, keptImage(t))
	first := pullKept(t, s, src, ImportOptions{})
	if _, err := s.Entry(store.Streams, BlobEntry(src.built.Find("layer").Descriptor.Digest)); err == nil {
		t.Error("a blob was kept though nobody asked for it")
	}
	opened := counted(src)
	r := pullKept(t, s, src, ImportOptions{KeepBlobs: true})
	if kept(t, s, src); r.Image != first.Image || r.Layers.Fetched != 0 || r.Blobs.New != 3 || r.Bytes.Fetched != r.Blobs.BytesNew || r.Objects.New != 0 {
		t.Errorf("%+v", r)
	}
	if len(opened) != 3 {
		t.Errorf("opened %v", opened)
	}
	// Another image that has the layers takes the blobs that are there.
	m := keptImage(t)
	m.Labels = map[string]string{"other": "one"}
	other := newSource(t, m)
	opened = counted(other)
	if r := pullKept(t, s, other, ImportOptions{KeepBlobs: true}); len(opened) > 0 || r.Blobs != (BlobCounts{Total: 3}) {
		t.Errorf("the other one: opened %v, %+v", opened, r.Blobs)
	}
	kept(t, s, other)
}

// TestKeepWrongBlob: a blob that is not what its descriptor says is never kept.
func TestKeepWrongBlob(t *testing.T) {
	for _, later := range []bool{false, true} {
		s := fastStore(t, fsverity.SHA256)
		src := newSource(t, ocitest.Image{Layers: text(t, hurtText), Compression: []ocitest.Compression{ocitest.Gzip}})
		blob := src.built.Find("layer")
		if later {
			pullKept(t, s, src, ImportOptions{})
		}
		before := len(named(t, s))
		bad := bytes.Clone(blob.Data)
		bad[4] ^= 1 // the time in the header of gzip: the tar is the same
		src.open[blob.Descriptor.Digest] = func(context.Context) io.ReadCloser { return io.NopCloser(bytes.NewReader(bad)) }
		_, err := Import(context.Background(), s, src, ImportOptions{Image: writeImage, Name: "image", KeepBlobs: true})
		var de *oci.DigestError
		if !errors.As(err, &de) || de.Want != blob.Descriptor.Digest {
			t.Errorf("later %v: got %v", later, err)
		}
		if _, err := s.Entry(store.Streams, BlobEntry(blob.Descriptor.Digest)); err == nil || later && len(named(t, s)) > before+1 {
			t.Errorf("later %v: something was named", later)
		}
	}
}

// TestHealKeptBlobs: a pull restores what is damaged of blobs that are kept, whether it asks for them or not.
func TestHealKeptBlobs(t *testing.T) {
	for _, verify := range []bool{false, true} {
		for _, which := range []string{"object", "stream"} {
			for _, damage := range damages {
				if !verify && damage.name == "garbage" && which == "object" {
					continue // it doesn't show
				}
				t.Run(which+" "+damage.name, func(t *testing.T) {
					s := fastStore(t, fsverity.SHA256)
					src := newSource(t, keptImage(t))
					pullKept(t, s, src, ImportOptions{KeepBlobs: true})
					desc := src.built.Find("layer").Descriptor
					id := mustEntry(t, s, BlobEntry(desc.Digest))
					object, _ := keptObject(s, id, desc)
					damaged := map[string]fsverity.Digest{"object": object, "stream": id}[which]
					damage.do(t, objectPath(s, damaged))
					if damage.name == "garbage" && !verify {
						must(t, s.MarkBad(damaged, badContent))
					}
					opened := counted(src)
					r := pullKept(t, s, src, ImportOptions{Verify: verify})
					kept(t, s, src)
					checkObjects(t, s, object, id)
					if !r.Healed.Any() || opened[desc.Digest] != 1 || len(opened) != 1 {
						t.Errorf("healed %+v, opened %v", r.Healed, opened)
					}
					if again := pullKept(t, s, src, ImportOptions{Verify: true}); again.Healed.Any() {
						t.Errorf("once more: %+v", again.Healed)
					}
					must(t, os.RemoveAll(filepath.Join(s.Dir(), "flatroot/quarantine")))
				})
			}
		}
	}
}

// TestKeptBlobGone: what can't be fetched anew stays damaged, and is named.
func TestKeptBlobGone(t *testing.T) {
	s := fastStore(t, fsverity.SHA256)
	src := newSource(t, keptImage(t))
	pullKept(t, s, src, ImportOptions{KeepBlobs: true})
	desc := src.built.Find("layer").Descriptor
	object, _ := keptObject(s, mustEntry(t, s, BlobEntry(desc.Digest)), desc)
	b, err := os.ReadFile(objectPath(s, object))
	must(t, err)
	must(t, os.Remove(objectPath(s, object)))
	src.open[desc.Digest] = func(context.Context) io.ReadCloser { return io.NopCloser(strings.NewReader("")) }
	_, err = Import(context.Background(), s, src, ImportOptions{Image: writeImage, Name: "image"})
	if !errors.As(err, new(*HealError)) || !strings.Contains(err.Error(), desc.Digest.String()) {
		t.Errorf("got %v", err)
	}
	_, err = s.PutObject(object, b)
	must(t, err)
}

// TestManifestRestoredWithBlobs: a manifest that is made anew names the blobs that are kept, and its stream is the same.
func TestManifestRestoredWithBlobs(t *testing.T) {
	s := fastStore(t, fsverity.SHA256)
	src := newSource(t, keptImage(t))
	r := pullKept(t, s, src, ImportOptions{KeepBlobs: true})
	entry := manifestEntry(r.Manifest)
	id := mustEntry(t, s, entry)
	must(t, os.Remove(objectPath(s, id)))
	find := func(digest.Digest) ([]byte, error) { return src.built.Find("manifest").Data, nil }
	must(t, RestoreDocument(context.Background(), s, entry, find, writeImage))
	if got := mustEntry(t, s, entry); got != id {
		t.Errorf("the stream is another one: %s, want %s", got, id)
	}
	kept(t, s, src)
	// One that can be read keeps what it has: none, if none were kept for it.
	m := keptImage(t)
	m.Labels = map[string]string{"other": "one"}
	other := newSource(t, m)
	report := pullKept(t, s, other, ImportOptions{})
	must(t, RestoreDocument(context.Background(), s, manifestEntry(report.Manifest), find, writeImage))
	_, refs, err := entryRefs(s, manifestEntry(report.Manifest))
	must(t, err)
	if slices.ContainsFunc(refs, func(r stream.NamedRef) bool { return strings.HasPrefix(r.Name, blobPrefix) }) {
		t.Errorf("it names blobs now: %v", refs)
	}
}

// foreignBlob puts a blob into the store in a stream as another encoder writes it.
func foreignBlob(t *testing.T, s *store.Store, blob []byte, keep fsverity.Digest) fsverity.Digest {
	t.Helper()
	object := fsverity.Sum(s.Algorithm(), blob)
	_, err := s.PutObject(object, blob)
	must(t, err)
	id, err := putStream(s, stream.OCIBlob, func(w *stream.Writer) error {
		return errors.Join(w.NamedRef("other", keep), w.External(object, int64(len(blob))))
	})
	must(t, err)
	link(t, s, blobPrefix+digest.FromBytes(blob).String(), id)
	return id
}

// TestForeignBlobKept: a stream that another tool made of the blob is used, once it was read.
func TestForeignBlobKept(t *testing.T) {
	s := fastStore(t, fsverity.SHA256)
	src := newSource(t, ocitest.Image{Layers: text(t, hurtText), Compression: []ocitest.Compression{ocitest.Gzip}})
	blob := src.built.Find("layer")
	keep := fsverity.Sum(s.Algorithm(), []byte("kept along"))
	_, err := s.PutObject(keep, []byte("kept along"))
	must(t, err)
	id := foreignBlob(t, s, blob.Data, keep)
	r := pullKept(t, s, src, ImportOptions{KeepBlobs: true})
	kept(t, s, src)
	if got := mustEntry(t, s, BlobEntry(blob.Descriptor.Digest)); got != id || r.Blobs.New != 0 {
		t.Errorf("stream %s, want %s; %+v", got, id, r.Blobs)
	}
}

// pushed pushes the image of a store to a new layout.
func pushed(t testing.TB, s *store.Store, o PushOptions) (*PushReport, string, error) {
	t.Helper()
	i, err := Find(s, "image")
	must(t, err)
	dir := filepath.Join(t.TempDir(), "layout")
	sink, err := layout.Create(context.Background(), oci.Reference{Transport: oci.OCI, Path: dir, Tag: "image"})
	must(t, err)
	defer sink.Close()
	r, err := Push(context.Background(), s, i, sink, o)
	return r, dir, err
}

// TestPushKept: what was kept is sent as it was, with the same manifest; what was not is compressed anew, or refused.
func TestPushKept(t *testing.T) {
	s := fastStore(t, fsverity.SHA256)
	m := keptImage(t)
	m.EditManifest = func(m *ocispec.Manifest) { m.Annotations = map[string]string{"a": "b"} }
	src := newSource(t, m)
	src.name = "docker://registry.example.com/some/image:v1"
	r := pullKept(t, s, src, ImportOptions{KeepBlobs: true})
	for _, c := range []string{"", AsCanBe, AsItWas} {
		p, dir, err := pushed(t, s, PushOptions{Compression: c})
		must(t, err)
		if p.Manifest != r.Manifest || !p.SameManifest || p.Originals != 4 || p.Layers != (LayerCounts{Total: 4, Fetched: 4}) {
			t.Errorf("%q: %+v", c, p)
		}
		for _, b := range src.built.Blobs {
			got, err := os.ReadFile(filepath.Join(dir, "blobs/sha256", b.Descriptor.Digest.Encoded()))
			if err != nil || !bytes.Equal(got, b.Data) {
				t.Errorf("%q: %s is not the same: %v", c, b.Descriptor.Digest, err)
			}
		}
	}
	p, _, err := pushed(t, s, PushOptions{Compression: gz})
	must(t, err)
	if p.SameManifest || p.Manifest == r.Manifest || p.Originals != 0 {
		t.Errorf("gzip: %+v", p)
	}
	// Damage to a blob is noticed before anybody has it.
	desc := src.built.Find("layer").Descriptor
	object, _ := keptObject(s, mustEntry(t, s, BlobEntry(desc.Digest)), desc)
	b, err := os.ReadFile(objectPath(s, object))
	must(t, err)
	damages[3].do(t, objectPath(s, object))
	_, _, err = pushed(t, s, PushOptions{})
	if de := new(oci.DigestError); !errors.As(err, &de) {
		t.Errorf("damaged: got %v", err)
	}
	must(t, os.WriteFile(objectPath(s, object), b, 0o644))

	s = fastStore(t, fsverity.SHA256)
	pullKept(t, s, src, ImportOptions{})
	p, _, err = pushed(t, s, PushOptions{})
	must(t, err)
	if p.SameManifest || p.Originals != 1 { // the tar
		t.Errorf("without blobs: %+v", p)
	}
	if _, _, err := pushed(t, s, PushOptions{Compression: AsItWas}); err == nil || !strings.Contains(err.Error(), "--keep-blobs") {
		t.Errorf("without blobs, original: %v", err)
	}
}

// having is a sink that has blobs, or takes them over from another repository.
type having struct {
	has, mounts map[digest.Digest]bool
	put         []digest.Digest
	from        []string
}

func (h *having) HasBlob(_ context.Context, d ocispec.Descriptor) (bool, error) {
	return h.has[d.Digest], nil
}

func (h *having) MountBlob(_ context.Context, d ocispec.Descriptor, from oci.Reference) (bool, error) {
	h.from = append(h.from, from.String())
	return h.mounts[d.Digest], nil
}

func (h *having) PutBlob(_ context.Context, d ocispec.Descriptor, r io.Reader) error {
	h.put = append(h.put, d.Digest)
	_, err := io.Copy(io.Discard, r)
	return err
}

func (h *having) PutListed(context.Context, []byte, ocispec.Descriptor) error   { return nil }
func (h *having) PutManifest(context.Context, []byte, ocispec.Descriptor) error { return nil }
func (h *having) Close() error                                                  { return nil }

// TestPushThere: blobs that the destination has, or takes over, need not have been kept.
func TestPushThere(t *testing.T) {
	s := fastStore(t, fsverity.SHA256)
	src := newSource(t, keptImage(t))
	src.name = "docker://registry.example.com/some/image:v1"
	pullKept(t, s, src, ImportOptions{})
	i, err := Find(s, "image")
	must(t, err)
	h := &having{has: map[digest.Digest]bool{i.Layers[0].Blob: true}, mounts: map[digest.Digest]bool{i.Layers[2].Blob: true, i.Layers[3].Blob: true}}
	r, err := Push(context.Background(), s, i, h, PushOptions{Jobs: 1})
	must(t, err)
	if !r.SameManifest || r.Mounted != 2 || r.Layers != (LayerCounts{Total: 4, Reused: 3, Fetched: 1}) {
		t.Errorf("%+v", r)
	}
	if !slices.Equal(h.put, []digest.Digest{i.Layers[1].Blob, i.Config}) || !slices.Contains(h.from, src.name) {
		t.Errorf("put %v, asked to mount from %v", h.put, h.from)
	}
}

// unpacking is a sink that keeps files of layers, and has some of them.
type unpacking struct {
	having
	there    map[digest.Digest]bool // tars
	tars     []digest.Digest        // that were offered
	blobs    []digest.Digest        // with them
	manifest []byte
}

func (u *unpacking) PutLayer(ctx context.Context, tar, blob ocispec.Descriptor, r io.Reader) (bool, error) {
	u.tars, u.blobs = append(u.tars, tar.Digest), append(u.blobs, blob.Digest)
	if u.there[tar.Digest] {
		return false, nil
	}
	return true, oci.CopyBlob(ctx, io.Discard, r, tar)
}

func (u *unpacking) PutManifest(_ context.Context, raw []byte, _ ocispec.Descriptor) error {
	u.manifest = raw
	return nil
}

// TestPushUnpacked: what keeps no blobs is given the tars in their order, with the blobs that are certain, and the manifest.
func TestPushUnpacked(t *testing.T) {
	s := fastStore(t, fsverity.SHA256)
	push := func(m ocitest.Image, o PushOptions) (*Info, *unpacking, *PushReport) {
		pullKept(t, s, newSource(t, m), ImportOptions{})
		i, err := Find(s, "image")
		must(t, err)
		u := &unpacking{there: map[digest.Digest]bool{digest.Digest(i.Layers[2].DiffID): true}}
		r, err := Push(context.Background(), s, i, u, o)
		must(t, err)
		var diffIDs []digest.Digest
		for _, l := range i.Layers {
			diffIDs = append(diffIDs, digest.Digest(l.DiffID))
		}
		if !slices.Equal(u.tars, diffIDs) || !slices.Equal(u.put, []digest.Digest{i.Config}) {
			t.Errorf("%q: put %v and %v; want layers %v", o.Compression, u.tars, u.put, diffIDs)
		}
		if r.Layers != (LayerCounts{Total: 3, Reused: 1, Fetched: 2}) || r.Bytes != i.Layers[0].TarSize+i.Layers[1].TarSize {
			t.Errorf("%q: %+v", o.Compression, r)
		}
		return i, u, r
	}
	m := ocitest.Image{Layers: text(t, hurtText, goodText, wholeText), Compression: []ocitest.Compression{ocitest.Gzip, ocitest.None, ocitest.Zstd}}
	for _, c := range []string{"", AsCanBe, AsItWas} {
		i, u, r := push(m, PushOptions{Compression: c})
		if !r.SameManifest || r.Originals != 3 || !bytes.Equal(u.manifest, i.ManifestRaw) {
			t.Errorf("%q: %+v, manifest %s", c, r, u.manifest)
		}
		if want := []digest.Digest{i.Layers[0].Blob, i.Layers[1].Blob, i.Layers[2].Blob}; !slices.Equal(u.blobs, want) {
			t.Errorf("%q: blobs %v, want %v", c, u.blobs, want)
		}
	}
	i, u, r := push(m, PushOptions{Compression: plain})
	doc, err := oci.ParseDocument(u.manifest, "")
	must(t, err)
	if r.SameManifest || r.Originals != 0 || doc.Layers[0].Digest != digest.Digest(i.Layers[0].DiffID) || doc.Layers[0].MediaType != ocispec.MediaTypeImageLayer {
		t.Errorf("as tars: %+v, %+v", r, doc.Layers)
	}
	for _, c := range []string{gz, zst} {
		if _, err := Push(context.Background(), s, i, &unpacking{}, PushOptions{Compression: c}); err == nil || !strings.Contains(err.Error(), "nothing to compress") {
			t.Errorf("%s: %v", c, err)
		}
	}
	// Blobs that nobody here has seen, of layers that were there, are not told of.
	m.Compression = []ocitest.Compression{ocitest.Zstd, ocitest.None, ocitest.Gzip}
	i, u, r = push(m, PushOptions{})
	if want := []digest.Digest{"", i.Layers[1].Blob, ""}; !slices.Equal(u.blobs, want) || !r.SameManifest {
		t.Errorf("blobs %v, want %v; %+v", u.blobs, want, r)
	}
}

// TestReopener reads the same bytes whatever way.
func TestReopener(t *testing.T) {
	opened, closed := 0, 0
	r := &reopener{open: func() (io.ReadCloser, error) {
		opened++
		return closing{strings.NewReader("0123456789"), &closed}, nil
	}}
	for _, c := range []struct {
		at   int64
		want string
	}{{0, "0123"}, {4, "4567"}, {2, "2345"}, {8, "89"}, {0, "0123"}} {
		if _, err := r.Seek(c.at, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, len(c.want))
		if _, err := io.ReadFull(r, b); err != nil || string(b) != c.want {
			t.Errorf("at %d: %q, %v", c.at, b, err)
		}
	}
	if _, err := r.Seek(20, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("behind the end: %v", err)
	}
	if _, err := r.Seek(0, io.SeekEnd); err == nil {
		t.Error("it knows the end")
	}
	must(t, r.Close())
	if opened != 3 || closed != 3 {
		t.Errorf("opened %d times, closed %d times", opened, closed)
	}
}

type closing struct {
	io.Reader
	n *int
}

func (c closing) Close() error {
	*c.n++
	return nil
}
