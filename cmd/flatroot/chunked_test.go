package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/tests/bench/kit"
	"github.com/flatroot/flatroot/tests/testenv"
)

// TestChunkedLayers pulls zstd:chunked images that skopeo has made: whole, and an update of which only the new files come.
func TestChunkedLayers(t *testing.T) {
	skopeo := testenv.Peer(t, "skopeo")
	dir := t.TempDir()
	t.Setenv(storeVariable, dir+"/store")
	mustRun(t, "init")
	for version, files := range [][]ocitest.File{chunkedFiles(0), chunkedFiles(3)} {
		tag := fmt.Sprintf("v%d", version+1)
		if _, err := (ocitest.Image{Layers: [][]byte{ocitest.Tar(files...)}}).WriteLayout(dir+"/gzip", tag); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(skopeo, "copy", "--dest-compress-format", "zstd:chunked", "oci:"+dir+"/gzip:"+tag, "oci:"+dir+"/chunked:"+tag).CombinedOutput()
		if err != nil {
			t.Fatalf("skopeo: %v\n%s", err, out)
		}
	}
	host, err := kit.ServeLayouts(dir)
	if err != nil {
		t.Fatal(err)
	}
	var first, next index.Report
	pull := func(tag string, r *index.Report) {
		t.Helper()
		if err := json.Unmarshal([]byte(mustRun(t, "pull", "docker://"+host+"/chunked:"+tag, "--json")), r); err != nil {
			t.Fatal(err)
		}
		for _, layout := range []string{"gzip", "chunked"} { // which is read whole
			if got := strings.TrimSpace(mustRun(t, "digest", "oci:"+dir+"/"+layout+":"+tag)); got != r.Image.String() {
				t.Errorf("%s: the image is %s, that of the layout with %s %s", tag, r.Image, layout, got)
			}
		}
	}
	pull("v1", &first)
	pull("v2", &next)
	if first.Bytes.Reused != 0 || first.Bytes.Fetched < 4_000_000 {
		t.Errorf("v1: %+v", first.Bytes)
	}
	// Three files of 40 kB, and the tables.
	if next.Bytes.Fetched < 120_000 || next.Bytes.Fetched > 160_000 || next.Objects.New != 3 {
		t.Errorf("v2: %+v, %+v", next.Bytes, next.Objects)
	}
	mustRun(t, "fsck")
}

// chunkedFiles are a hundred files that don't compress, the first ones of another version, and one that is mostly zeros,
// which skopeo makes several parts of.
func chunkedFiles(other int) []ocitest.File {
	files := []ocitest.File{{Name: "usr/"}, {Name: "usr/empty"}, {Name: "usr/link", Link: "empty"}, {Name: "usr/inline", Data: "text"}}
	for i := range 100 {
		r := rand.NewChaCha8([32]byte{byte(i)})
		if i < other {
			r = rand.NewChaCha8([32]byte{byte(i), 1})
		}
		data := make([]byte, 40_000)
		_, _ = r.Read(data) // it never fails
		files = append(files, ocitest.File{Name: fmt.Sprintf("usr/file%02d", i), Data: string(data)})
	}
	zeros := strings.Repeat("\x00", 200_000)
	return append(files, ocitest.File{Name: "usr/zeros", Data: "begin" + zeros + "middle" + zeros + "end"})
}
