package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/archive"
	"github.com/flatroot/flatroot/oci/ocitest"
)

// forms are the ways in which an archive may be stored.
var forms = map[string]func(testing.TB, []byte) []byte{
	"plain": func(_ testing.TB, b []byte) []byte { return b },
	"gzip":  func(t testing.TB, b []byte) []byte { return compressed(t, b, ocitest.Gzip) },
	"zstd":  func(t testing.TB, b []byte) []byte { return compressed(t, b, ocitest.Zstd) },
}

func TestOCISource(t *testing.T) {
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			ocitest.TestSource(t, func(t *testing.T, b *ocitest.Built) func(oci.Platform) (oci.Source, error) {
				list, err := b.OCIArchive("v1")
				check(t, err)
				path := write(t, form(t, ocitest.Tar(list...)))
				return func(p oci.Platform) (oci.Source, error) {
					return archive.Open(oci.Reference{Transport: oci.OCIArchive, Path: path, Tag: "v1"}, archive.Options{Platform: p})
				}
			})
			noTemporaries(t, os.Getenv("TMPDIR"))
		})
	}
}

func TestDockerSource(t *testing.T) {
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			ocitest.TestSource(t, func(t *testing.T, b *ocitest.Built) func(oci.Platform) (oci.Source, error) {
				list, err := ocitest.DockerArchive(ocitest.Archived{Built: b, Names: []string{"v:1"}})
				check(t, err)
				path := write(t, form(t, ocitest.Tar(list...)))
				return func(p oci.Platform) (oci.Source, error) {
					return archive.Open(oci.Reference{Transport: oci.DockerArchive, Path: path}, archive.Options{Platform: p})
				}
			}, ocitest.Unmanifested)
			noTemporaries(t, os.Getenv("TMPDIR"))
		})
	}
}

// TestMadeManifest pins the manifest that is made: a change of it is another digest of the same image.
func TestMadeManifest(t *testing.T) {
	b := sample(t, "x", ocitest.None)
	list, err := ocitest.DockerArchive(ocitest.Archived{Built: b})
	check(t, err)
	m, err := read(oci.Reference{Transport: oci.DockerArchive, Path: write(t, ocitest.Tar(list...))}, archive.Options{})
	check(t, err)
	config, layer := b.Find("config").Descriptor, b.Find("layer").Descriptor
	want := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",`+
		`"config":{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"%s","size":%d},`+
		`"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar","digest":"%s","size":%d}]}`,
		config.Digest, config.Size, layer.Digest, layer.Size)
	if string(m.Manifest) != want {
		t.Errorf("got\n%s\nwant\n%s", m.Manifest, want)
	}
	if m.Descriptor.Digest != digest.FromString(want) {
		t.Errorf("digest %s", m.Descriptor.Digest)
	}
}

// TestCompressedLayer finds the digest of a layer that the config says nothing of.
func TestCompressedLayer(t *testing.T) {
	for how, mediaType := range map[ocitest.Compression]string{
		ocitest.Gzip: oci.MediaTypeDockerLayerGzip, ocitest.Zstd: oci.MediaTypeDockerLayerZstd, ocitest.None: oci.MediaTypeDockerLayer,
	} {
		b := sample(t, "x", how)
		list, err := ocitest.DockerArchive(ocitest.Archived{Built: b})
		check(t, err)
		m, err := read(oci.Reference{Transport: oci.DockerArchive, Path: write(t, ocitest.Tar(list...))}, archive.Options{})
		check(t, err)
		if d := m.Layers[0].Descriptor; d.Digest != b.Find("layer").Descriptor.Digest || d.MediaType != mediaType {
			t.Errorf("got %+v", d)
		}
	}
}

