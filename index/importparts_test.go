package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
)

// heard is a Progress that keeps what was said.
type heard struct {
	silent
	mu    sync.Mutex
	steps []string
}

func (h *heard) Step(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.steps = append(h.steps, what)
}

// partsStore is a store that has an image of these files under a name.
func partsStore(t testing.TB, name string, files ...ocitest.File) *store.Store {
	t.Helper()
	s := fastStore(t, fsverity.SHA256)
	_, err := Import(context.Background(), s, newSource(t, ocitest.Image{Layers: [][]byte{ocitest.Tar(files...)}, Compression: []ocitest.Compression{ocitest.None}}), ImportOptions{Image: writeImage, Name: name})
	must(t, err)
	return s
}

// checkPulled imports an image, of one layer, and checks all that came of it.
func checkPulled(t *testing.T, s *store.Store, src *partSource, o ImportOptions) *Report {
	t.Helper()
	o.Image = writeImage
	if o.Name == "" {
		o.Name = "image"
	}
	r, err := Import(context.Background(), s, src, o)
	if err != nil {
		t.Fatal(err)
	}
	img, err := src.Image(context.Background())
	must(t, err)
	want, err := Digest(context.Background(), src.memSource, s.Algorithm(), ImportOptions{Image: writeImage})
	must(t, err)
	if r.Image != want.Image {
		t.Errorf("the image is %s, of the whole layers %s", r.Image, want.Image)
	}
	for _, l := range img.Layers {
		must(t, WriteTar(context.Background(), s, l.DiffID, io.Discard)) // which compares the digest
		origin, err := LayerOrigin(s, l.DiffID)
		if err != nil || origin.Blob != l.Descriptor.Digest {
			t.Errorf("origin %+v, %v", origin, err)
		}
	}
	checkDescriptors(t, s)
	return r
}

func (s *partSource) fetched() (n int64) { return totalLength(s.asked) }

// blobNote tells whether it is noted what is in a blob.
func blobNote(s *store.Store, d digest.Digest) bool {
	_, err := s.Note(notesBlobs, d.String())
	return err == nil
}

// TestParts fetches files that are new, moved, doubled, inline or large.
func TestParts(t *testing.T) {
	old := partFiles()
	for _, c := range []struct {
		name  string
		files []ocitest.File
		need  int64 // bytes of content, at least and not much more
		parts int   // ranges besides those of the tables
	}{
		{"nothing new", slices.Concat(old, []ocitest.File{{Name: "usr/dir/"}}), 0, 0},
		{"one file", changed(old, map[string]func(*ocitest.File){"usr/file03": newData(100, 50_000)}), 50_000, 1},
		{"same length and path, other content; two far apart", changed(old, map[string]func(*ocitest.File){
			"usr/file03": newData(100, 50_000), "usr/file20": newData(101, 50_000)}), 100_000, 2},
		{"two with a gap between", changed(old, map[string]func(*ocitest.File){
			"usr/file03": newData(100, 300_000), "usr/file05": newData(101, 300_000)}), 650_000, 1},
		{"moved", changed(old, map[string]func(*ocitest.File){
			"usr/file03": func(f *ocitest.File) { f.Name = "opt/v2/file03" }}), 0, 0},
		{"new inline file", changed(old, map[string]func(*ocitest.File){
			"usr/inline": func(f *ocitest.File) { f.Data = "another one" }}), 11, 1},
		{"old inline file elsewhere", slices.Concat(old, []ocitest.File{{Name: "new", Data: "small enough to be inline"}}), 0, 0},
		{"new file twice", slices.Concat(old, []ocitest.File{
			{Name: "new/a", Data: noise(7, 90_000)}, {Name: "new/b", Data: noise(7, 90_000)}}), 90_000, 1},
		{"new large file", slices.Concat(old, []ocitest.File{{Name: "new", Data: noise(8, 1_300_000)}}), 1_300_000, 1},
		{"new name of an old file, as tars write it", slices.Concat([]ocitest.File{{Name: "./opt/"}}, changed(old, map[string]func(*ocitest.File){
			"usr/large": func(f *ocitest.File) { f.Name = "./usr/./large" }})), 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := partsStore(t, "image", old...)
			src := chunkedSource(t, [][]byte{ocitest.Tar(c.files...)}, nil)
			src.noWhole = true
			r := checkPulled(t, s, src, ImportOptions{})
			layer := src.built.Blobs[0].Descriptor
			if r.Bytes.Fetched != src.fetched() || r.Bytes.Fetched+r.Bytes.Reused != layer.Size {
				t.Errorf("%d bytes were given; said to be fetched: %d, reused: %d of %d", src.fetched(), r.Bytes.Fetched, r.Bytes.Reused, layer.Size)
			}
			if r.Layers != (LayerCounts{Total: 1, Fetched: 1}) {
				t.Errorf("%+v", r.Layers)
			}
			tables := src.asked[0].length()
			if got := src.fetched() - tables; got < c.need || got > c.need+c.need/50+100 || len(src.asked)-1 != c.parts {
				t.Errorf("%d bytes in %v besides the tables; want %d bytes in %d parts", got, src.asked[1:], c.need, c.parts)
			}
			if blobNote(s, layer.Digest) {
				t.Error("it is noted what is in a blob that nobody has seen")
			}
		})
	}
}

