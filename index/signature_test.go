package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
)

var errRefused = errors.New("refused by the test")

// asked remembers what Accept was asked, and answers as told.
type asked struct {
	calls   []Resolved
	answer  []Signature
	refuses bool
}

func (a *asked) accept(_ context.Context, r Resolved) ([]Signature, error) {
	a.calls = append(a.calls, r)
	if a.refuses {
		return nil, errRefused
	}
	return a.answer, nil
}

// indexed is a memSource whose reference stands for an image index.
type indexed struct {
	*memSource
	root ocispec.Descriptor
}

func (s *indexed) Resolve(context.Context) (ocispec.Descriptor, error) { return s.root, nil }
func (s *indexed) Image(ctx context.Context) (*oci.Image, error) {
	m, err := s.memSource.Image(ctx)
	if err == nil {
		m.IndexDigest = s.root.Digest
	}
	return m, err
}

// noLayers fails the test when a blob is asked for.
func noLayers(t *testing.T, src *memSource) {
	for _, b := range src.built.Blobs {
		src.open[b.Descriptor.Digest] = func(context.Context) io.ReadCloser {
			t.Errorf("blob %s was asked for", b.Descriptor.Digest)
			return io.NopCloser(bytes.NewReader(nil))
		}
	}
}

// TestRefused refuses an image that the store does not have, one that it has in part, and one that it has whole.
func TestRefused(t *testing.T) {
	s := storetest.New(t, store.InitOptions{})
	src := newSource(t, ocitest.Image{Layers: text(t, sampleText, "file b size=100")})
	manifest := src.built.Root().Digest
	before := fmt.Sprint(named(t, s))
	refuse := func(o ImportOptions) {
		t.Helper()
		a := &asked{refuses: true}
		o.Image, o.Accept = writeImage, a.accept
		if r, err := Import(context.Background(), s, src, o); !errors.Is(err, errRefused) || r != nil {
			t.Errorf("got %v, %v", r, err)
		}
		if len(a.calls) != 1 || a.calls[0] != (Resolved{Root: manifest, Manifest: manifest}) {
			t.Errorf("asked %v", a.calls)
		}
		if after := fmt.Sprint(named(t, s)); after != before {
			t.Errorf("there was %s, and is %s", before, after)
		}
	}
	whole := src.open
	src.open = map[digest.Digest]func(context.Context) io.ReadCloser{}
	noLayers(t, src)
	refuse(ImportOptions{Name: "image"})
	for o, err := range s.Objects() {
		t.Errorf("object of %d bytes, %v", o.Size, err)
	}

	src.open = whole
	if _, err := Import(context.Background(), s, src, ImportOptions{Image: writeImage, Name: "old"}); err != nil {
		t.Fatal(err)
	}
	before = fmt.Sprint(named(t, s))
	noLayers(t, src)
	refuse(ImportOptions{Name: "image"})
	refuse(ImportOptions{Name: "old"})
	refuse(ImportOptions{Name: "image", Rules: Faithful1})

	// What is damaged stays so: who is refused has nothing restored.
	var lost string
	for o, err := range s.Objects() {
		if err != nil {
			t.Fatal(err)
		}
		if o.Size == 100 {
			lost = filepath.Join(s.Dir(), "objects", o.Digest.ObjectPath())
		}
	}
	if err := os.Remove(lost); err != nil {
		t.Fatal(err)
	}
	refuse(ImportOptions{Name: "image", ImageObjects: imageObjects})
	refuse(ImportOptions{Name: "image", Verify: true})
	if _, err := os.Stat(lost); err == nil {
		t.Error("the object was restored")
	}
}

// TestAcceptedIndex asks once, with the image index that led to the manifest, whatever the store has of it.
func TestAcceptedIndex(t *testing.T) {
	s := storetest.New(t, store.InitOptions{})
	src := &indexed{newSource(t, ocitest.Image{Layers: text(t, sampleText)}), ocispec.Descriptor{Digest: digest.FromString("index"), Size: 5}}
	want := Resolved{Root: src.root.Digest, Manifest: src.built.Root().Digest}
	for _, name := range []string{"a", "a", "b"} {
		a := &asked{}
		if _, err := Import(context.Background(), s, src, ImportOptions{Image: writeImage, Name: name, Accept: a.accept}); err != nil {
			t.Fatal(err)
		}
		if len(a.calls) != 1 || a.calls[0] != want {
			t.Errorf("asked %v, want %v once", a.calls, want)
		}
	}
}

