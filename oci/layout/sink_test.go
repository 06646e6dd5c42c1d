package layout_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/layout"
	"github.com/flatroot/flatroot/oci/ocitest"
)

// create opens a sink and closes it after the test.
func create(t *testing.T, dir, name string) *layout.Sink {
	t.Helper()
	s, err := layout.Create(context.Background(), oci.Reference{Transport: oci.OCI, Path: dir, Tag: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// put writes an image through a sink.
func put(s oci.Sink, b *ocitest.Built) error {
	ctx := context.Background()
	last := len(b.Blobs) - 1
	for _, blob := range b.Blobs[:last] {
		if err := s.PutBlob(ctx, blob.Descriptor, bytes.NewReader(blob.Data)); err != nil {
			return err
		}
	}
	return s.PutManifest(ctx, b.Blobs[last].Data, b.Root())
}

// sample builds an image whose content is text.
func sample(t *testing.T, text string) *ocitest.Built {
	t.Helper()
	b, err := ocitest.Image{Layers: [][]byte{ocitest.Tar(ocitest.File{Name: "f", Data: text})}, Platform: amd64}.Build()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// files lists all files below a directory, with their contents.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir+"/")] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSinkWritesWhatSourceReads(t *testing.T) {
	ocitest.TestSource(t, func(t *testing.T, b *ocitest.Built) func(oci.Platform) (oci.Source, error) {
		dir := filepath.Join(t.TempDir(), "new", "layout")
		if b.Honest() && len(b.Blobs) > 1 {
			// A sink refuses what lacks blobs, as it should: those few
			// layouts are written by the other means.
			if err := put(create(t, dir, "v1"), b); err != nil && !strings.Contains(err.Error(), "has not been put") && !errors.Is(err, oci.ErrArtifact) {
				t.Fatal(err)
			} else if err == nil {
				return opener(dir)
			}
		}
		if err := b.WriteLayout(dir, "v1"); err != nil {
			t.Fatal(err)
		}
		return opener(dir)
	})
}

func opener(dir string) func(oci.Platform) (oci.Source, error) {
	return func(p oci.Platform) (oci.Source, error) {
		return layout.Open(oci.Reference{Transport: oci.OCI, Path: dir, Tag: "v1"}, layout.Options{Platform: p})
	}
}

func TestSinkBytes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "l")
	b := sample(t, "x")
	for range 2 { // putting twice changes nothing
		if err := put(create(t, dir, "v1"), b); err != nil {
			t.Fatal(err)
		}
		root := b.Root()
		want := map[string]string{
			"oci-layout": `{"imageLayoutVersion":"1.0.0"}`,
			"index.json": fmt.Sprintf(`{"manifests":[{"mediaType":"%s","digest":"%s","size":%d,"annotations":{"org.opencontainers.image.ref.name":"v1"}}],"mediaType":"%s","schemaVersion":2}`,
				root.MediaType, root.Digest, root.Size, ocispec.MediaTypeImageIndex),
		}
		for _, blob := range b.Blobs {
			want["blobs/sha256/"+blob.Descriptor.Digest.Encoded()] = string(blob.Data)
		}
		got := files(t, dir)
		for name, content := range want {
			if got[name] != content {
				t.Errorf("%s is %q, want %q", name, got[name], content)
			}
		}
		if len(got) != len(want) {
			t.Errorf("got %d files, want %d: %v", len(got), len(want), got)
		}
	}
	for name := range files(t, dir) {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode() != 0o644 {
			t.Errorf("%s: %v, %v", name, fi.Mode(), err)
		}
	}
}

func TestSinkKeepsOthers(t *testing.T) {
	dir := t.TempDir()
	other := `{"annotations":{"org.opencontainers.image.ref.name":"other","x":"<&>"},"digest":"` + digest.FromString("gone").String() + `","mediaType":"application/vnd.example+json","size":4,"unknown":[1]}`
	same := strings.Replace(other, `"other"`, `"v1"`, 1)
	overwrite(t, dir, "oci-layout", `{"imageLayoutVersion":"1.0.0","more":1}`)
	overwrite(t, dir, "index.json", `{"zzz":{"a":1},"schemaVersion":2,"manifests":[`+same+`,`+other+`,`+same+`]}`)
	b := sample(t, "new")
	if err := put(create(t, dir, "v1"), b); err != nil {
		t.Fatal(err)
	}
	got := files(t, dir)["index.json"]
	entry, err := json.Marshal(ocispec.Descriptor{MediaType: b.Root().MediaType, Digest: b.Root().Digest, Size: b.Root().Size,
		Annotations: map[string]string{ocispec.AnnotationRefName: "v1"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"manifests":[` + string(entry) + `,` + other + `],"schemaVersion":2,"zzz":{"a":1}}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// Without a name: entered, and entered once.
	for range 2 {
		if err := put(create(t, dir, ""), sample(t, "nameless")); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(files(t, dir)["index.json"], `"digest"`); n != 3 {
		t.Errorf("%d entries, want 3", n)
	}
}

func TestSinkConcurrent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "l")
	var wg sync.WaitGroup
	const pushes = 16
	for i := range pushes {
		b, ref := sample(t, fmt.Sprint(i%4)), oci.Reference{Transport: oci.OCI, Path: dir, Tag: fmt.Sprintf("v%d", i)}
		wg.Go(func() {
			s, err := layout.Create(context.Background(), ref)
			if err == nil {
				err = errors.Join(put(s, b), s.Close())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range pushes {
		if _, err := image(dir, fmt.Sprintf(":v%d", i), oci.Platform{}); err != nil {
			t.Errorf("push %d is lost: %v", i, err)
		}
	}
	if n := len(files(t, dir)); n != 2+4*3 {
		t.Errorf("%d files, want 14", n)
	}
}

func TestSinkRefusesBadBlobs(t *testing.T) {
	good := []byte("some content")
	desc := ocispec.Descriptor{Digest: digest.FromBytes(good), Size: int64(len(good))}
	dir := filepath.Join(t.TempDir(), "l")
	s := create(t, dir, "v1")
	before := len(files(t, dir))
	boom := errors.New("boom")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		desc ocispec.Descriptor
		r    io.Reader
		want string
	}{
		"other bytes": {context.Background(), desc, strings.NewReader("SOME content"), "has digest"},
		"shorter":     {context.Background(), desc, bytes.NewReader(good[1:]), "has 11 bytes"},
		"longer":      {context.Background(), desc, io.MultiReader(bytes.NewReader(good), strings.NewReader("x")), "longer than the 12 bytes"},
		"read error":  {context.Background(), desc, iotest.ErrReader(boom), "boom"},
		"cancelled":   {ctx, desc, bytes.NewReader(good), "canceled"},
		"bad digest":  {context.Background(), ocispec.Descriptor{Digest: "sha256:../../x", Size: 1}, bytes.NewReader(good), "want 64"},
		"negative":    {context.Background(), ocispec.Descriptor{Digest: desc.Digest, Size: -1}, bytes.NewReader(good), "negative"},
	} {
		if err := s.PutBlob(c.ctx, c.desc, c.r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
		if has, err := s.HasBlob(context.Background(), desc); has || err != nil {
			t.Errorf("%s: blob is there: %v, %v", name, has, err)
		}
		if n := len(files(t, dir)); n != before {
			t.Errorf("%s: %d files, want %d", name, n, before)
		}
	}
	if err := s.PutBlob(context.Background(), desc, bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	if has, err := s.HasBlob(context.Background(), desc); !has || err != nil {
		t.Errorf("blob is not there: %v", err)
	}
	// What is there is not read again, and what has another size is replaced.
	if err := s.PutBlob(context.Background(), desc, iotest.ErrReader(boom)); err != nil {
		t.Error(err)
	}
	overwrite(t, dir, "blobs/sha256/"+desc.Digest.Encoded(), "cut")
	if err := s.PutBlob(context.Background(), desc, bytes.NewReader(good)); err != nil || files(t, dir)["blobs/sha256/"+desc.Digest.Encoded()] != string(good) {
		t.Errorf("cut blob: not replaced: %v", err)
	}
}

func TestSinkRefusesBadManifests(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "l")
	s := create(t, dir, "v1")
	b := sample(t, "x")
	ctx := context.Background()
	raw := b.Find("manifest").Data
	if err := s.PutManifest(ctx, raw, b.Root()); err == nil || !strings.Contains(err.Error(), "has not been put") {
		t.Errorf("without blobs: got %v", err)
	}
	for _, blob := range b.Blobs[:len(b.Blobs)-1] {
		if err := s.PutBlob(ctx, blob.Descriptor, bytes.NewReader(blob.Data)); err != nil {
			t.Fatal(err)
		}
	}
	var de *oci.DigestError
	if err := s.PutManifest(ctx, raw, ocispec.Descriptor{Digest: digest.FromString("x"), Size: int64(len(raw))}); !errors.As(err, &de) {
		t.Errorf("other digest: got %v", err)
	}
	if err := s.PutManifest(ctx, []byte("{}"), b.Root()); err == nil {
		t.Error("no manifest: accepted")
	}
	if _, ok := files(t, dir)["index.json"]; ok {
		t.Error("something was entered")
	}
	overwrite(t, dir, "index.json", "damaged")
	if err := s.PutManifest(ctx, raw, b.Root()); err == nil || files(t, dir)["index.json"] != "damaged" {
		t.Errorf("damaged index.json: got %v", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	full := t.TempDir()
	overwrite(t, full, "letter.txt", "dear")
	old := t.TempDir()
	overwrite(t, old, "oci-layout", `{"imageLayoutVersion":"0.1"}`)
	file := filepath.Join(full, "letter.txt")
	damaged := t.TempDir()
	overwrite(t, damaged, "oci-layout", `{"imageLayoutVersion":"1.0.0"}`)
	overwrite(t, damaged, "index.json", "{")
	for name, c := range map[string]struct {
		ref  oci.Reference
		want string
	}{
		"full":    {oci.Reference{Path: full}, `not empty: it has "letter.txt"`},
		"old":     {oci.Reference{Path: old}, `version is "0.1"`},
		"file":    {oci.Reference{Path: file}, "not a directory"},
		"damaged": {oci.Reference{Path: damaged}, "index.json: "},
		"digest":  {oci.Reference{Path: old, Digest: digest.FromString("")}, "can't be written to a digest"},
	} {
		c.ref.Transport = oci.OCI
		if _, err := layout.Create(context.Background(), c.ref); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
	}
	if n := len(files(t, full)); n != 1 {
		t.Errorf("%d files where one was", n)
	}
}

func TestLockHeedsContext(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "l")
	create(t, dir, "")
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("enough"))
	_, err = layout.Create(ctx, oci.Reference{Transport: oci.OCI, Path: dir})
	if err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("got %v", err)
	}
}

// TestStage: a staged blob is there once it is published, and nothing of it is if it is not.
func TestStage(t *testing.T) {
	ctx, dir := context.Background(), filepath.Join(t.TempDir(), "layout")
	s := create(t, dir, "")
	stage := func(text string) oci.StagedBlob {
		t.Helper()
		b, err := s.Stage()
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range strings.SplitAfter(text, " ") {
			if n, err := io.WriteString(b, part); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		if want := oci.Describe("", []byte(text)); b.Descriptor().Digest != want.Digest || b.Descriptor().Size != want.Size {
			t.Errorf("descriptor %v, want %v", b.Descriptor(), want)
		}
		return b
	}
	first, again, dropped := stage("some blob"), stage("some blob"), stage("another one")
	if has, err := s.HasBlob(ctx, first.Descriptor()); has || err != nil {
		t.Errorf("before it is published: %t, %v", has, err)
	}
	for _, b := range []oci.StagedBlob{first, again} {
		if err := b.Publish(ctx); err != nil {
			t.Fatal(err)
		}
	}
	ended, end := context.WithCancel(ctx)
	end()
	if err := dropped.Publish(ended); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "put blob sha256:") {
		t.Error(err)
	}
	for _, b := range []oci.StagedBlob{first, again, dropped} {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	path := filepath.Join(dir, "blobs", "sha256", first.Descriptor().Digest.Encoded())
	if got, err := os.ReadFile(path); string(got) != "some blob" {
		t.Error(string(got), err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode() != 0o644 {
		t.Error(fi, err)
	}
	for _, list := range []string{".flatroot-*", "blobs/sha256/*"} {
		names, err := filepath.Glob(filepath.Join(dir, list))
		if want := map[string]int{".flatroot-*": 0, "blobs/sha256/*": 1}[list]; len(names) != want || err != nil {
			t.Errorf("%s: %v, %v", list, names, err)
		}
	}
}
