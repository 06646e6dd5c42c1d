package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/flatroot/flatroot/oci/ocitest"
)

// repositories is a registry in which each repository has its own blobs, and can take over those of another.
type repositories struct {
	http.Handler
	mu   sync.Mutex
	has  map[string]bool // REPOSITORY@DIGEST
	puts int
}

func newRepositories() *repositories {
	return &repositories{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0))), has: map[string]bool{}}
}

func (r *repositories) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	repo, rest, ok := strings.Cut(strings.TrimPrefix(q.URL.Path, "/v2/"), "/blobs/")
	if !ok {
		r.Handler.ServeHTTP(w, q)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	values := q.URL.Query()
	switch from := values.Get("from") + "@" + values.Get("mount"); {
	case strings.HasPrefix(rest, "sha256:") && !r.has[repo+"@"+rest]:
		http.Error(w, `{"errors":[{"code":"BLOB_UNKNOWN"}]}`, http.StatusNotFound)
		return
	case r.has[from]:
		r.has[repo+"@"+values.Get("mount")] = true
		w.Header().Set("Docker-Content-Digest", values.Get("mount"))
		w.Header().Set("Location", path.Join("/v2", repo, "blobs", values.Get("mount")))
		w.WriteHeader(http.StatusCreated)
		return
	case values.Get("digest") != "":
		r.has[repo+"@"+values.Get("digest")] = true
		r.puts++
	}
	r.Handler.ServeHTTP(w, q)
}

// TestChunkMounts: a registry is asked for what another of its repositories has: layers of a base, of which nobody needs the
// blobs then, and those that stay as they were.
func TestChunkMounts(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Setenv(storeVariable, dir+"/store")
	mustRun(t, "init")
	img := ocitest.Image{Layers: [][]byte{
		ocitest.Tar(ocitest.File{Name: "usr/"}, ocitest.File{Name: "usr/base", Data: "base"}),
		ocitest.Tar(ocitest.File{Name: "opt/"}, ocitest.File{Name: "opt/app", Data: "app"}, ocitest.File{Name: "srv/"},
			ocitest.File{Name: "srv/data", Data: "data"}),
	}}
	if _, err := img.WriteLayout(dir+"/layout", "v1"); err != nil {
		t.Fatal(err)
	}
	r := newRepositories()
	server := httptest.NewServer(r)
	defer server.Close()
	host := "docker://" + strings.TrimPrefix(server.URL, "http://")
	mustRun(t, "pull", "oci:"+dir+"/layout:v1", "--name", "made", "--keep-blobs")
	mustRun(t, "push", "made", host+"/build/os:v1")

	chunk := func(t *testing.T, args ...string) (report chunkReport) {
		t.Helper()
		before := r.puts
		status, stdout, stderr := flatroot(t, append([]string{"chunk", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(stdout), &report); status != exitOK || err != nil {
			t.Fatal(status, err, stderr)
		}
		if n := strings.Count(stderr, "compressing"); n != report.Layers.Written {
			t.Errorf("%d layers were compressed, and %+v said\n%s", n, report.Layers, stderr)
		}
		if config := 1; r.puts-before != report.Layers.Written+config {
			t.Errorf("%d blobs were sent, and %+v said", r.puts-before, report.Layers)
		}
		return report
	}
	got := chunk(t, host+"/build/os:v1", host+"/team/os:v1", "--keep-base", "1").Layers
	if got != (chunkLayerCounts{Total: 3, Base: 1, Reused: 1, Mounted: 1, Written: 2}) {
		t.Errorf("with the blob: %+v", got)
	}
	t.Setenv(storeVariable, dir+"/second")
	mustRun(t, "init")
	mustRun(t, "pull", host+"/build/os:v1", "--name", "os")
	got = chunk(t, "os", host+"/other/os:v1", "--keep-base", "1").Layers
	if got != (chunkLayerCounts{Total: 3, Base: 1, Reused: 1, Written: 2}) {
		t.Errorf("without the blob: %+v", got) // it was taken over before any layer was written
	}
	got = chunk(t, "os", host+"/next/os:v1", "--keep-base", "1", "--previous", host+"/team/os:v1").Layers
	if got != (chunkLayerCounts{Total: 3, Base: 1, Reused: 3, Mounted: 2}) {
		t.Errorf("beside the build before: %+v", got)
	}
	mustRun(t, "pull", host+"/team/os:v1", "--name", "before")
	if got := chunk(t, "os", host+"/named/os:v1", "--keep-base", "1", "--previous", "before").Layers; got.Mounted != 2 || got.Written != 0 {
		t.Errorf("beside the build before in the store: %+v", got)
	}
}