// TestRememberedIndex has a note that says an image index leads to another manifest. Nobody who goes by signatures believes it.
func TestRememberedIndex(t *testing.T) {
	s := storetest.New(t, store.InitOptions{})
	other := newSource(t, ocitest.Image{Layers: text(t, "file other size=100")})
	if _, err := Import(context.Background(), s, other, ImportOptions{Image: writeImage, Name: "other"}); err != nil {
		t.Fatal(err)
	}
	src := &indexed{newSource(t, ocitest.Image{Layers: text(t, sampleText)}), ocispec.Descriptor{Digest: digest.FromString("index"), Size: 5}}
	if err := s.SetNote(notesIndexes, indexNote(src.root.Digest, oci.Platform{}), other.built.Root().Digest.String()); err != nil {
		t.Fatal(err)
	}
	a := &asked{}
	r, err := Import(context.Background(), s, src, ImportOptions{Image: writeImage, Name: "image", Accept: a.accept})
	if err != nil || r.Manifest != src.built.Root().Digest || len(a.calls) != 1 || a.calls[0].Manifest != r.Manifest {
		t.Errorf("got %+v, %v, asked %v", r, err, a.calls)
	}
}

func sampleSignature(key string) Signature {
	return Signature{
		Signed: digest.FromString("signed"), Reference: "registry.example.com/a", Key: digest.FromString(key), KeyFile: "/etc/" + key,
		Payload: []byte("{}"), Signature: []byte{1, 2, 3}, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

// TestSignatures has what was verified noted, those of several keys together, until the manifest is gone.
func TestSignatures(t *testing.T) {
	s := storetest.New(t, store.InitOptions{})
	src := newSource(t, ocitest.Image{Layers: text(t, sampleText)})
	manifest := src.built.Root().Digest
	pull := func(list ...Signature) {
		t.Helper()
		a := &asked{answer: list}
		r, err := Import(context.Background(), s, src, ImportOptions{Image: writeImage, Name: "image", Accept: a.accept})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.SignedBy) != len(list) {
			t.Errorf("report: %v", r.SignedBy)
		}
	}
	check := func(keys ...string) {
		t.Helper()
		list, err := Signatures(s, manifest)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range list {
			got = append(got, strings.TrimPrefix(n.KeyFile, "/etc/"))
		}
		if fmt.Sprint(got) != fmt.Sprint(keys) {
			t.Errorf("got %q, want %q", got, keys)
		}
	}
	check()
	pull() // nothing was asked of it
	check()
	pull(sampleSignature("a"), sampleSignature("b"))
	check("a", "b")
	pull(sampleSignature("c")) // complete in the store
	check("c", "a", "b")
	pull(sampleSignature("b"))
	check("b", "c", "a")
	pull()
	check("b", "c", "a")
	list, err := Signatures(s, manifest)
	if want := sampleSignature("b"); err != nil || fmt.Sprint(list[0]) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", list[0], want)
	}

	file := filepath.Join(s.Dir(), "flatroot", signaturesFile(manifest))
	if err := os.WriteFile(file, []byte("nonsense"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Signatures(s, manifest); err == nil || !strings.Contains(err.Error(), "signatures/"+manifest.String()) {
		t.Errorf("got %v", err)
	}
	pull(sampleSignature("d"))
	check("d")

	kept := func(string) bool { return false }
	if n, err := PruneNotes(s, kept, false); n != 0 || err != nil {
		t.Errorf("pruned %d, %v", n, err)
	}
	check("d")
	stray := filepath.Join(s.Dir(), "flatroot", dirSignatures, "nonsense")
	if err := os.WriteFile(stray, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if n, err := PruneNotes(s, kept, false); n != 1 || err != nil {
		t.Errorf("pruned %d, %v", n, err)
	}
	gone := func(entry string) bool { return entry == manifestEntry(manifest) }
	if n, err := PruneNotes(s, gone, true); n != 2 || err != nil { // its origin, too
		t.Errorf("would prune %d, %v", n, err)
	}
	if n, err := PruneNotes(s, gone, false); n != 2 || err != nil {
		t.Errorf("pruned %d, %v", n, err)
	}
	check()
}

// TestHostileSignatures has files that no import wrote.
func TestHostileSignatures(t *testing.T) {
	good := fmt.Sprintf(`[{"signed":%q,"key":%q,"time":"2026-01-01T00:00:00Z","payload":"","signature":""}]`, digest.FromString("a"), digest.FromString("b"))
	if list, err := ParseSignatures([]byte(good)); err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	for _, bad := range []string{
		"", "x", "{}", good + "x", good[:len(good)-1],
		strings.Replace(good, "sha256:", "sha512:", 1),
		strings.Replace(good, `"key":"sha256:`, `"key":"`, 1),
		strings.Replace(good, "2026", "year", 1),
		strings.Replace(good, `"payload":""`, `"payload":"!"`, 1),
		"[" + strings.TrimSuffix(strings.Repeat(good[1:len(good)-1]+",", maxNotedSignatures+1), ",") + "]",
		good + strings.Repeat(" ", maxSignaturesFile),
	} {
		if list, err := ParseSignatures([]byte(bad)); err == nil {
			t.Errorf("%.200s: got %v", bad, list)
		}
	}
}