func TestWhichDockerImage(t *testing.T) {
	one, two, three, four := sample(t, "1", ocitest.None), sample(t, "2", ocitest.None), sample(t, "3", ocitest.None), sample(t, "4", ocitest.None)
	list, err := ocitest.DockerArchive(
		ocitest.Archived{Built: one, Names: []string{"alpine:3", "docker.io/library/alpine:latest"}},
		ocitest.Archived{Built: two, Names: []string{"quay.io/org/app:v2"}},
		ocitest.Archived{Built: three, Names: []string{"<none>:<none>", "twice:1"}},
		ocitest.Archived{Built: four, Names: []string{"twice:1", "twice:1", "twice:2"}},
		ocitest.Archived{Built: four},
	)
	check(t, err)
	path := write(t, ocitest.Tar(list...))
	const all = "there is alpine:3 (@0), quay.io/org/app:v2 (@1), <none>:<none> (@2), twice:1 (@3), @4 without a name"
	for tag, want := range map[string]any{
		":alpine:3": one, ":alpine": one, ":docker.io/library/alpine:3": one, ":index.docker.io/library/alpine": one,
		":quay.io/org/app:v2": two, ":twice:2": four, ":@0": one, ":@2": three, ":@4": four,
		"":                 "has 5 images; choose by name or place, docker-archive:FILE:NAME or :@PLACE; " + all,
		":app:v2":          "no image named docker.io/library/app:v2; " + all,
		":quay.io/org/app": "no image named quay.io/org/app:latest",
		":twice:1":         "2 images are named docker.io/library/twice:1; choose by place",
		":@5":              "no image @5: " + all,
	} {
		ref, err := oci.ParseReference("docker-archive:" + path + tag)
		check(t, err)
		m, err := read(ref, archive.Options{})
		switch want := want.(type) {
		case *ocitest.Built:
			if err != nil || m.ConfigDescriptor.Digest != want.Find("config").Descriptor.Digest {
				t.Errorf("%q: got %+v, %v", tag, m, err)
			}
		case string:
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: got %v, want %q in it", tag, err, want)
			}
		}
	}
	if _, err := read(oci.Reference{Transport: oci.DockerArchive, Path: path, Tag: "@0"}, archive.Options{Platform: oci.Platform{OS: "linux", Architecture: "s390x"}}); !errors.As(err, new(*oci.PlatformError)) {
		t.Errorf("other platform: %v", err)
	}
}

// TestWhichOCIImage chooses by name, place and digest.
func TestWhichOCIImage(t *testing.T) {
	one, two := sample(t, "1", ocitest.Gzip), sample(t, "2", ocitest.Gzip)
	dir := t.TempDir()
	check(t, one.WriteLayout(dir, "v1"), two.WriteLayout(dir, "v2"))
	list, err := one.OCIArchive("")
	check(t, err)
	more, err := two.OCIArchive("")
	check(t, err)
	index, err := os.ReadFile(filepath.Join(dir, "index.json"))
	check(t, err)
	list[1].Data = string(index)
	for _, f := range more[4:] { // after the two documents and two directories
		if f.Name != "blobs/sha256/"+one.Find("config").Descriptor.Digest.Encoded() {
			list = append(list, f)
		}
	}
	path := write(t, ocitest.Tar(list...))
	for tag, want := range map[string]string{
		":v1": one.Root().Digest.String(), ":v2": two.Root().Digest.String(), ":@1": two.Root().Digest.String(),
		"@" + two.Root().Digest.String(): two.Root().Digest.String(),
		"":                               "!has 2 images; choose by name, oci-archive:FILE:NAME; there is v1, v2",
		":v3":                            `!no image named "v3"; there is v1, v2`,
		":@2":                            "!no image @2: it has 2",
	} {
		ref, err := oci.ParseReference("oci-archive:" + path + tag)
		check(t, err)
		m, err := read(ref, archive.Options{})
		got := fmt.Sprint("!", err)
		if err == nil {
			got = m.Descriptor.Digest.String()
		}
		if !strings.HasPrefix(got, want[:1]) || !strings.Contains(got, strings.TrimPrefix(want, "!")) {
			t.Errorf("%q: got %s, want %s", tag, got, want)
		}
	}
}

