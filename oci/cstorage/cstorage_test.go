package cstorage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/cstorage/cstoragetest"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/tests/testenv"
)

var amd64 = oci.Platform{OS: "linux", Architecture: "amd64"}

// TestSource has images asked for by digest: that is the only way to an image index here.
func TestSource(t *testing.T) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			ocitest.TestSource(t, func(t *testing.T, b *ocitest.Built) func(oci.Platform) (oci.Source, error) {
				return func(p oci.Platform) (oci.Source, error) {
					dir := t.TempDir()
					m := cstoragetest.Image{Built: b, Names: []string{"localhost/web:v1"}, Manifest: chosen(b, p)}
					if m.Manifest != "none" {
						if _, err := cstoragetest.Write(dir, driver, m); err != nil {
							return nil, err
						}
					} else if err := writeIndex(dir, driver, b); err != nil {
						return nil, err
					}
					return open(dir, driver, "localhost/web@"+b.Root().Digest.String(), Options{Platform: p})
				}
			})
		})
	}
}

// chosen is the manifest that tools would have pulled, "none" if there is none.
func chosen(b *ocitest.Built, p oci.Platform) digest.Digest {
	fetch := func(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
		for _, blob := range b.Blobs {
			if blob.Descriptor.Digest == d.Digest {
				return blob.Data, nil
			}
		}
		return nil, fs.ErrNotExist
	}
	m, err := oci.Load(context.Background(), b.Root(), fetch, oci.LoadOptions{Platform: p})
	switch {
	case err == nil:
		return m.Descriptor.Digest
	case errors.As(err, new(*oci.PlatformError)):
		return "none"
	}
	return ""
}

// writeIndex writes an image that has an image index and nothing in it that fits.
func writeIndex(dir, driver string, b *ocitest.Built) error {
	images := filepath.Join(dir, driver+"-images")
	if err := os.MkdirAll(filepath.Join(images, "x"), 0o700); err != nil {
		return err
	}
	for _, blob := range b.Blobs {
		if !oci.IsLayer(blob.Descriptor.MediaType) {
			if err := os.WriteFile(filepath.Join(images, "x", fileName(manifestKey(blob.Descriptor.Digest))), blob.Data, 0o600); err != nil {
				return err
			}
		}
	}
	record := cstoragetest.ImageRecord{ID: "x", Names: []string{"localhost/web:v1"}, Digest: b.Root().Digest}
	return cstoragetest.Append(filepath.Join(images, "images.json"), record)
}

// open opens an image in a store of a test.
func open(dir, driver, image string, o Options) (*Source, error) {
	ref, err := oci.ParseReference("containers-storage:[" + driver + "@" + dir + "]" + image)
	if err != nil {
		return nil, err
	}
	return Open(ref, o)
}

// stored is an image in a store, to be damaged.
type stored struct {
	dir, driver string
	built       *ocitest.Built
	image       cstoragetest.ImageRecord
}

// write puts an image of these layers into a new store.
func write(t *testing.T, driver string, layers ...[]byte) *stored {
	t.Helper()
	b, err := ocitest.Image{Platform: amd64, Layers: layers}.Build()
	if err != nil {
		t.Fatal(err)
	}
	s := &stored{dir: t.TempDir(), driver: driver, built: b}
	if s.image, err = cstoragetest.Write(s.dir, driver, cstoragetest.Image{Built: b, Names: []string{"localhost/web:v1"}}); err != nil {
		t.Fatal(err)
	}
	return s
}

// files is where the top layer is unpacked.
func (s *stored) files() string { return cstoragetest.Files(s.dir, s.driver, s.image.TopLayer) }

func (s *stored) split() string {
	return filepath.Join(s.dir, s.driver+"-layers", s.image.TopLayer+splitSuffix)
}