// TestPartsThenRepair pulls in parts, loses an object and a stream, and has both restored from the whole layer.
func TestPartsThenRepair(t *testing.T) {
	old := partFiles()
	s := partsStore(t, "image", old...)
	src := chunkedSource(t, [][]byte{ocitest.Tar(changed(old, map[string]func(*ocitest.File){"usr/file03": newData(100, 50_000)})...)}, nil)
	r := checkPulled(t, s, src, ImportOptions{})
	img, err := src.Image(context.Background())
	must(t, err)
	objects := layerObjects(t, s, img.Layers[0].DiffID)
	must(t, os.Remove(objectPath(s, objects[3])))
	must(t, os.Remove(objectPath(s, mustEntry(t, s, LayerEntry(img.Layers[0].DiffID)))))
	again := checkPulled(t, s, src, ImportOptions{})
	if again.Image != r.Image || again.Healed.Streams != 1 || src.opened == 0 {
		t.Errorf("%+v, %d blobs opened", again, src.opened)
	}
	checkObjects(t, s, objects...)
	if !blobNote(s, img.Layers[0].Descriptor.Digest) {
		t.Error("the blob was read whole, and it is not noted what is in it")
	}
}

// TestPartsOf is about which images help.
func TestPartsOf(t *testing.T) {
	old := partFiles()
	next := [][]byte{ocitest.Tar(changed(old, map[string]func(*ocitest.File){"usr/file03": newData(100, 50_000)})...)}
	for _, c := range []struct {
		has, name, source string
		inParts           bool
	}{
		{"image", "image", "test:image", true},
		{"example.org/os:v1", "example.org/os:v2", "docker://example.org/other:v2", true},
		{"old", "new", "test:image", true}, // from the same place
		{"old", "new", "test@sha256:0000", true},
		{"old", "new", "test:5000/image", false},
		{"old", "new", "elsewhere", false},
		{"example.org/os:v1", "example.com/os:v1", "docker://example.com/os:v1", false},
		{"image", "", "test:image", true},
	} {
		s := partsStore(t, c.has, old...)
		src := chunkedSource(t, next, nil)
		src.name = c.source
		r, err := Import(context.Background(), s, src, ImportOptions{Image: writeImage, Name: c.name})
		must(t, err)
		if inParts := r.Bytes.Reused > 0; inParts != c.inParts || src.opened > 0 == c.inParts {
			t.Errorf("%+v: %d reused, %d blobs opened", c, r.Bytes.Reused, src.opened)
		}
	}
}

