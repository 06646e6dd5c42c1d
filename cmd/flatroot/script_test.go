package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/flatroot/flatroot/mount/fuse/keeper"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/cstorage"
	"github.com/flatroot/flatroot/oci/cstorage/cstoragetest"
	"github.com/flatroot/flatroot/oci/layout"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/oci/sign/signtest"
	"github.com/flatroot/flatroot/tests/testenv"
)

func TestMain(m *testing.M) {
	if cstorage.Helper() {
		return
	}
	if code, is := keeper.Main(os.Args); is {
		os.Exit(code) // a FUSE server of a script's mount
	}
	testscript.Main(inOwnMounts{m}, map[string]func(){
		"flatroot":       main,
		"mkcomposefs":    main,
		"composefs-info": main,
	})
}

// inOwnMounts has what scripts mount seen by no other test. Commands, which are this program too, don't come here.
type inOwnMounts struct{ *testing.M }

func (m inOwnMounts) Run() int {
	if code, done := testenv.InOwnMounts(); done {
		return code
	}
	return m.M.Run()
}

// TestScripts runs the scripts of tests/script, each in a directory of its own with a store yet to be made.
func TestScripts(t *testing.T) {
	helper := sync.OnceValues(func() (string, error) { return buildHelper(t.TempDir()) })
	// A registry of the scripts' own, for those that want one.
	images := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(images.Close)
	testscript.Run(t, testscript.Params{
		Dir:                 "../../tests/script",
		Condition:           testenv.Condition,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("FLATROOT_UPDATE") == "1",
		Setup: func(e *testscript.Env) error {
			e.Setenv("FLATROOT_STORE", filepath.Join(e.WorkDir, "store"))
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("REGISTRY", strings.TrimPrefix(images.URL, "http://"))
			e.Setenv("FLATROOT_PEERS", os.Getenv("FLATROOT_PEERS"))
			dir, err := helper()
			e.Setenv("PATH", e.Getenv("PATH")+string(filepath.ListSeparator)+dir)
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"json": cmdJSON, "cstorage": cmdStorage, "sign": cmdSign, "index": cmdIndex, "layers": cmdLayers,
		},
	})
}

// buildHelper builds mount.flatroot, which is a program of its own, and returns the directory where it is.
func buildHelper(dir string) (string, error) {
	cmd := exec.Command("go", "build", "-o", dir, "../mount.flatroot")
	cmd.Stderr = os.Stderr
	return dir, cmd.Run()
}

// cmdStorage is "cstorage LAYOUT DRIVER DIR NAME": the image of a layout goes into a store of containers-storage.
func cmdStorage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: cstorage LAYOUT DRIVER DIR NAME")
	}
	src, err := layout.Open(oci.Reference{Transport: oci.OCI, Path: ts.MkAbs(args[0])}, layout.Options{})
	ts.Check(err)
	defer src.Close()
	m, err := src.Image(context.Background())
	ts.Check(err)
	b := &ocitest.Built{Blobs: []ocitest.Blob{{Descriptor: m.ConfigDescriptor, Data: m.Config}}}
	for _, l := range m.Layers {
		r, err := src.OpenBlob(context.Background(), l.Descriptor)
		ts.Check(err)
		data, err := io.ReadAll(r)
		ts.Check(errors.Join(err, r.Close()))
		b.Blobs = append(b.Blobs, ocitest.Blob{Descriptor: l.Descriptor, Data: data})
	}
	b.Blobs = append(b.Blobs, ocitest.Blob{Descriptor: m.Descriptor, Data: m.Manifest})
	_, err = cstoragetest.Write(ts.MkAbs(args[2]), args[1], cstoragetest.Image{Built: b, Names: args[3:]})
	ts.Check(err)
}

