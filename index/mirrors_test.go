package index

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/oci/registry"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
)

// mirrored is a registry with two mirrors, which are asked first.
type mirrored struct {
	*online
	servers []*ocitest.Faults // mirrors, registry
	hosts   []string
	conf    string

	mu   sync.Mutex
	told []string
}

func newMirrored(t *testing.T) *mirrored {
	t.Helper()
	m := &mirrored{online: newOnline(t)}
	text := fmt.Sprintf("[[registry]]\nprefix = \"img.example\"\nlocation = %q\n", m.host)
	for range 2 {
		f := &ocitest.Faults{Registry: m.Registry}
		srv := httptest.NewServer(f)
		t.Cleanup(srv.Close)
		m.servers, m.hosts = append(m.servers, f), append(m.hosts, strings.TrimPrefix(srv.URL, "http://"))
		text += fmt.Sprintf("[[registry.mirror]]\nlocation = %q\n", m.hosts[len(m.hosts)-1])
	}
	m.servers, m.hosts = append(m.servers, m.Faults), append(m.hosts, m.host)
	m.conf = filepath.Join(t.TempDir(), "registries.conf")
	if err := os.WriteFile(m.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *mirrored) open(t *testing.T, name string, tries int) *registry.Source {
	t.Helper()
	ref := oci.Reference{Transport: oci.Docker, Host: "img.example", Repository: name, Tag: "v1"}
	src, err := registry.Open(ref, registry.Options{
		Keychain: authn.NewMultiKeychain(), RegistriesConf: m.conf, Retry: registry.Retry{Tries: tries, First: 1, Longest: 1},
		Told: func(n registry.Notice) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.told = append(m.told, n.String())
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src
}

// strike has each server do something to what is asked about a blob; who comes after the last does nothing.
func (m *mirrored) strike(l ocitest.Blob, faults ...ocitest.Fault) {
	for i, f := range m.servers {
		f.Forget()
		f.StrikeBy(func(r *http.Request) ocitest.Fault {
			if i < len(faults) && strings.HasSuffix(r.URL.Path, l.Descriptor.Digest.String()) {
				return faults[i]
			}
			return ocitest.Fault{}
		})
	}
	m.told = nil
}

// asked is how often each server was asked for a blob.
func (m *mirrored) asked(l ocitest.Blob) (n [3]int) {
	for i, f := range m.servers {
		n[i] = len(f.Blobs()[l.Descriptor.Digest.String()])
	}
	return n
}

// TestWrongLayer has mirrors that give other bytes than those of the digest: the layer is asked of whoever is left, once each.
func TestWrongLayer(t *testing.T) {
	m := newMirrored(t)
	image := large()
	image.Layers = image.Layers[:1]
	layer := m.push(t, image, "app").Blobs[0]
	want := m.mustPull(t, storetest.New(t, store.InitOptions{}), "app")
	spoil, half := ocitest.Fault{Spoil: true}, layer.Descriptor.Size/2
	for name, c := range map[string]struct {
		faults  []ocitest.Fault
		asked   [3]int
		told    []string // parts of notices
		partial []byte
		keep    bool
		err     string
	}{
		"one mirror": {faults: []ocitest.Fault{spoil}, asked: [3]int{1, 1, 0},
			told: []string{"blob " + layer.Descriptor.Digest.String() + ": " + m.hosts[0] + " gave it wrong: ", "asking " + m.hosts[1]}},
		"all mirrors": {faults: []ocitest.Fault{spoil, spoil}, asked: [3]int{1, 1, 1}, told: []string{m.hosts[0] + " gave it wrong", m.hosts[1] + " gave it wrong", "asking " + m.hosts[2]}},
		"everybody":   {faults: []ocitest.Fault{spoil, spoil, spoil}, asked: [3]int{1, 1, 1}, told: []string{"asking " + m.hosts[2]}, err: "layer 1 ("},
		"one begins, the other goes on": {faults: []ocitest.Fault{{Spoil: true, Cut: half}}, asked: [3]int{1, 1, 1},
			told: []string{"broke off", m.hosts[0] + " and " + m.hosts[1] + " gave it wrong", "asking " + m.hosts[2]}},
		"what was kept is from one that is wrong": {partial: []byte(strings.Repeat("x", int(half))), asked: [3]int{2, 0, 0}},
		"and that goes on to be": {partial: []byte(strings.Repeat("x", int(half))), faults: []ocitest.Fault{spoil}, asked: [3]int{2, 1, 0},
			told: []string{m.hosts[0] + " gave it wrong"}},
		"kept blobs": {faults: []ocitest.Fault{spoil}, asked: [3]int{1, 1, 0}, keep: true, told: []string{"asking " + m.hosts[1]}},
	} {
		t.Run(name, func(t *testing.T) {
			m.strike(layer, c.faults...)
			s := storetest.New(t, store.InitOptions{})
			if c.partial != nil {
				writePartial(t, s, layer, c.partial)
			}
			r, err := Import(context.Background(), s, m.open(t, "app", 2), ImportOptions{Image: writeImage, Name: "app", KeepBlobs: c.keep})
			told := strings.Join(m.told, "\n")
			for _, part := range c.told {
				if !strings.Contains(told, part) {
					t.Errorf("told %q, not %q", told, part)
				}
			}
			if len(c.told) == 0 && told != "" {
				t.Errorf("told %q", told)
			}
			if got := m.asked(layer); got != c.asked {
				t.Errorf("asked %v times, want %v", got, c.asked)
			}
			if left := partials(t, s); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			if c.err != "" {
				checkError(t, err, []string{c.err})
				checkUnnamed(t, s)
				return
			}
			if err != nil || r.Image != want.Image || r.Bytes.Fetched != layer.Descriptor.Size || c.keep && r.Blobs.New != 1 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

// TestRightLayerOfALiar asks nobody else for a layer that is what its digest says, but not what the config does.
func TestRightLayerOfALiar(t *testing.T) {
	m := newMirrored(t)
	image := large()
	image.Layers = image.Layers[:1]
	image.EditConfig = lieAbout(0, incompressible(9, 10))
	layer := m.push(t, image, "liar").Blobs[0]
	s := storetest.New(t, store.InitOptions{})
	_, err := Import(context.Background(), s, m.open(t, "liar", 1), ImportOptions{Image: writeImage})
	checkError(t, err, []string{"the config's diffID"})
	if got := m.asked(layer); got != [3]int{1, 0, 0} || len(m.told) > 0 {
		t.Errorf("asked %v times, told %q", got, m.told)
	}
}

// TestWrongBlobHeals restores files and a blob that is kept from a registry whose mirror gives them wrong.
func TestWrongBlobHeals(t *testing.T) {
	m := newMirrored(t)
	image := large()
	image.Layers = image.Layers[:1]
	built := m.push(t, image, "app")
	layer, diffID := built.Blobs[0], oci.DiffID(digest.FromBytes(image.Layers[0]))
	s := storetest.New(t, store.InitOptions{})
	if _, err := Import(context.Background(), s, m.open(t, "app", 1), ImportOptions{Image: writeImage, Name: "app", KeepBlobs: true}); err != nil {
		t.Fatal(err)
	}
	object := layerObjects(t, s, diffID)[0]
	id := mustEntry(t, s, BlobEntry(layer.Descriptor.Digest))
	kept, ok := keptObject(s, id, layer.Descriptor)
	if !ok {
		t.Fatal("no blob was kept")
	}
	must(t, os.Remove(objectPath(s, object)))
	must(t, os.Remove(objectPath(s, kept)))
	m.strike(layer, ocitest.Fault{Spoil: true})
	r, err := Import(context.Background(), s, m.open(t, "app", 1), ImportOptions{Image: writeImage, Name: "app", KeepBlobs: true})
	if err != nil || r.Healed.Objects != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	checkObjects(t, s, object, kept)
	if got := m.asked(layer); got[0] != 1 {
		t.Errorf("asked %v times", got)
	}
}

// TestWrongParts has mirrors give parts wrong, break off, or give none: they are asked of whoever is left, and only where
// nobody has them right is the whole blob fetched.
func TestWrongParts(t *testing.T) {
	m := newMirrored(t)
	old := partFiles()
	next := [][]byte{ocitest.Tar(changed(old, map[string]func(*ocitest.File){"usr/file03": newData(100, 50_000)})...)}
	built := chunkedSource(t, next, nil).built
	if err := built.Push("http://"+m.host, "app", "v1"); err != nil {
		t.Fatal(err)
	}
	layer := built.Blobs[0]
	spoil, gone := ocitest.Fault{Spoil: true}, ocitest.Fault{Status: http.StatusNotFound}
	for name, c := range map[string]struct {
		strike func(server int, ranged bool, before int) ocitest.Fault // by how many requests for the blob were before
		whole  bool
		told   string
	}{
		"tables wrong":   {strike: strikeFirst(0, 1, spoil), told: "table of contents has digest"},
		"contents wrong": {strike: strikeFrom(0, 1, spoil), told: "content of \"usr/file03\""},
		"both mirrors": {strike: func(server int, _ bool, _ int) ocitest.Fault {
			if server < 2 {
				return spoil
			}
			return ocitest.Fault{}
		}, told: "asking " + m.hosts[2]},
		"breaks off":      {strike: strikeFrom(0, 1, ocitest.Fault{Cut: 1}), told: "broke off"},
		"drops":           {strike: strikeFrom(0, 1, ocitest.Fault{Drop: true}), told: "asking " + m.hosts[1]},
		"has it no more":  {strike: strikeFrom(0, 1, gone), told: "asking " + m.hosts[1]},
		"busy everywhere": {strike: busyOnce(), told: "trying again"},
		"nobody has them right": {strike: func(_ int, ranged bool, _ int) ocitest.Fault {
			return ocitest.Fault{Spoil: ranged}
		}, whole: true, told: "gave it wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			m.strike(layer)
			for i, f := range m.servers {
				before := 0
				f.StrikeBy(func(r *http.Request) ocitest.Fault {
					if !strings.HasSuffix(r.URL.Path, layer.Descriptor.Digest.String()) {
						return ocitest.Fault{}
					}
					before++
					return c.strike(i, r.Header.Get("Range") != "", before-1)
				})
			}
			s := partsStore(t, "app", old...)
			var h heard
			r, err := Import(context.Background(), s, m.open(t, "app", 3), ImportOptions{Image: writeImage, Name: "app", Progress: &h})
			if err != nil {
				t.Fatal(err)
			}
			if whole := r.Bytes.Reused == 0; whole != c.whole || whole != strings.Contains(strings.Join(h.steps, "\n"), "all of it is fetched") {
				t.Errorf("%+v, said %q, told %q", r.Bytes, h.steps, m.told)
			}
			if told := strings.Join(m.told, "\n"); !strings.Contains(told, c.told) {
				t.Errorf("told %q", told)
			}
			must(t, WriteTar(context.Background(), s, oci.DiffID(digest.FromBytes(next[0])), io.Discard)) // which compares the digest
		})
	}
}

// strikeFirst strikes the first n requests to a server, strikeFrom those after them.
func strikeFirst(server, n int, f ocitest.Fault) func(int, bool, int) ocitest.Fault {
	return func(s int, _ bool, before int) ocitest.Fault {
		if s == server && before < n {
			return f
		}
		return ocitest.Fault{}
	}
}

func strikeFrom(server, n int, f ocitest.Fault) func(int, bool, int) ocitest.Fault {
	return func(s int, _ bool, before int) ocitest.Fault {
		if s == server && before >= n {
			return f
		}
		return ocitest.Fault{}
	}
}

// busyOnce has the first request to each server refused for a reason that passes.
func busyOnce() func(int, bool, int) ocitest.Fault {
	return func(_ int, _ bool, before int) ocitest.Fault {
		if before == 0 {
			return ocitest.Fault{Status: http.StatusServiceUnavailable}
		}
		return ocitest.Fault{}
	}
}