// TestPartsNotWorth is about layers of which all is fetched, and no more said.
func TestPartsNotWorth(t *testing.T) {
	old := partFiles()
	one := changed(old, map[string]func(*ocitest.File){"usr/file03": newData(100, 50_000)})
	for _, c := range []struct {
		name   string
		files  []ocitest.File
		change func(*chunkedBlob)
		asked  int
	}{
		{"all is new", []ocitest.File{{Name: "a", Data: noise(1000, 2_000_000)}}, nil, 1},
		{"small", []ocitest.File{{Name: "usr/file03", Data: noise(3, 50_000)}}, nil, 0},
		{"no tables", one, func(b *chunkedBlob) {
			b.annotations[annotationTOC], b.annotations[annotationTOCSum], b.annotations[annotationTarSplit] = "", "", ""
		}, 0},
		{"no tar-split data", one, func(b *chunkedBlob) { b.annotations[annotationTarSplit] = "" }, 0},
		{"no digest of the table", one, func(b *chunkedBlob) { b.annotations[annotationTOCSum] = "" }, 0},
		{"large tables", one, func(b *chunkedBlob) { b.annotations[annotationTarSplit] = "0:2500000:3000000" }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := partsStore(t, "image", old...)
			src := chunkedSource(t, [][]byte{ocitest.Tar(c.files...)}, c.change)
			var h heard
			r := checkPulled(t, s, src, ImportOptions{Progress: &h})
			layer := src.built.Blobs[0].Descriptor
			if r.Bytes.Fetched != layer.Size+src.fetched() || r.Bytes.Reused != 0 || src.opened != 1 || len(src.asked) != c.asked {
				t.Errorf("%+v, asked for %v", r.Bytes, src.asked)
			}
			if strings.Contains(strings.Join(h.steps, ""), "parts") {
				t.Errorf("said %q", h.steps)
			}
			if !blobNote(s, layer.Digest) {
				t.Error("it is not noted what is in the blob")
			}
		})
	}
}

// partLie is a layer whose tables or annotations are wrong, or a source that does not give the parts.
type partLie struct {
	name   string
	blob   func(b *chunkedBlob)
	source func(t *testing.T, s *partSource)
	limits Limits
	reason string
}