var snakeCase = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// cmdJSON is "json FILE KEY...": every line of the file is a JSON object that has all the keys, a.b.c for deeper ones, and
// only snake_case names. KEY=VALUE asks for a value besides.
func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: json FILE KEY[=VALUE]...")
	}
	text := strings.TrimSuffix(ts.ReadFile(args[0]), "\n")
	for _, line := range strings.Split(text, "\n") {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			ts.Fatalf("not a JSON object: %s: %v", line, err)
		}
		for name := range object {
			if !snakeCase.MatchString(name) {
				ts.Fatalf("%q is not snake_case: %s", name, line)
			}
		}
		for _, want := range args[1:] {
			checkKey(ts, object, want, line)
		}
	}
}

// cmdSign is "sign FILE LAYOUT NAME REFERENCE": it makes a key, whose public half goes to the file, and signs with it, as
// cosign does, the image of that name as REFERENCE.
func cmdSign(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: sign FILE LAYOUT NAME REFERENCE")
	}
	file, dir := ts.MkAbs(args[0]), ts.MkAbs(args[1])
	src, err := layout.Open(oci.Reference{Transport: oci.OCI, Path: dir, Tag: args[2]}, layout.Options{})
	ts.Check(err)
	defer src.Close()
	image, err := src.Resolve(context.Background())
	ts.Check(err)
	s := signtest.New("P-256")
	ts.Check(os.WriteFile(file, s.PEM, 0o644))
	ts.Check(signtest.Image(s.Of(image.Digest, args[3])).WriteLayout(dir, signtest.Tag(image.Digest)))
}

// cmdIndex is "index LAYOUT NAME PLATFORM...": an image index with an image for each of the platforms, "own" being this machine's,
// which share a layer, and with attestations of them goes into a layout.
func cmdIndex(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: index LAYOUT NAME PLATFORM...")
	}
	x := ocitest.Index{Attested: true}
	shared := ocitest.Tar(ocitest.File{Name: "usr/shared", Data: strings.Repeat("shared ", 100)})
	for _, arg := range args[2:] {
		p := oci.DefaultPlatform()
		if arg != "own" {
			var err error
			p, err = oci.ParsePlatform(arg)
			ts.Check(err)
		}
		own := ocitest.Tar(ocitest.File{Name: "usr/own", Data: strings.Repeat(arg+" ", 100)})
		x.Images = append(x.Images, ocitest.Image{Layers: [][]byte{shared, own}, Platform: p})
	}
	_, err := x.WriteLayout(ts.MkAbs(args[0]), args[1])
	ts.Check(err)
}

func checkKey(ts *testscript.TestScript, object map[string]any, want, line string) {
	key, value, hasValue := strings.Cut(want, "=")
	var at any = object
	for part := range strings.SplitSeq(key, ".") {
		inner, ok := at.(map[string]any)
		if ok {
			at, ok = inner[part]
		}
		if !ok {
			ts.Fatalf("no %s in %s", key, line)
		}
	}
	got, err := json.Marshal(at)
	ts.Check(err)
	if text, ok := at.(string); ok {
		got = []byte(text)
	}
	if hasValue && string(got) != value {
		ts.Fatalf("%s is %s, not %s, in %s", key, got, value, line)
	}
}

// cmdLayers is "layers LAYOUT NAME DIR...": an image with a layer of each directory's files.
func cmdLayers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: layers LAYOUT NAME DIR...")
	}
	var m ocitest.Image
	for _, dir := range args[2:] {
		m.Layers = append(m.Layers, layerOf(ts, ts.MkAbs(dir)))
	}
	_, err := m.WriteLayout(ts.MkAbs(args[0]), args[1])
	ts.Check(err)
}

func layerOf(ts *testscript.TestScript, dir string) []byte {
	var files []ocitest.File
	ts.Check(fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || name == ".":
			return err
		case d.IsDir():
			files = append(files, ocitest.File{Name: name + "/"})
			return nil
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		files = append(files, ocitest.File{Name: name, Data: string(data)})
		return err
	}))
	return ocitest.Tar(files...)
}
