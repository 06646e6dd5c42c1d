package index

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
)

// FuzzTables reads annotations. What is accepted lies in the blob and has bounds.
func FuzzTables(f *testing.F) {
	sum := digest.FromString("x").String()
	for _, c := range [][2]string{
		{"100:20:300:1", "130:20:300"}, {"", ""}, {"1:2:3", ":::"}, {"-1:5:5:1", "0:0:0"}, {"9223372036854775807:1:1:1", "1:9223372036854775807:1"},
		{"0:1:67108864:1", "999:1:536870912"}, {"+1:1:1:1", "1:1:0x10"},
	} {
		f.Add(c[0], sum, c[1], int64(1000))
	}
	f.Fuzz(func(t *testing.T, toc, sum, split string, size int64) {
		d := ocispec.Descriptor{Size: size, Annotations: map[string]string{annotationTOC: toc, annotationTOCSum: sum, annotationTarSplit: split}}
		at, err := findTables(d)
		if err != nil {
			return
		}
		for _, p := range []tablePlace{at.toc, at.tarSplit} {
			if p.offset < 0 || p.length <= 0 || p.offset+p.length > size || p.offset+p.length < 0 || p.size <= 0 || p.size > maxTarSplit {
				t.Errorf("%q, %q: %+v in %d bytes", toc, split, p, size)
			}
		}
		if at.toc.size > maxTOC || oci.CheckDigest(at.tocSum) != nil {
			t.Errorf("%+v", at)
		}
	})
}

var fuzzTOCLimits = tocLimits{blob: 1000, maxFiles: 20, maxSize: 100_000}

// FuzzTOC reads a table of contents. What is accepted can be relied on by who reads the contents.
func FuzzTOC(f *testing.F) {
	b := newChunked(f, ocitest.Tar(ocitest.File{Name: "usr/"}, ocitest.File{Name: "usr/a", Data: "text"}, ocitest.File{Name: "usr/b", Data: "text"},
		ocitest.File{Name: "usr/c", Data: strings.Repeat("long", 20_000)}))
	toc, err := json.Marshal(map[string]any{"version": 1, "entries": b.rows, "tarSplitDigest": digest.FromString("x")})
	must(f, err)
	f.Add(toc)
	for _, s := range []string{`{}`, `[]`, `{"version":1,"entries":[]}`, `{"version":1,"entries":[{"type":"reg","size":1}]}`, `{"entries":null}`,
		`{"version":1,"version":1}`, `{"x":{"y":[1,2,{"z":null}]},"version":1e0}`, strings.Repeat(`{"x":`, 1000), `{"entries":[{"type":"reg","name":"a","size":1e99}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		toc, err := parseTOC(bytes.NewReader(data), fuzzTOCLimits)
		if err != nil {
			return
		}
		checkTOC(t, toc, fuzzTOCLimits)
	})
}

func checkTOC(t *testing.T, toc *toc, l tocLimits) {
	t.Helper()
	total := int64(0)
	for n, f := range toc.files {
		if int(toc.byName[f.name]) != n {
			t.Errorf("file %d, %q, is found as number %d", n, f.name, toc.byName[f.name])
		}
		c := toc.contents[f.content]
		if c.size <= 0 || c.offset < 0 || c.end <= c.offset || c.end > l.blob {
			t.Errorf("%q: %+v", f.name, c)
		}
		total += c.size
	}
	if int64(len(toc.files)) > l.maxFiles || len(toc.byName) != len(toc.files) || total > l.maxSize || oci.CheckDigest(toc.tarSplitSum) != nil {
		t.Errorf("%d files, %d names, %d bytes, %s", len(toc.files), len(toc.byName), total, toc.tarSplitSum)
	}
}

// FuzzTocTar puts a tar together from a table, tar-split data and a blob. It never gives more than the table and the tar-split
// data can account for, and contents only with the digests of the table.
func FuzzTocTar(f *testing.F) {
	tar := ocitest.Tar(ocitest.File{Name: "usr/"}, ocitest.File{Name: "usr/a", Data: "text"}, ocitest.File{Name: "usr/b", Data: "text"},
		ocitest.File{Name: "usr/c", Data: strings.Repeat("long", 20_000)})
	b := newChunked(f, tar)
	toc, err := json.Marshal(map[string]any{"version": 1, "entries": b.rows, "tarSplitDigest": digest.FromString("x")})
	must(f, err)
	f.Add(toc, []byte(strings.Join(b.lines, "")), b.frames.Bytes())
	f.Add(toc, []byte(`{"type":1,"name":"usr/a","size":4}`), b.frames.Bytes())
	f.Add(toc, []byte(strings.Join(b.lines, "")), b.frames.Bytes()[:len(b.frames.Bytes())/2])
	f.Fuzz(func(t *testing.T, table, split, blob []byte) {
		l := tocLimits{blob: int64(len(blob)), maxFiles: 100, maxSize: 1 << 20}
		toc, err := parseTOC(bytes.NewReader(table), l)
		if err != nil {
			return
		}
		checkTOC(t, toc, l)
		frames, err := newFrames(bytes.NewReader(blob))
		must(t, err)
		defer frames.close()
		r := newTocTar(toc, bytes.NewReader(split), func(n int32) (io.ReadCloser, error) { return frames.content(&toc.contents[n]) })
		n, err := io.Copy(io.Discard, r)
		if cerr := r.Close(); err == nil && cerr != nil {
			t.Errorf("it ended well, and then %v", cerr)
		}
		if n > l.maxSize+int64(len(split)) {
			t.Errorf("%d bytes of %d, %v", n, len(split), err)
		}
	})
}
