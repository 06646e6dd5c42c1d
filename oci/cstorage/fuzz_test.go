package cstorage

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/cstorage/cstoragetest"
	"github.com/flatroot/flatroot/oci/ocitest"
)

// zip compresses as fast as can be.
func zip(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err == nil {
		_, err = z.Write(b)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// FuzzRecords reads images.json and layers.json, and follows what stands in them.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`[{"id":"a","names":["localhost/web:latest"],"layer":"b","digest":"sha256:00","big-data-names":["manifest"]}]`),
		[]byte(`[{"id":"b","parent":"c","diff-digest":"sha256:00","diff-size":1},{"id":"c","flags":{"incomplete":false}}]`))
	f.Add([]byte(`[{"id":"a","layer":"a"}]`), []byte(`[{"id":"a","parent":"a"}]`))
	f.Add([]byte(`null`), []byte(`[{"id":"..","flags":{"incomplete":[]}},{"ID":"x","id":"y"}]`))
	f.Add([]byte(`[[`), []byte(`{"a":[]}`))
	f.Fuzz(func(t *testing.T, images, layers []byte) {
		var all []*imageRecord
		byID := map[string]*layerRecord{}
		err := parseRecords(bytes.NewReader(images), func(i *imageRecord) { all = append(all, i) })
		if err != nil && err.Error() == "" {
			t.Fatal("an error that says nothing")
		}
		_ = parseRecords(bytes.NewReader(layers), func(l *layerRecord) {
			if validID(l.ID) {
				byID[l.ID] = l
			}
		})
		for _, what := range []target{{name: "web"}, {id: "a"}, {name: "a", digest: "sha256:00"}} {
			i, err := pick(all, what)
			if err != nil {
				if len(err.Error()) > 8<<10 {
					t.Fatalf("an error of %d bytes", len(err.Error()))
				}
				continue
			}
			list, err := chain(byID, i.TopLayer)
			if err == nil && len(list) > len(byID) {
				t.Fatalf("a chain of %d layers out of %d", len(list), len(byID))
			}
		}
	})
}

// FuzzSplit puts a tar together from any entries, of files that are there, missing, or elsewhere.
func FuzzSplit(f *testing.F) {
	var seed bytes.Buffer
	tar := ocitest.Tar(ocitest.File{Name: "d/"}, ocitest.File{Name: "d/f", Data: "content"}, ocitest.File{Name: "l", Link: "d/f"})
	dir := f.TempDir()
	path := filepath.Join(dir, "split")
	if err := cstoragetest.Unpack(tar, filepath.Join(dir, "diff"), path); err != nil {
		f.Fatal(err)
	}
	packed, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err == nil {
		_, err = io.Copy(&seed, z)
	}
	if err != nil {
		f.Fatal(err)
	}
	if err := os.Symlink(path, filepath.Join(dir, "diff/out")); err != nil {
		f.Fatal(err)
	}
	f.Add(seed.Bytes(), int64(len(tar)))
	f.Add([]byte(`{"type":1,"name":"../split","size":7,"payload":"","position":0}`+"\n"), int64(7))
	f.Add([]byte(`{"type":1,"name_raw":"b3V0","size":9223372036854775807}`+"\n"+`{"type":1,"size":1}`+"\n"), int64(-1))
	f.Add([]byte(`{"type":2,"payload":"AAAA"}`+"\n\n"), int64(3))
	f.Add([]byte(strings.Repeat(`{"type":2,"payload":"AAAA"}`+"\n", 100)+`{"type":3}`), int64(300))
	f.Fuzz(func(t *testing.T, entries []byte, size int64) {
		size &= math.MaxInt64 // openLayer has no other
		zipped := zip(t, entries)
		counted, sizeErr := tarSize(bytes.NewReader(zipped))
		files, err := openDir(filepath.Join(dir, "diff"))
		if err != nil {
			t.Fatal(err)
		}
		split, err := os.Open(path) // for its name
		if err != nil {
			t.Fatal(err)
		}
		r := newLayerReader(context.Background())
		r.files, r.split, r.size = files, split, size
		if r.from, err = newSplitReader(bytes.NewReader(zipped)); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		n, err := io.Copy(&out, r)
		if n > size {
			t.Fatalf("%d bytes of a tar of %d", n, size)
		}
		if err == nil && (n != size || sizeErr != nil || counted != size) {
			t.Fatalf("%d bytes of a tar of %d, which was counted as %d, %v", n, size, counted, sizeErr)
		}
		if bytes.Contains(out.Bytes(), packed[:8]) {
			t.Fatal("it read a file outside of the layer")
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzReference reads what follows containers-storage:, which a user writes, or a note in a store.
func FuzzReference(f *testing.F) {
	for _, s := range []string{"web", "[overlay@/a+/b:x=y,overlay.imagestore=/c]web:v1", "web@abc", "[/a]@sha256:" + digest.FromString("").Encoded(), "[", "[]@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, what, err := parse(s)
		if err != nil || p.graphRoot == "" {
			return
		}
		_, rest := cutPlace(s)
		driver := p.driver
		if driver == "" {
			driver = "vfs"
		}
		again, whatAgain, err := parse(p.with(driver) + rest)
		if strings.ContainsAny(strings.Join(p.images, "")+p.graphRoot+p.runRoot, ",:]+@") {
			return // such paths can't be written in brackets
		}
		if err != nil || whatAgain != what || again.graphRoot != p.graphRoot || again.runRoot != p.runRoot || len(again.images) != len(p.images) {
			t.Fatalf("%q: %+v %+v, written again: %+v %+v, %v", s, p, what, again, whatAgain, err)
		}
		if what.digest != "" && oci.CheckDigest(what.digest) != nil {
			t.Fatalf("%q: digest %q", s, what.digest)
		}
	})
}

// TestBomb has a small tar-split file that would be a large tar, and an entry that is too long.
func TestBomb(t *testing.T) {
	line := `{"type":2,"payload":"` + strings.Repeat("A", 1<<20) + `"}` + "\n"
	r, err := newSplitReader(bytes.NewReader(zip(t, []byte(strings.Repeat(line, 16)))))
	if err != nil {
		t.Fatal(err)
	}
	for r.free = 8 << 20; err == nil; {
		_, err = r.next()
	}
	if !strings.Contains(err.Error(), "decompression bomb") {
		t.Errorf("after %d bytes: %v", r.bytes, err)
	}
	if _, err := tarSize(bytes.NewReader(zip(t, bytes.Repeat([]byte("x"), maxEntry+1<<20)))); err == nil || !strings.Contains(err.Error(), "an entry has more than") {
		t.Errorf("got %v", err)
	}
}