// TestForms reads what other tools make of the same archive.
func TestForms(t *testing.T) {
	b := sample(t, "x", ocitest.None)
	list, err := ocitest.DockerArchive(ocitest.Archived{Built: b, Names: []string{"a:1"}})
	check(t, err)
	var layer ocitest.File
	for i := range list {
		if strings.HasSuffix(list[i].Name, "/layer.tar") {
			layer = list[i]
			list = append(list[:i], list[i+1:]...)
			break
		}
	}
	hex := strings.TrimSuffix(layer.Name, "/layer.tar")
	for name, files := range map[string][]ocitest.File{
		"as it is":       {layer},
		"symlink":        {{Name: hex + ".tar", Data: layer.Data}, {Name: layer.Name, Link: "../" + hex + ".tar"}},
		"before it":      {{Name: layer.Name, Link: "../" + hex + ".tar"}, {Name: hex + ".tar", Data: layer.Data}},
		"two links":      {{Name: layer.Name, Link: "../x/y"}, {Name: "x/"}, {Name: "x/y", Link: "./z"}, {Name: "x/z", Data: layer.Data}},
		"directories":    {{Name: hex + "/"}, {Name: hex + "/"}, layer, {Name: hex + "/"}},
		"other files":    {{Name: "repositories", Data: "{}"}, {Name: "oci-layout", Data: "{}"}, layer, {Name: hex + "/VERSION", Data: "1.0"}},
		"link elsewhere": {layer, {Name: "escape", Link: "../../etc/passwd"}, {Name: "abs", Link: "/etc/passwd"}},
	} {
		path := write(t, ocitest.Tar(append(files, list...)...))
		if _, err := read(oci.Reference{Transport: oci.DockerArchive, Path: path}, archive.Options{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	dotted := []ocitest.File{{Name: "./"}}
	for _, f := range append(list, layer) {
		f.Name = "./" + f.Name
		dotted = append(dotted, f)
	}
	if _, err := read(oci.Reference{Transport: oci.DockerArchive, Path: write(t, ocitest.Tar(dotted...))}, archive.Options{}); err != nil {
		t.Errorf("with ./ before all names: %v", err)
	}
}

// TestBothInOne reads what Docker has written since version 25: an OCI layout with a manifest.json beside it.
func TestBothInOne(t *testing.T) {
	for _, how := range []ocitest.Compression{ocitest.None, ocitest.Gzip} {
		b := sample(t, "x", how)
		list, err := b.OCIArchive("1")
		check(t, err)
		blob := func(kind string) string { return "blobs/sha256/" + b.Find(kind).Descriptor.Digest.Encoded() }
		list = append(list,
			ocitest.File{Name: "manifest.json", Data: fmt.Sprintf(`[{"Config":%q,"RepoTags":["web:1"],"Layers":[%q],"LayerSources":{"sha256:x":{}}}]`, blob("config"), blob("layer"))},
			ocitest.File{Name: "repositories", Data: "{}"})
		path := write(t, ocitest.Tar(list...))
		asOCI, err := read(oci.Reference{Transport: oci.OCIArchive, Path: path, Tag: "1"}, archive.Options{})
		check(t, err)
		asDocker, err := read(oci.Reference{Transport: oci.DockerArchive, Path: path, Tag: "web:1"}, archive.Options{})
		check(t, err)
		if asOCI.Descriptor.Digest != b.Root().Digest || asDocker.ConfigDescriptor.Digest != asOCI.ConfigDescriptor.Digest ||
			asDocker.Layers[0].Descriptor.Digest != asOCI.Layers[0].Descriptor.Digest {
			t.Errorf("got %+v and %+v", asOCI, asDocker)
		}
	}
}

// TestHostileDocker changes a docker-archive.
func TestHostileDocker(t *testing.T) {
	b := sample(t, "x", ocitest.None)
	good, err := ocitest.DockerArchive(ocitest.Archived{Built: b, Names: []string{"a:1"}})
	check(t, err)
	edit := func(name string, f func(*ocitest.File)) func([]ocitest.File) []ocitest.File {
		return func(list []ocitest.File) []ocitest.File {
			for i := range list {
				if strings.HasSuffix(list[i].Name, name) {
					f(&list[i])
				}
			}
			return list
		}
	}
	manifest := func(text string) func([]ocitest.File) []ocitest.File {
		return edit("manifest.json", func(f *ocitest.File) { f.Data = text })
	}
	add := func(more ...ocitest.File) func([]ocitest.File) []ocitest.File {
		return func(list []ocitest.File) []ocitest.File { return append(list, more...) }
	}
	config := b.Find("config").Descriptor.Digest.Encoded() + ".json"
	layer := b.Find("layer").Descriptor.Digest.Encoded() + "/layer.tar"
	for name, c := range map[string]struct {
		change func([]ocitest.File) []ocitest.File
		want   string
	}{
		"config outside":          {manifest(`[{"Config":"../../etc/passwd","Layers":[]}]`), "no plain name"},
		"config absolute":         {manifest(`[{"Config":"/etc/passwd","Layers":[]}]`), "no plain name"},
		"config missing":          {manifest(`[{"Config":"nothing","Layers":[]}]`), `config: "nothing": file does not exist`},
		"config a directory":      {manifest(`[{"Config":"` + path0(layer) + `","Layers":[]}]`), "does not exist"},
		"layer outside":           {manifest(`[{"Config":"` + config + `","Layers":["../x"]}]`), "layer 1"},
		"layer missing":           {manifest(`[{"Config":"` + config + `","Layers":["x\u001b[2J"]}]`), `layer 1: "x [2J": file does not exist`},
		"layers too few":          {manifest(`[{"Config":"` + config + `","Layers":[]}]`), "has 1 diff_ids, manifest.json 0 layers"},
		"no images":               {manifest(`[]`), "has 0 images"},
		"no list":                 {manifest(`{"Config":"x"}`), "manifest.json: "},
		"manifest a link out":     {edit("manifest.json", func(f *ocitest.File) { f.Data, f.Link = "", "/etc/passwd" }), `"manifest.json" is not a file`},
		"manifest a directory":    {edit("manifest.json", func(f *ocitest.File) { f.Data, f.Name = "", "manifest.json/" }), `"manifest.json" is not a file`},
		"no manifest":             {edit("manifest.json", func(f *ocitest.File) { f.Name = "other" }), "it is no docker-archive"},
		"before Docker 1.10":      {edit("manifest.json", func(f *ocitest.File) { f.Name = "repositories" }), "before Docker 1.10"},
		"an OCI archive":          {edit("manifest.json", func(f *ocitest.File) { f.Name = "oci-layout" }), "write oci-archive:"},
		"manifest too large":      {manifest(strings.Repeat(" ", 5<<20)), "more than 4194304"},
		"config too large":        {edit(config, func(f *ocitest.File) { f.Data += strings.Repeat(" ", 5<<20) }), "more than 4194304"},
		"config no JSON":          {edit(config, func(f *ocitest.File) { f.Data = "<html>" }), `begins "<html>"`},
		"diffID no digest":        {edit(config, func(f *ocitest.File) { f.Data = `{"rootfs":{"type":"layers","diff_ids":["sha256:../x"]}}` }), "want 64"},
		"twice":                   {add(ocitest.File{Name: layer, Data: "other"}), "is there twice"},
		"twice, once with ./":     {add(ocitest.File{Name: "./" + config, Data: "other"}), "is there twice"},
		"twice, a directory":      {add(ocitest.File{Name: config + "/"}), "is there twice"},
		"twice, a link":           {add(ocitest.File{Name: config, Link: "x"}), "is there twice"},
		"name outside":            {add(ocitest.File{Name: "../x"}), "no plain name"},
		"name absolute":           {add(ocitest.File{Name: "/x"}), "no plain name"},
		"name in between":         {add(ocitest.File{Name: "a/../x"}), "no plain name"},
		"name doubled slashes":    {add(ocitest.File{Name: "a//x"}), "no plain name"},
		"name long":               {add(ocitest.File{Name: strings.Repeat("n", 1025)}), "its name has 1025 bytes"},
		"target long":             {add(ocitest.File{Name: "l", Link: strings.Repeat("n", 2000)}), "its target has 2000 bytes"},
		"link to itself":          {edit(layer, func(f *ocitest.File) { f.Data, f.Link = "", "layer.tar" }), "leads from link to link"},
		"link to a directory":     {edit(layer, func(f *ocitest.File) { f.Data, f.Link = "", "." }), "does not exist"},
		"link out of the archive": {edit(layer, func(f *ocitest.File) { f.Data, f.Link = "", "../../../etc/passwd" }), "does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			list := c.change(append([]ocitest.File{}, good...))
			path := write(t, ocitest.Tar(list...))
			if _, err := read(oci.Reference{Transport: oci.DockerArchive, Path: path}, archive.Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func path0(name string) string { return strings.Split(name, "/")[0] }

// TestHostileBytes changes the bytes of an archive.
func TestHostileBytes(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	list, err := sample(t, strings.Repeat("x", 5000), ocitest.None).OCIArchive("")
	check(t, err)
	good := ocitest.Tar(list...)
	gz, zst := compressed(t, good, ocitest.Gzip), compressed(t, good, ocitest.Zstd)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":            {nil, "is an empty archive"},
		"zeros":            {make([]byte, 1024), "is an empty archive"},
		"text":             {[]byte(strings.Repeat("no tar", 200)), "is no tar"},
		"short":            {[]byte("x"), "is no tar"},
		"cut in a file":    {good[:len(good)-4096], "cut off"},
		"cut in a header":  {good[:1200], "read the header of entry 2: unexpected EOF"},
		"gzip cut":         {gz[:len(gz)-20], "inflate the archive"},
		"gzip changed":     {append(append([]byte{}, gz[:len(gz)/2]...), make([]byte, len(gz)/2)...), "inflate the archive"},
		"gzip and more":    {append(append([]byte{}, gz...), "more"...), "inflate the archive"},
		"gzip header only": {gz[:3], "inflate the archive"},
		"zstd cut":         {zst[:len(zst)-20], "inflate the archive"},
		"gzip in gzip":     {compressed(t, gz, ocitest.Gzip), "is no tar"},
		"xz":               {[]byte("\xfd7zXZ\x00...."), "is compressed with xz, bzip2 or lz4"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := read(oci.Reference{Transport: oci.OCIArchive, Path: write(t, c.data)}, archive.Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
	noTemporaries(t, os.Getenv("TMPDIR"))
}

func TestNoArchive(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	check(t, syscall.Mkfifo(fifo, 0o644))
	for path, want := range map[string]string{dir: "is a directory", fifo: "is not a regular file", dir + "/nothing": "no such file"} {
		if _, err := read(oci.Reference{Transport: oci.OCIArchive, Path: path}, archive.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", path, err, want)
		}
	}
	list, err := ocitest.DockerArchive(ocitest.Archived{Built: sample(t, "x", ocitest.None)})
	check(t, err)
	path := write(t, ocitest.Tar(list...))
	if _, err := read(oci.Reference{Transport: oci.OCIArchive, Path: path}, archive.Options{}); err == nil || !strings.Contains(err.Error(), "write docker-archive:"+path) {
		t.Errorf("a docker-archive as oci-archive: %v", err)
	}
}

// TestWrongBlob asks a docker-archive for what it does not have.
func TestWrongBlob(t *testing.T) {
	b := sample(t, "x", ocitest.None)
	list, err := ocitest.DockerArchive(ocitest.Archived{Built: b})
	check(t, err)
	src, err := archive.Open(oci.Reference{Transport: oci.DockerArchive, Path: write(t, ocitest.Tar(list...))}, archive.Options{})
	check(t, err)
	defer src.Close()
	longer := b.Find("layer").Descriptor
	longer.Size++
	if _, err := src.OpenBlob(context.Background(), longer); !errors.As(err, new(*oci.SizeError)) {
		t.Errorf("longer: %v", err)
	}
	if _, err := src.OpenBlob(context.Background(), b.Find("config").Descriptor); err == nil || !strings.Contains(err.Error(), "there is no layer") {
		t.Errorf("config: %v", err)
	}
}

// TestBlobsAreRead makes sure that a blob is the file that its descriptor leads to.
func TestBlobsAreRead(t *testing.T) {
	b := sample(t, "x", ocitest.Gzip)
	list, err := b.OCIArchive("")
	check(t, err)
	path := write(t, ocitest.Tar(list...))
	t.Chdir(filepath.Dir(path))
	src, err := archive.Open(oci.Reference{Transport: oci.OCIArchive, Path: filepath.Base(path)}, archive.Options{})
	check(t, err)
	defer src.Close()
	r, err := src.OpenBlob(context.Background(), b.Find("layer").Descriptor)
	check(t, err)
	got, err := io.ReadAll(r)
	check(t, err, r.Close())
	if !bytes.Equal(got, b.Find("layer").Data) {
		t.Errorf("got %d bytes", len(got))
	}
	if origin := src.(interface{ Origin() string }).Origin(); origin != "oci-archive:"+path {
		t.Errorf("origin %s", origin)
	}
}

// TestInflatingIsTold tells how far an archive is that is compressed as a whole, and nothing of one that is not.
func TestInflatingIsTold(t *testing.T) {
	b, err := ocitest.Sample(amd64).Build()
	if err != nil {
		t.Fatal(err)
	}
	list, err := b.OCIArchive("v1")
	if err != nil {
		t.Fatal(err)
	}
	tar := ocitest.Tar(list...)
	for name, c := range map[string]struct {
		data []byte
		told bool
	}{"plain": {tar, false}, "gzip": {compressed(t, tar, ocitest.Gzip), true}, "zstd": {compressed(t, tar, ocitest.Zstd), true}} {
		var total, sum int64
		ends := 0
		_, err := read(oci.Reference{Transport: oci.OCIArchive, Path: write(t, c.data)}, archive.Options{Platform: amd64, Inflating: func(n int64) func(int64) {
			total = n
			return func(n int64) {
				if sum += n; n == 0 {
					ends++
				}
			}
		}})
		want, wantEnds := int64(0), 0
		if c.told {
			want, wantEnds = int64(len(c.data)), 1
		}
		if err != nil || total != want || sum != want || ends != wantEnds {
			t.Errorf("%s: told %d of %d bytes, %d ends; want %d; %v", name, sum, total, ends, want, err)
		}
	}
}