func partLies() []partLie {
	note := func(name, value string) func(*chunkedBlob) {
		return func(b *chunkedBlob) { b.annotations[name] = value }
	}
	row := func(change func(r *chunkedRow)) func(*chunkedBlob) {
		return func(b *chunkedBlob) { change(b.row("usr/file03")) }
	}
	line := func(change func(b *chunkedBlob, i int)) func(*chunkedBlob) {
		return func(b *chunkedBlob) {
			change(b, slices.IndexFunc(b.lines, func(l string) bool { return strings.Contains(l, `"usr/file03"`) }))
		}
	}
	sum := digest.FromString("x").String()
	bomb := func(b *chunkedBlob) span { return b.hide(testEncoder.EncodeAll(make([]byte, 100<<20), nil)) }
	return []partLie{
		{name: "position no number", blob: note(annotationTOC, "0:x:1:1"), reason: "invalid syntax"},
		{name: "position short", blob: note(annotationTOC, "0:1:1"), reason: "3 numbers, want 4"},
		{name: "position long", blob: note(annotationTarSplit, "0:1:1:1"), reason: "4 numbers, want 3"},
		{name: "position beyond the blob", blob: note(annotationTOC, "999999999:100:1000:1"), reason: "no such part"},
		{name: "position huge", blob: note(annotationTOC, "9223372036854775807:9223372036854775807:1000:1"), reason: "no such part"},
		{name: "position negative", blob: note(annotationTOC, "-1:100:1000:1"), reason: "no such part"},
		{name: "length zero", blob: note(annotationTarSplit, "10:0:1000"), reason: "no such part"},
		{name: "table huge", blob: note(annotationTOC, "10:100:9223372036854775807:1"), reason: "a table of 9223372036854775807 bytes"},
		{name: "tar-split data huge", blob: note(annotationTarSplit, "10:100:9223372036854775807"), reason: "a table of"},
		{name: "table of no bytes", blob: note(annotationTOC, "10:100:0:1"), reason: "a table of 0 bytes"},
		{name: "type", blob: note(annotationTOC, "10:100:1000:2"), reason: "type 2"},
		{name: "no digest", blob: note(annotationTOCSum, "md5:0"), reason: "not sha256"},
		{name: "another digest", blob: note(annotationTOCSum, sum), reason: "table of contents has digest"},
		{name: "another place", blob: note(annotationTOC, "10:100:1000:1"), reason: "table of contents has digest"},
		{name: "another place of tar-split data", blob: note(annotationTarSplit, "10:100:1000"), reason: "tar-split data has digest"},
		{name: "odd text", blob: note(annotationTOC, "\x1b[2J"), reason: "1 numbers"},

		{name: "version", blob: func(b *chunkedBlob) { b.version = 2 }, reason: "version 2"},
		{name: "no digest of tar-split data", blob: func(b *chunkedBlob) { b.noSum = true }, reason: "digest is missing"},
		{name: "two lists", blob: func(b *chunkedBlob) { b.tail = `,"entries":[]` }, reason: "two members entries"},
		{name: "no list", blob: func(b *chunkedBlob) { b.rows = nil }, reason: "<nil> where [ must be"},
		{name: "no JSON", blob: func(b *chunkedBlob) { b.tail = `,,` }, reason: "table of contents: invalid character"},
		{name: "cut", blob: func(b *chunkedBlob) { b.tail = `,"x":{` }, reason: "table of contents: unexpected EOF"},

		{name: "size negative", blob: row(func(r *chunkedRow) { r.Size = -5 }), reason: "negative"},
		{name: "size huge", blob: row(func(r *chunkedRow) { r.Size = 1 << 62 }), reason: "with it the files have more than"},
		{name: "size too small", blob: row(func(r *chunkedRow) { r.Size-- }), reason: "50000 bytes for file"},
		{name: "size too large", blob: row(func(r *chunkedRow) { r.Size++ }), reason: "50000 bytes for file"},
		{name: "offset negative", blob: row(func(r *chunkedRow) { r.Offset = -1 }), reason: "its content is at -1"},
		{name: "end beyond the blob", blob: row(func(r *chunkedRow) { r.EndOffset = 1 << 40 }), reason: "its content is at"},
		{name: "end before offset", blob: row(func(r *chunkedRow) { r.EndOffset = r.Offset }), reason: "its content is at"},
		{name: "digest missing", blob: row(func(r *chunkedRow) { r.Digest = "" }), reason: "digest is missing"},
		{name: "digest of nothing there", blob: row(func(r *chunkedRow) { r.Digest = sum }), reason: "it has digest"},
		{name: "digest of another file", blob: row(func(r *chunkedRow) { r.Digest = digest.FromString(noise(3, 50_000)).String() }), reason: "tar (the config's diffID)"},
		{name: "content of another file", blob: func(b *chunkedBlob) {
			*b.row("usr/file03") = chunkedRow{Type: "reg", Name: "usr/file03", Size: 50_000, Digest: b.row("usr/file03").Digest,
				Offset: b.row("usr/file20").Offset, EndOffset: b.row("usr/file20").EndOffset}
		}, reason: "it has digest"},
		{name: "end too early", blob: row(func(r *chunkedRow) { r.EndOffset -= 10 }), reason: "content of \"usr/file03\""},
		{name: "end too late", blob: row(func(r *chunkedRow) { r.EndOffset += 1000 }), reason: "content of \"usr/file03\""},
		{name: "overlap", blob: row(func(r *chunkedRow) { r.Offset-- }), reason: "content of \"usr/file03\""},
		{name: "two of one name", blob: func(b *chunkedBlob) { b.rows = append(b.rows, *b.row("usr/file03")) }, reason: "there are two of this name"},
		{name: "one digest, two sizes", blob: func(b *chunkedBlob) {
			b.rows = append(b.rows, chunkedRow{Type: "reg", Name: "other", Size: 7, Digest: b.row("usr/file03").Digest, EndOffset: 10})
		}, reason: "another one of the same digest has another size"},
		{name: "file missing", blob: func(b *chunkedBlob) { b.row("usr/file03").Type = "hardlink" }, reason: "has no file"},
		{name: "more files than allowed", limits: Limits{MaxEntries: 40}, blob: func(b *chunkedBlob) {
			for i := range 30 {
				r := *b.row("usr/file03")
				r.Name = fmt.Sprint(i)
				b.rows = append(b.rows, r)
			}
		}, reason: "one more than 40 files"},
		{name: "bomb", blob: func(b *chunkedBlob) {
			s, r := bomb(b), b.row("usr/file03")
			r.Offset, r.EndOffset = s.offset, s.end
		}, reason: "more of it than was announced"},
		{name: "bomb with its size", blob: func(b *chunkedBlob) {
			s, r := bomb(b), b.row("usr/file03")
			r.Offset, r.EndOffset, r.Size, r.Digest = s.offset, s.end, 100<<20, digest.FromBytes(make([]byte, 100<<20)).String()
		}, reason: "50000 bytes for file"},
		{name: "bomb of a table", blob: func(b *chunkedBlob) {
			data := testEncoder.EncodeAll(bytes.Repeat([]byte(" "), 100<<20), nil)
			s := b.hide(data)
			b.annotations[annotationTOC] = fmt.Sprintf("%d:%d:%d:1", s.offset, s.length(), maxTOC)
			b.annotations[annotationTOCSum] = digest.FromBytes(data).String()
		}, reason: "unexpected EOF"},
		{name: "large window", blob: func(b *chunkedBlob) {
			// A frame's header (RFC 8878, 3.1.1.1) that asks for a window of 1 GiB.
			s, r := b.hide(append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0}, make([]byte, 100)...)), b.row("usr/file03")
			r.Offset, r.EndOffset = s.offset, s.end
		}, reason: "window size exceeded"},

		{name: "tar-split: no such file", blob: line(func(b *chunkedBlob, i int) { b.lines[i] = strings.Replace(b.lines[i], "file03", "file99", 1) }), reason: "has no file \"usr/file99\""},
		{name: "tar-split: twice", blob: line(func(b *chunkedBlob, i int) { b.lines = slices.Insert(b.lines, i, b.lines[i]) }), reason: "for the second time"},
		{name: "tar-split: size", blob: line(func(b *chunkedBlob, i int) {
			b.lines[i] = strings.Replace(b.lines[i], "50000", "9000000000000000000", 1)
		}), reason: "9000000000000000000 bytes for file"},
		{name: "tar-split: negative size", blob: line(func(b *chunkedBlob, i int) { b.lines[i] = strings.Replace(b.lines[i], "50000", "-1", 1) }), reason: "-1 bytes for file"},
		{name: "tar-split: type", blob: line(func(b *chunkedBlob, i int) { b.lines[i] = strings.Replace(b.lines[i], `"type":1`, `"type":3`, 1) }), reason: "type 3"},
		{name: "tar-split: no JSON", blob: line(func(b *chunkedBlob, i int) { b.lines[i] = "{\n" }), reason: "unexpected end of JSON"},
		{name: "tar-split: long line", blob: line(func(b *chunkedBlob, i int) { b.lines[i] = strings.Repeat(" ", maxTarSplitLine+1) + b.lines[i] }), reason: "token too long"},
		{name: "tar-split: file left out", blob: line(func(b *chunkedBlob, i int) { b.lines = slices.Delete(b.lines, i, i+1) }), reason: ""},
		{name: "tar-split: end left out", blob: func(b *chunkedBlob) { b.lines = b.lines[:len(b.lines)-1] }, reason: ""},
		{name: "tar-split: more at the end", blob: func(b *chunkedBlob) { b.lines = append(b.lines, `{"type":2,"payload":"AAAA"}`+"\n") }, reason: "tar (the config's diffID)"},
		{name: "tar-split: a tar that can't be", blob: func(b *chunkedBlob) { b.lines[0] = `{"type":2,"payload":"/////w=="}` + "\n" }, reason: "tar entry"},

		{name: "no ranges", source: func(_ *testing.T, s *partSource) {
			s.part = func(digest.Digest, span) (io.Reader, error) { return nil, fmt.Errorf("GET: %w", oci.ErrNoRange) }
		}, reason: oci.ErrNoRange.Error()},
		{name: "part missing", source: func(_ *testing.T, s *partSource) {
			s.part = func(_ digest.Digest, at span) (io.Reader, error) {
				if s.requests() > 1 {
					return nil, errors.New("503")
				}
				return nil, nil
			}
		}, reason: "503"},
		{name: "part short", source: func(_ *testing.T, s *partSource) {
			s.part = func(_ digest.Digest, at span) (io.Reader, error) {
				if s.requests() > 1 {
					return strings.NewReader("short"), nil
				}
				return nil, nil
			}
		}, reason: "unexpected EOF"},
		{name: "part changed", source: func(_ *testing.T, s *partSource) {
			s.part = func(_ digest.Digest, at span) (io.Reader, error) {
				if s.requests() > 1 {
					return zeroReader{}, nil
				}
				return nil, nil
			}
		}, reason: "content of"},
	}
}

