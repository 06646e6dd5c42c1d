package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	ggcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/oci/registry"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
	"github.com/flatroot/flatroot/tests/testenv"
)

// online is a real registry with images, behind faults.
type online struct {
	*ocitest.Faults
	host string
}

func newOnline(t *testing.T) *online {
	t.Helper()
	t.Setenv("CONTAINERS_REGISTRIES_CONF", os.DevNull)
	o := &online{Faults: &ocitest.Faults{Registry: ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))}}
	srv := httptest.NewServer(o)
	t.Cleanup(srv.Close)
	o.host = strings.TrimPrefix(srv.URL, "http://")
	return o
}

// push puts an image into the registry.
func (o *online) push(t *testing.T, m ocitest.Image, name string) *ocitest.Built {
	t.Helper()
	b, err := m.Build()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Push("http://"+o.host, name, "v1"); err != nil {
		t.Fatal(err)
	}
	o.Forget()
	return b
}

// pull imports an image as a process of its own would. Requests that fail are repeated at once, or, with one try, not at all.
func (o *online) pull(t *testing.T, s *store.Store, name string, tries int) (*Report, error) {
	t.Helper()
	own, err := store.Open(s.Dir(), store.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	src, err := registry.Open(oci.Reference{Transport: oci.Docker, Host: o.host, Repository: name, Tag: "v1"}, registry.Options{
		Keychain: authn.NewMultiKeychain(), Retry: registry.Retry{Tries: tries, First: 1, Longest: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	return Import(context.Background(), own, src, ImportOptions{Image: writeImage, Name: name})
}

// mustPull is pull for what has to succeed.
func (o *online) mustPull(t *testing.T, s *store.Store, name string) *Report {
	t.Helper()
	r, err := o.pull(t, s, name, 0)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// given is how many bytes of a layer the registry gave.
func (o *online) given(l ocitest.Blob) (n int64) {
	for _, r := range o.Blobs()[l.Descriptor.Digest.String()] {
		n += r.Bytes
	}
	return n
}

// cutLayers cuts each layer once at a part of it, in percent.
func (o *online) cutLayers(layers []ocitest.Blob, percent int64) {
	struck := map[string]bool{}
	o.StrikeBy(func(r *http.Request) ocitest.Fault {
		for _, l := range layers {
			if strings.HasSuffix(r.URL.Path, l.Descriptor.Digest.String()) && !struck[r.URL.Path] {
				struck[r.URL.Path] = true
				return ocitest.Fault{Cut: max(l.Descriptor.Size*percent/100, 1)}
			}
		}
		return ocitest.Fault{}
	})
}

// incompressible is a layer of two files of which one is small; its blob has more than size bytes.
func incompressible(seed uint64, size int) []byte {
	data := make([]byte, size)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return ocitest.Tar(ocitest.File{Name: fmt.Sprint("small", seed), Data: "x"}, ocitest.File{Name: fmt.Sprint("large", seed), Data: string(data)})
}

// large is an image of two layers that are kept while they come.
func large() ocitest.Image {
	return ocitest.Image{
		Layers:      [][]byte{incompressible(1, 100_000), incompressible(2, 150_000)},
		Compression: []ocitest.Compression{ocitest.Gzip, ocitest.Zstd},
	}
}

func partials(t *testing.T, s *store.Store) []string {
	t.Helper()
	left, err := filepath.Glob(s.Dir() + "/flatroot/partial/*")
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// TestCutLayers cuts all layers of an image at every place: the import goes on there, in the same process or in another one,
// and comes to the same image; no byte is fetched twice where the registry has parts.
func TestCutLayers(t *testing.T) {
	o := newOnline(t)
	layers := o.push(t, large(), "app").Blobs[:2]
	want := o.mustPull(t, storetest.New(t, store.InitOptions{}), "app")
	step := int64(10)
	if testenv.Nightly() {
		step = 1
	}
	for percent := int64(0); percent < 100; percent += step {
		for _, c := range []struct {
			name         string
			killed, none bool
		}{{"one process", false, false}, {"another process", true, false}, {"one process, no parts", false, true}, {"another process, no parts", true, true}} {
			t.Run(fmt.Sprintf("%d %%, %s", percent, c.name), func(t *testing.T) {
				o.Change(func() { o.NoRanges = c.none })
				o.Forget()
				o.cutLayers(layers, percent)
				s := storetest.New(t, store.InitOptions{})
				kept := int64(0)
				if c.killed {
					// The layers are fetched at once: when one breaks off, so does the other, somewhere.
					if _, err := o.pull(t, s, "app", 1); err == nil {
						t.Fatal("it was not cut")
					}
					checkUnnamed(t, s)
					for _, p := range partials(t, s) {
						st, err := os.Stat(p)
						if err != nil {
							t.Fatal(err)
						}
						kept += st.Size()
					}
					o.StrikeBy(nil)
					if least := layers[0].Descriptor.Size * percent / 100; kept < least {
						t.Errorf("%d bytes were kept, not even %d", kept, least)
					}
				}
				r := o.mustPull(t, s, "app")
				if r.Image != want.Image || r.Bytes.Resumed != kept || r.Bytes.Fetched+r.Bytes.Resumed != want.Bytes.Fetched {
					t.Errorf("%+v, want %+v; %d bytes were kept", r.Bytes, want.Bytes, kept)
				}
				if left := partials(t, s); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
				for _, l := range layers {
					// What was on its way when an import ended was given, too, but did not get there.
					if n := o.given(l); !c.none && (n < l.Descriptor.Size || n > l.Descriptor.Size && !c.killed) {
						t.Errorf("%d bytes were given of %d: %v", n, l.Descriptor.Size, o.Requests())
					}
				}
				if c.killed && !c.none {
					o.checkParts(t, layers, r)
				}
			})
		}
	}
}

// checkParts wants no byte asked for that was kept.
func (o *online) checkParts(t *testing.T, layers []ocitest.Blob, r *Report) {
	t.Helper()
	var asked int64
	for _, l := range layers {
		requests := o.Blobs()[l.Descriptor.Digest.String()]
		if last := requests[len(requests)-1]; len(requests) > 1 {
			asked += l.Descriptor.Size - last.First
		} else {
			asked += l.Descriptor.Size
		}
	}
	if asked != r.Bytes.Fetched {
		t.Errorf("the second import asked for %d bytes and reports %d", asked, r.Bytes.Fetched)
	}
}

// TestSpoiledPartial has partial blobs that are not what they were: the layer is fetched from its start.
func TestSpoiledPartial(t *testing.T) {
	o := newOnline(t)
	m := large()
	m.Layers = m.Layers[:1]
	layer := o.push(t, m, "app").Blobs[0]
	half := len(layer.Data) / 2
	for name, content := range map[string][]byte{
		"zeros at the end": append(bytes.Clone(layer.Data[:half-100]), make([]byte, 100)...),
		"all zeros":        make([]byte, half),
		"one bit":          append(bytes.Clone(layer.Data[:half-1]), layer.Data[half-1]^1),
		"complete, bad":    append(bytes.Clone(layer.Data[:len(layer.Data)-1]), layer.Data[len(layer.Data)-1]^1),
		"too long":         append(bytes.Clone(layer.Data), 0),
		"another blob":     incompressible(7, 70_000),
	} {
		t.Run(name, func(t *testing.T) {
			o.Forget()
			s := storetest.New(t, store.InitOptions{})
			writePartial(t, s, layer, content)
			r := o.mustPull(t, s, "app")
			if r.Bytes.Fetched != layer.Descriptor.Size || r.Bytes.Resumed != 0 {
				t.Errorf("%+v", r.Bytes)
			}
			if left := partials(t, s); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
	t.Run("complete", func(t *testing.T) {
		o.Forget()
		s := storetest.New(t, store.InitOptions{})
		writePartial(t, s, layer, layer.Data)
		if r := o.mustPull(t, s, "app"); r.Bytes.Resumed != layer.Descriptor.Size || r.Bytes.Fetched != 0 || o.given(layer) != 0 {
			t.Errorf("%+v, %v", r.Bytes, o.Requests())
		}
	})
	t.Run("somebody else's", func(t *testing.T) {
		s := storetest.New(t, store.InitOptions{})
		writePartial(t, s, layer, layer.Data[:half])
		p, err := s.OpenPartial(layer.Descriptor.Digest.String())
		if err != nil {
			t.Fatal(err)
		}
		if r := o.mustPull(t, s, "app"); r.Bytes.Resumed != 0 {
			t.Errorf("%+v", r.Bytes)
		}
		if err := p.Remove(); err != nil {
			t.Error(err)
		}
	})
}

func writePartial(t *testing.T, s *store.Store, l ocitest.Blob, content []byte) {
	t.Helper()
	p, err := s.OpenPartial(l.Descriptor.Digest.String())
	if err == nil {
		_, err = p.Write(content)
		err = errors.Join(err, p.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestPartialStays keeps blobs until their layers have names, whatever fails in between, but none that is not what it is
// said to be.
func TestPartialStays(t *testing.T) {
	o := newOnline(t)
	b := o.push(t, large(), "app")
	s := storetest.New(t, store.InitOptions{})
	src, err := registry.Open(oci.Reference{Transport: oci.Docker, Host: o.host, Repository: "app", Tag: "v1"}, registry.Options{Keychain: authn.NewMultiKeychain()})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	full := errors.New("no space left")
	failing := ImportOptions{Name: "app", Image: badWriter(full)}
	if _, err := Import(context.Background(), s, src, failing); !errors.Is(err, full) || len(partials(t, s)) != 2 {
		t.Errorf("%v; kept: %q", err, partials(t, s))
	}
	o.Forget()
	if r := o.mustPull(t, s, "app"); r.Bytes.Fetched != 0 || len(o.Blobs()[b.Blobs[0].Descriptor.Digest.String()]) != 0 {
		t.Errorf("%+v", r.Bytes)
	}

	// One that does not fit its digest, and one that is a good blob, but not the layer that the config claims.
	bad := large()
	bad.EditConfig = lieAbout(0, incompressible(9, 10))
	o.push(t, bad, "liar")
	s = storetest.New(t, store.InitOptions{})
	_, err = o.pull(t, s, "liar", 0)
	checkError(t, err, []string{"layer 1 (", o.host, "the config's diffID"})
	for _, p := range partials(t, s) {
		if strings.Contains(p, b.Blobs[0].Descriptor.Digest.String()) {
			t.Errorf("kept: %q", p)
		}
	}
	checkUnnamed(t, s)
}

// TestNoPartial keeps nothing of small blobs, nor of sources on this machine.
func TestNoPartial(t *testing.T) {
	s := storetest.New(t, store.InitOptions{})
	full := errors.New("no space left")
	for _, m := range []ocitest.Image{large(), {Layers: text(t, sampleText)}} {
		if _, err := Import(context.Background(), s, newSource(t, m), ImportOptions{Image: badWriter(full)}); !errors.Is(err, full) {
			t.Errorf("%v", err)
		}
	}
	o := newOnline(t)
	o.push(t, ocitest.Image{Layers: text(t, "file a size=70000")}, "app")
	o.mustPull(t, s, "app")
	if _, err := os.Lstat(s.Dir() + "/flatroot/partial"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("kept: %q", partials(t, s))
	}
}