// layers exchanges the records of layers.
func (s *stored) layers(t *testing.T, edit func([]cstoragetest.LayerRecord) []cstoragetest.LayerRecord) {
	t.Helper()
	path := filepath.Join(s.dir, s.driver+"-layers/layers.json")
	var all []cstoragetest.LayerRecord
	raw, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(raw, &all)
	}
	if err == nil {
		raw, err = json.Marshal(edit(all))
	}
	if err == nil {
		err = os.WriteFile(path, raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// read reads the image and all its layers, and compares the layers with their diffIDs.
func (s *stored) read(ctx context.Context, image string, o Options) error {
	src, err := open(s.dir, s.driver, image, o)
	if err != nil {
		return err
	}
	defer src.Close()
	m, err := src.Image(ctx)
	if err != nil {
		return err
	}
	for _, l := range m.Layers {
		if err := readLayer(ctx, src, l); err != nil {
			return err
		}
	}
	return nil
}

func readLayer(ctx context.Context, src oci.Source, l oci.Layer) (err error) {
	if l, err = oci.Stored(ctx, src, l); err != nil {
		return err
	}
	r, err := src.OpenBlob(ctx, l.Descriptor)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	got, err := digest.FromReader(r)
	if err == nil && got != digest.Digest(l.DiffID) {
		err = &oci.DigestError{What: "layer", Want: digest.Digest(l.DiffID), Got: got}
	}
	return err
}

func textLayer(name, data string) []byte { return ocitest.Tar(ocitest.File{Name: name, Data: data}) }

// TestDamaged has stores that others may have written to hurt who reads them.
func TestDamaged(t *testing.T) {
	const content = "this is what the layer has"
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	replace := func(t *testing.T, path string, with func(path string) error) {
		t.Helper()
		must(t, os.RemoveAll(path))
		must(t, with(path))
	}
	for _, c := range []struct {
		name, want string
		damage     func(t *testing.T, s *stored)
	}{
		{"none", "", func(*testing.T, *stored) {}},
		{"file is a symlink out", "no such file", func(t *testing.T, s *stored) {
			replace(t, s.files()+"/d/f", func(p string) error { return os.Symlink(outside, p) })
		}},
		{"file is a symlink out by dots", "no such file", func(t *testing.T, s *stored) {
			rel, err := filepath.Rel(s.files()+"/d", outside)
			must(t, err)
			replace(t, s.files()+"/d/f", func(p string) error { return os.Symlink(rel, p) })
		}},
		{"directory is a symlink out", "no such file", func(t *testing.T, s *stored) {
			must(t, os.WriteFile(filepath.Join(filepath.Dir(outside), "f"), []byte(content), 0o600))
			replace(t, s.files()+"/d", func(p string) error { return os.Symlink(filepath.Dir(outside), p) })
		}},
		{"directory is a symlink inside", "", func(t *testing.T, s *stored) {
			must(t, os.Rename(s.files()+"/d", s.files()+"/e"))
			must(t, os.Symlink("/e", s.files()+"/d"))
		}},
		{"diff is a symlink", "symbolic link", func(t *testing.T, s *stored) {
			must(t, os.Rename(s.files(), s.files()+"2"))
			must(t, os.Symlink(s.files()+"2", s.files()))
		}},
		{"file is a pipe", "no regular file", func(t *testing.T, s *stored) {
			replace(t, s.files()+"/d/f", func(p string) error { return syscall.Mkfifo(p, 0o600) })
		}},
		{"file is a directory", "no regular file", func(t *testing.T, s *stored) {
			replace(t, s.files()+"/d/f", func(p string) error { return os.Mkdir(p, 0o700) })
		}},
		{"file is missing", "no such file", func(t *testing.T, s *stored) { must(t, os.Remove(s.files()+"/d/f")) }},
		{"file changed", "is not what the layer had", func(t *testing.T, s *stored) {
			must(t, os.WriteFile(s.files()+"/d/f", []byte(strings.ToUpper(content)), 0o600))
		}},
		{"file longer", "in the layer it had 26", func(t *testing.T, s *stored) {
			must(t, os.WriteFile(s.files()+"/d/f", []byte(content+"!"), 0o600))
		}},
		{"tar-split missing", "has no tar-split file", func(t *testing.T, s *stored) { must(t, os.Remove(s.split())) }},
		{"tar-split is a symlink", "symbolic link", func(t *testing.T, s *stored) {
			must(t, os.Rename(s.split(), s.split()+"2"))
			must(t, os.Symlink(s.split()+"2", s.split()))
		}},
		{"tar-split is no gzip", "gzip", func(t *testing.T, s *stored) { must(t, os.WriteFile(s.split(), []byte("{}"), 0o600)) }},
		{"tar-split cut", "unexpected EOF", func(t *testing.T, s *stored) {
			b, err := os.ReadFile(s.split())
			must(t, err)
			must(t, os.WriteFile(s.split(), b[:len(b)/2], 0o600))
		}},
		{"tar-split of another tar", "layer has digest", func(t *testing.T, s *stored) {
			must(t, cstoragetest.Unpack(textLayer("d/f", content+"!"), s.files(), s.split()))
		}},
		{"tar-split of a shorter tar", "does not give back the layer's tar", func(t *testing.T, s *stored) {
			must(t, cstoragetest.Unpack(textLayer("d/f", ""), s.files(), s.split()))
		}},
		{"layers.json is a symlink", "symbolic link", func(t *testing.T, s *stored) {
			replace(t, s.dir+"/overlay-layers/layers.json", func(p string) error { return os.Symlink(outside, p) })
		}},
		{"images.json is a pipe", "no regular file", func(t *testing.T, s *stored) {
			replace(t, s.dir+"/overlay-images/images.json", func(p string) error { return syscall.Mkfifo(p, 0o600) })
		}},
		{"images.json is huge", "more than", func(t *testing.T, s *stored) {
			must(t, os.Truncate(s.dir+"/overlay-images/images.json", maxRecords+1))
		}},
		{"layers.json has too many records", "more than", func(t *testing.T, s *stored) {
			must(t, os.WriteFile(s.dir+"/overlay-layers/layers.json", []byte("["+strings.Repeat("{},", maxRecordCount)+"{}]"), 0o600))
		}},
		{"layers.json is no array", "no JSON array", func(t *testing.T, s *stored) {
			must(t, os.WriteFile(s.dir+"/overlay-layers/layers.json", []byte("{}"), 0o600))
		}},
		{"layers.json is empty", "has no layer", func(t *testing.T, s *stored) { must(t, os.Truncate(s.dir+"/overlay-layers/layers.json", 0)) }},
		{"layers.json is missing", "has no layer", func(t *testing.T, s *stored) { must(t, os.Remove(s.dir+"/overlay-layers/layers.json")) }},
		{"manifest is huge", "more than", func(t *testing.T, s *stored) {
			must(t, os.Truncate(filepath.Join(s.dir, "overlay-images", s.image.ID, "manifest"), oci.MaxManifestSize+1))
		}},
		{"layer below itself", "layers below themselves", func(t *testing.T, s *stored) {
			s.layers(t, func(l []cstoragetest.LayerRecord) []cstoragetest.LayerRecord {
				l[0].Parent = l[0].ID
				return l
			})
		}},
		{"layer of another diffID", "in the store and", func(t *testing.T, s *stored) {
			s.layers(t, func(l []cstoragetest.LayerRecord) []cstoragetest.LayerRecord {
				l[0].DiffID = digest.FromString("x")
				return l
			})
		}},
		{"layer without diffID", "", func(t *testing.T, s *stored) {
			s.layers(t, func(l []cstoragetest.LayerRecord) []cstoragetest.LayerRecord {
				l[0].DiffID, l[0].Size = "", -1
				return l
			})
		}},
		{"layer incomplete", "is incomplete", func(t *testing.T, s *stored) {
			s.layers(t, func(l []cstoragetest.LayerRecord) []cstoragetest.LayerRecord {
				l[0].Flags = map[string]any{"incomplete": true}
				return l
			})
		}},
		{"layer too many", "the store has 2 layers of the image", func(t *testing.T, s *stored) {
			s.layers(t, func(l []cstoragetest.LayerRecord) []cstoragetest.LayerRecord {
				l[0].Parent = "below"
				return append(l, cstoragetest.LayerRecord{ID: "below"})
			})
		}},
		{"layer ID is a path", "has no layer", func(t *testing.T, s *stored) {
			s.layers(t, func(l []cstoragetest.LayerRecord) []cstoragetest.LayerRecord {
				l[0].Parent = "../../x"
				return append(l, cstoragetest.LayerRecord{ID: "../../x"})
			})
		}},
		{"size is another", "does not give back the layer's tar", func(t *testing.T, s *stored) {
			s.layers(t, func(l []cstoragetest.LayerRecord) []cstoragetest.LayerRecord {
				l[0].Size++
				return l
			})
		}},
		{"volatile layer", "", func(t *testing.T, s *stored) {
			must(t, os.Rename(s.dir+"/overlay-layers/layers.json", s.dir+"/overlay-layers/volatile-layers.json"))
		}},
		{"composefs", "is in composefs format", func(t *testing.T, s *stored) { must(t, os.Mkdir(filepath.Dir(s.files())+"/composefs-data", 0o700)) }},
		{"no locks", "", func(t *testing.T, s *stored) {
			must(t, os.Remove(s.dir+"/overlay-layers/layers.lock"))
			must(t, os.Remove(s.dir+"/overlay-images/images.lock"))
		}},
		{"lock is a symlink", "symbolic link", func(t *testing.T, s *stored) {
			replace(t, s.dir+"/overlay-layers/layers.lock", func(p string) error { return os.Symlink(outside, p) })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := write(t, "overlay", textLayer("d/f", content))
			c.damage(t, s)
			err := s.read(context.Background(), "web:v1", Options{})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

// TestThrough has files read by way of clones: those that it says stand at offsets of the tar, and no others.
func TestThrough(t *testing.T) {
	a, b := strings.Repeat("a", 5000), strings.Repeat("b", 512)
	layer := ocitest.Tar(ocitest.File{Name: "d/"}, ocitest.File{Name: "d/a", Data: a}, ocitest.File{Name: "empty"}, ocitest.File{Name: "b", Data: b})
	s := write(t, "overlay", layer)
	src, err := open(s.dir, s.driver, "web:v1", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	desc := ocispec.Descriptor{Digest: digest.FromBytes(layer), Size: int64(len(layer))}
	read := func(via oci.CloneFunc) error {
		r, err := src.OpenBlob(context.Background(), desc)
		if err != nil {
			return err
		}
		r.(oci.FileBlob).Through(via)
		got, err := io.ReadAll(r)
		if err == nil && string(got) != string(layer) {
			err = errors.New("it is another tar")
		}
		return errors.Join(err, r.Close())
	}
	var seen []string
	err = read(func(f *os.File, at, size int64) *os.File {
		seen = append(seen, string(layer[at:at+size]))
		clone, err := os.Open(f.Name())
		if err != nil {
			t.Error(err)
		}
		return clone
	})
	if err != nil || len(seen) != 2 || seen[0] != a || seen[1] != b {
		t.Errorf("got %v, files of %d", err, len(seen))
	}
	// What a clone has is held against the layer as well.
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte(strings.Repeat("c", 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	err = read(func(*os.File, int64, int64) *os.File {
		f, err := os.Open(other)
		if err != nil {
			t.Error(err)
		}
		return f
	})
	if err == nil || !strings.Contains(err.Error(), "is not what the layer had") {
		t.Errorf("got %v", err)
	}
}

// TestSparse has a layer that tar-split does not give back, as it is: the containers' tools take it nevertheless.
func TestSparse(t *testing.T) {
	s := write(t, "overlay", textLayer("f", "x"))
	sparse := []byte(strings.Repeat("\x00", 1<<20))
	if err := cstoragetest.Unpack(textLayer("f", string(sparse)), s.files(), s.split()); err != nil {
		t.Fatal(err)
	}
	err := s.read(context.Background(), "web:v1", Options{})
	if err == nil || !strings.Contains(err.Error(), "sparse files") || !strings.Contains(err.Error(), "pull the image from where it came from") {
		t.Errorf("got %v", err)
	}
}

// TestWhichImage asks for images in all the ways that there are.
func TestWhichImage(t *testing.T) {
	dir := t.TempDir()
	add := func(data string, names ...string) cstoragetest.ImageRecord {
		t.Helper()
		b, err := ocitest.Image{Platform: amd64, Layers: [][]byte{textLayer("f", data)}}.Build()
		if err != nil {
			t.Fatal(err)
		}
		r, err := cstoragetest.Write(dir, "vfs", cstoragetest.Image{Built: b, Names: names})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	hub := add("hub", "docker.io/library/web:latest", "docker.io/library/web:1", "quay.io/org/app:v2")
	local := add("local", "localhost/own:latest", "localhost/web:2")
	unnamed := add("unnamed")
	other := digest.FromString("other").String()
	for image, want := range map[string]string{
		"web": hub.ID, "web:latest": hub.ID, "docker.io/library/web": hub.ID, "index.docker.io/library/web:1": hub.ID,
		"library/web:1": hub.ID, "quay.io/org/app:v2": hub.ID, "own": local.ID, "web:2": local.ID, "localhost/own": local.ID,
		"@" + unnamed.ID: unnamed.ID, "@" + unnamed.ID[:7]: unnamed.ID, unnamed.ID: unnamed.ID, unnamed.ID[:9]: unnamed.ID,
		"web@" + local.ID[:12]:               local.ID,
		"web@" + hub.Digest.String():         hub.ID,
		"web:other@" + hub.Digest.String():   hub.ID,
		"@" + unnamed.Digest.String():        unnamed.ID,
		"own@" + hub.Digest.String():         "no such image",
		"web@" + other:                       "no such image",
		"quay.io/web@" + hub.Digest.String(): "no such image",
		"web:3":                              "there is docker.io/library/web:1, docker.io/library/web:latest, localhost/own:latest",
		"quay.io/own":                        "no such image",
		"@ab":                                "neither a digest nor the ID",
		"web@sha256:../../x":                 "has 7 digits",
		"@" + strings.Repeat("0", 64):        "no such image",
		"":                                   "the image is missing",
	} {
		got, err := func() (string, error) {
			src, err := open(dir, "vfs", image, Options{})
			if err != nil {
				return "", err
			}
			defer src.Close()
			d, err := src.Resolve(context.Background())
			return strings.TrimPrefix(d.Digest.String(), "sha256:"), err
		}()
		if got != want && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %s, %v; want %s", image, got, err, want)
		}
	}
}

// TestPlaces has the ways to say which store.
func TestPlaces(t *testing.T) {
	s := write(t, "vfs", textLayer("f", "data"))
	none := t.TempDir()
	for place, want := range map[string]string{
		"[vfs@" + s.dir + "]": "",
		"[" + s.dir + "]":     "",
		"[vfs@" + s.dir + "+/nonexistent:vfs.mountopt=x]":             "",
		"[vfs@" + none + ":vfs.imagestore=" + s.dir + "]":             "",
		"[vfs@" + none + ":imagestore=/no,.imagestore=" + s.dir + "]": "",
		"[overlay@" + s.dir + "]":                                     "no such image",
		"[overlay2@" + s.dir + "]":                                    "no such image",
		"[btrfs@" + s.dir + "]":                                       "storage driver btrfs can't be read",
		"[" + none + "]":                                              "is no store of containers-storage",
		"[vfs@/nonexistent]":                                          "no such file",
		"[vfs@relative]":                                              "no absolute path",
		"[vfs@" + s.dir + "+run]":                                     "no absolute path",
		"[@" + s.dir + "]":                                            "driver before @ is missing",
		"[vfs@]":                                                      "directory of the store is missing",
		"[]":                                                          "directory of the store is missing",
		"[" + s.dir:                                                   "bracket is not closed",
	} {
		err := func() error {
			src, err := Open(oci.Reference{Transport: oci.ContainersStorage, Path: place + "web:v1"}, Options{})
			if err != nil {
				return err
			}
			defer src.Close()
			if _, err = src.Image(context.Background()); err != nil {
				return err
			}
			// What it says of itself leads to the same image again.
			ref, err := oci.ParseReference(src.Origin())
			if err != nil {
				return err
			}
			again, err := Open(ref, Options{})
			if err != nil {
				return fmt.Errorf("%s: %w", src.Origin(), err)
			}
			_, err = again.Image(context.Background())
			return errors.Join(err, again.Close())
		}()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q in it", place, err, want)
		}
	}
}

// TestConfig finds stores by storage.conf.
func TestConfig(t *testing.T) {
	s, beside := write(t, "vfs", textLayer("f", "data")), write(t, "vfs", textLayer("f", "beside"))
	conf := filepath.Join(t.TempDir(), "storage.conf")
	text := fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = \"/nonexistent\"\n[storage.options]\nadditionalimagestores = [%q]\n", s.dir, beside.dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("CONTAINERS_STORAGE_CONF", conf)
	for _, id := range []string{s.image.ID, beside.image.ID} {
		src, err := Open(oci.Reference{Transport: oci.ContainersStorage, Path: "@" + id}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		m, err := src.Image(context.Background())
		if err != nil || m.Descriptor.Digest.Encoded() != id {
			t.Errorf("got %+v, %v", m, err)
		}
		if !strings.Contains(src.Origin(), "[vfs@"+s.dir+"+/nonexistent:vfs.imagestore="+beside.dir+"]@") {
			t.Errorf("origin is %s", src.Origin())
		}
		src.Close()
	}
	t.Setenv("CONTAINERS_STORAGE_CONF", conf+".missing")
	if _, err := Open(oci.Reference{Transport: oci.ContainersStorage, Path: "x"}, Options{}); err == nil || !strings.Contains(err.Error(), "storage.conf") {
		t.Errorf("got %v", err)
	}
}

// TestOwnStore is asked as an ordinary user whom storage.conf takes to root's store, or nowhere. The library makes a
// directory then, which may not stay.
func TestOwnStore(t *testing.T) {
	b, err := ocitest.Image{Platform: amd64}.Build()
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	if _, err := cstoragetest.Write(data+"/containers/storage", "overlay", cstoragetest.Image{Built: b, Names: []string{"localhost/v1:latest"}}); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "storage.conf")
	if err := os.WriteFile(conf, []byte("[storage]\ndriver = \"vfs\"\ngraphroot = \"/nonexistent\"\nrunroot = \"/nonexistent\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := filepath.Join("/run/user", strconv.Itoa(subordinate))
	if _, err := os.Lstat(run); err == nil {
		t.Fatalf("there is a user %d", subordinate)
	}
	temporary := t.TempDir()
	out := help(t, "", func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "CONTAINERS_STORAGE_CONF="+conf, "XDG_DATA_HOME="+data, "XDG_RUNTIME_DIR=", "TMPDIR="+temporary,
			fmt.Sprintf("%s=%d", rootlessVariable, subordinate))
	})
	if strings.Contains(out, "error:") {
		t.Error(out)
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := os.Lstat(run); err == nil {
		t.Errorf("left: %s", run)
	}
}

// TestUnreadable has a file that only another user can read, as there are in stores of ordinary users.
func TestUnreadable(t *testing.T) {
	testenv.Need(t, "user")
	s := write(t, "overlay", textLayer("f", "data"))
	if err := os.Chmod(s.files()+"/f", 0); err != nil {
		t.Fatal(err)
	}
	err := s.read(context.Background(), "web:v1", Options{})
	if err == nil || !strings.Contains(err.Error(), "podman unshare flatroot pull") {
		t.Errorf("got %v", err)
	}
}

// listing is what a directory has, with what changes when something is written. Access times are not in it.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		fmt.Fprintln(&b, path, st.Ino, st.Mode, st.Uid, st.Nlink, st.Size, st.Mtim, st.Ctim)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func mounts(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestLeavesNothing compares the whole store before and after it was read.
func TestLeavesNothing(t *testing.T) {
	for _, driver := range drivers {
		s := write(t, driver, textLayer("f", "lower"), textLayer("f", "upper"))
		before, mounted := listing(t, s.dir), mounts(t)
		if err := s.read(context.Background(), "web:v1", Options{}); err != nil {
			t.Fatal(err)
		}
		if after := listing(t, s.dir); after != before {
			t.Errorf("%s: before:\n%s\nafter:\n%s", driver, before, after)
		}
		if mounts(t) != mounted {
			t.Errorf("%s: there are other mounts", driver)
		}
	}
}

// writeLock locks a file as the store's writers do. The lock is the open file's, since it is to keep this very process out.
func writeLock(t *testing.T, path string) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		f.Close()
		t.Errorf("lock %s: %v", path, err)
		return func() {}
	}
	return func() { f.Close() }
}

// TestLocks waits for writers, and has them wait while a layer is read.
func TestLocks(t *testing.T) {
	s := write(t, "overlay", textLayer("f", "data"))
	for _, lock := range []string{"overlay-layers/layers.lock", "overlay-images/images.lock"} {
		path := filepath.Join(s.dir, lock)
		unlock := writeLock(t, path)
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		var told []string
		err := s.read(ctx, "web:v1", Options{Waiting: func(lock string) { told = append(told, lock) }})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || len(told) != 1 || told[0] != path {
			t.Errorf("%s: got %v, told of %q", lock, err, told)
		}
		unlock()
	}
	src, err := open(s.dir, s.driver, "web:v1", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	m, err := src.Image(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	writeLock(t, s.dir+"/overlay-layers/layers.lock")() // nothing is held between
	l, err := src.Stored(context.Background(), m.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	first, err := src.OpenBlob(context.Background(), l.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	second, err := src.OpenBlob(context.Background(), l.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil { // must not take the other's lock along
		t.Error(err)
	}
	f, err := os.OpenFile(s.dir+"/overlay-layers/layers.lock", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
		t.Errorf("a writer got the lock while a layer was being read: %v", err)
	}
	if _, err := io.Copy(io.Discard, second); err != nil {
		t.Error(err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Errorf("a writer did not get the lock afterwards: %v", err)
	}
}