// TestLies checks that no lie gives a wrong tree: without the whole blob nothing is named, and with it all is as it should be.
func TestLies(t *testing.T) {
	old := partFiles()
	next := [][]byte{ocitest.Tar(changed(old, map[string]func(*ocitest.File){"usr/file03": newData(100, 50_000)})...)}
	for _, c := range partLies() {
		t.Run(c.name, func(t *testing.T) {
			goroutines := runtime.NumGoroutine()
			s := partsStore(t, "image", old...)
			src := chunkedSource(t, next, c.blob)
			if c.source != nil {
				c.source(t, src)
			}
			d := oci.DiffID(digest.FromBytes(next[0]))
			layer := src.built.Blobs[0].Descriptor
			src.noWhole = true
			_, err := Import(context.Background(), s, src, ImportOptions{Image: writeImage, Name: "next", Limits: c.limits})
			checkError(t, err, []string{"it is to be had in parts only"})
			if _, err := s.Entry(store.Streams, LayerEntry(d)); !errors.Is(err, store.ErrNotFound) || blobNote(s, layer.Digest) {
				t.Errorf("the layer has a name: %v", err)
			}
			if _, err := Find(s, "next"); !errors.Is(err, ErrNoImage) {
				t.Errorf("the image has a name: %v", err)
			}
			src.noWhole, src.asked = false, nil
			var h heard
			r := checkPulled(t, s, src, ImportOptions{Progress: &h, Name: "next", Limits: c.limits})
			if said := strings.Join(h.steps, "\n"); !strings.Contains(said, "all of it is fetched, as its parts can't be: ") || !strings.Contains(said, c.reason) ||
				strings.Contains(said, "\x1b") || strings.Contains(said, "context canceled") {
				t.Errorf("said %q", said)
			}
			if got := r.Bytes.Fetched; got < layer.Size || r.Bytes.Reused != 0 || !blobNote(s, layer.Digest) {
				t.Errorf("%+v", r.Bytes)
			}
			checkGoroutines(t, goroutines)
		})
	}
}

// TestPartsLost has an object vanish, and one change, on which the image to come would rely.
func TestPartsLost(t *testing.T) {
	old := partFiles()
	for _, c := range damages[:3] { // what doesn't show is fsck's business, here as everywhere
		t.Run(c.name, func(t *testing.T) {
			s := partsStore(t, "image", old...)
			i, err := Find(s, "image")
			must(t, err)
			path := objectPath(s, layerObjects(t, s, i.Layers[0].DiffID)[3])
			c.do(t, path)
			src := chunkedSource(t, [][]byte{ocitest.Tar(slices.Concat(old, []ocitest.File{{Name: "new/"}})...)}, nil)
			src.noWhole = true
			r := checkPulled(t, s, src, ImportOptions{})
			if n := src.fetched() - src.asked[0].length(); n < 50_000 || n > 51_000 || r.Objects.New != 1 {
				t.Errorf("%d bytes fetched, %+v", n, r.Objects)
			}
		})
	}
}

// TestPartsCancelled ends imports that wait for a part.
func TestPartsCancelled(t *testing.T) {
	old := partFiles()
	next := [][]byte{ocitest.Tar(changed(old, map[string]func(*ocitest.File){"usr/file03": newData(100, 50_000), "usr/file20": newData(101, 50_000)})...)}
	for after := range 3 {
		goroutines := runtime.NumGoroutine()
		s := partsStore(t, "image", old...)
		src := chunkedSource(t, next, nil)
		ctx, cancel := context.WithCancel(context.Background())
		src.part = func(digest.Digest, span) (io.Reader, error) {
			if src.requests() > after {
				return &stalled{ctx, nil, cancel}, nil
			}
			return nil, nil
		}
		_, err := Import(ctx, s, src, ImportOptions{Image: writeImage, Name: "next"})
		if !errors.Is(err, context.Canceled) || src.opened > 0 {
			t.Errorf("%v, %d blobs opened", err, src.opened)
		}
		if _, err := Find(s, "next"); !errors.Is(err, ErrNoImage) {
			t.Errorf("the image has a name: %v", err)
		}
		checkDescriptors(t, s)
		checkGoroutines(t, goroutines)
		cancel()
	}
}

// TestPartsOfLayers has several layers at once, one of them a lie, and everything read again that the store has.
func TestPartsOfLayers(t *testing.T) {
	old := partFiles()
	s := partsStore(t, "image", old...)
	var tars [][]byte
	for i := range 5 {
		tars = append(tars, ocitest.Tar(changed(old, map[string]func(*ocitest.File){"usr/file03": newData(uint64(100+i), 50_000)})...))
	}
	n := 0
	src := chunkedSource(t, tars, func(b *chunkedBlob) {
		if n++; n == 3 {
			b.row("usr/file03").Digest = digest.FromString("x").String()
		}
	})
	r := checkPulled(t, s, src, ImportOptions{Verify: true})
	if src.opened != 1 || r.Layers.Fetched != 5 || r.Bytes.Reused < 8_000_000 {
		t.Errorf("%d blobs opened, %+v", src.opened, r)
	}
}

// TestPartsMetadata checks that what is counted for an attempt in vain is not counted again.
func TestPartsMetadata(t *testing.T) {
	old := partFiles()
	s := partsStore(t, "image", old...)
	next := [][]byte{ocitest.Tar(changed(old, map[string]func(*ocitest.File){"usr/file03": newData(100, 50_000)})...)}
	for _, reason := range []string{"diffID", "error"} {
		src := chunkedSource(t, next, func(b *chunkedBlob) {
			if reason == "diffID" {
				b.lines = append(b.lines, `{"type":2,"payload":"AAAA"}`+"\n")
			} else {
				b.lines = append(b.lines, "x\n")
			}
		})
		im := newImporter(s.Algorithm(), src, ImportOptions{Image: writeImage, Name: "image"})
		im.s = s
		var err error
		im.img, err = src.Image(context.Background())
		must(t, err)
		must(t, im.fetchLayers(context.Background()))
		if got, want := int(im.bounds.metadata.Load()), im.layers[0].result.kept; got != want {
			t.Errorf("%s: %d bytes counted, %d kept", reason, got, want)
		}
	}
}

// TestMatchOnce checks that no table has an object read twice, and that one that can't be read is no content.
func TestMatchOnce(t *testing.T) {
	s := partsStore(t, "image", partFiles()...)
	c, err := relatedFiles(context.Background(), s, "image", newSource(t, ocitest.Image{}))
	must(t, err)
	objects := c.of("usr/file03", 50_000)
	if len(objects) != 1 {
		t.Fatalf("%d candidates", len(objects))
	}
	m := &matcher{s: s, sums: map[fsverity.Digest][32]byte{}}
	find := func(content string) bool {
		want := &tocContent{sum: sha256.Sum256([]byte(content)), size: int64(len(content))}
		return !m.first(context.Background(), objects, want, make([]byte, 100)).IsZero()
	}
	if find(noise(5, 50_000)) {
		t.Error("an object was taken for another content")
	}
	path := objectPath(s, objects[0])
	must(t, os.Rename(path, path+"-away"))
	if !find(noise(3, 50_000)) {
		t.Error("an object was read twice")
	}
	m.sums = map[fsverity.Digest][32]byte{}
	if !m.first(context.Background(), objects, &tocContent{size: 50_000}, make([]byte, 100)).IsZero() {
		t.Error("an object that is not there was taken for a content")
	}
	must(t, os.Rename(path+"-away", path))
}

func TestMergeSpans(t *testing.T) {
	for _, c := range []struct {
		need  []span
		extra int64
		want  []span
	}{
		{nil, 0, nil},
		{[]span{{5, 9}}, 0, []span{{5, 9}}},
		{[]span{{20, 30}, {0, 10}, {10, 15}, {12, 20}}, 0, []span{{0, 30}}},
		{[]span{{0, 1000}, {1050, 2000}, {3000, 4000}}, 0, []span{{0, 2000}, {3000, 4000}}},
		{[]span{{0, 1000}, {1050, 2000}, {3000, 4000}}, 10_000, []span{{0, 4000}}},
		{[]span{{0, 1000}, {1200, 2000}, {2200, 3000}, {3010, 4000}}, 0, []span{{0, 1000}, {1200, 2000}, {2200, 4000}}},
		{[]span{{0, 1}, {1 + requestBytes, 2 + requestBytes}, {3 + 2*requestBytes, 4 + 2*requestBytes}}, 1 << 40,
			[]span{{0, 2 + requestBytes}, {3 + 2*requestBytes, 4 + 2*requestBytes}}},
	} {
		if got := mergeSpans(c.need, c.extra); !slices.Equal(got, c.want) {
			t.Errorf("%v, %d: %v, want %v", c.need, c.extra, got, c.want)
		}
	}
}

func TestRepositoryPart(t *testing.T) {
	for reference, want := range map[string]string{
		"": "", "web": "web", "web:v1": "web", "example.org:5000/os": "example.org:5000/os", "example.org:5000/os:v1": "example.org:5000/os",
		"docker://example.org/os:v1@sha256:00": "docker://example.org/os", "oci:dir/image:v1": "oci:dir/image", "oci:dir": "oci",
	} {
		if got := repositoryPart(reference); got != want {
			t.Errorf("%s: %s", reference, got)
		}
	}
}
