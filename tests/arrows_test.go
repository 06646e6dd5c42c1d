// Package tests has what belongs to no package alone: which packages may import which, scripts, peers, benchmarks.
package tests

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/flatroot/flatroot"

// arrows lists what each package may import of the module. A name that ends in /... stands for all below it too.
var arrows = map[string][]string{
	"fsverity":     nil,
	"tree":         {"fsverity"},
	"tree/dump":    {"tree", "fsverity"},
	"erofs":        {"erofs/disk", "tree", "fsverity"},
	"erofs/disk":   nil,
	"store":        {"fsverity"},
	"store/stream": {"fsverity"},
	"oci":          {"fsverity"},
	"oci/files":    {"oci"},
	"oci/layout":   {"oci", "oci/files", "fsverity"},
	"oci/archive":  {"oci", "oci/files", "oci/layout"},
	"oci/dir":      {"oci", "oci/files"},
	"oci/registry": {"oci", "fsverity"},
	"oci/cstorage": {"oci"},
	"oci/sign":     {"oci"},
	"index":        {"oci", "store", "store/stream", "tree", "fsverity"},
	"chunk":        {"chunk/pkgdb", "tree", "oci", "fsverity"},
	"fsck":         {"index", "oci", "store", "store/stream", "erofs", "tree", "fsverity"},
	"chunk/pkgdb":  nil,
	"mount":        {"erofs", "erofs/disk", "fsverity"},

	"chunk/picture": {"chunk"},

	"mount/fuse":        {"mount", "mount/fuse/object", "mount/fuse/wire", "erofs", "erofs/disk", "fsverity"},
	"mount/fuse/keeper": {"mount", "mount/fuse", "erofs", "fsverity"},
	"mount/fuse/object": {"fsverity"},
	"mount/fuse/wire":   nil,

	"cmd/mount.flatroot": {"mount", "mount/fuse/keeper", "erofs", "store", "store/stream", "fsverity"},
	"cmd/flatroot":       {"..."},
}

// quarantine lists the only packages that may import a heavy or delicate dependency.
var quarantine = map[string][]string{
	"github.com/google/go-containerregistry":   {"oci/registry"},
	"github.com/docker/cli":                    {"oci/registry"},
	"go.podman.io/image":                       {"oci/registry"},
	"go.podman.io/storage":                     {"oci/cstorage", "index"},
	"github.com/sirupsen/logrus":               {"oci/cstorage"}, // by which that library talks
	"github.com/urfave/cli":                    {"cmd/flatroot"},
	"github.com/vbauerster/mpb":                {"cmd/flatroot"},
	"github.com/klauspost/compress":            {"index", "store/stream", "oci/archive", "oci/cstorage", "chunk/pkgdb"},
	"github.com/vbatts/tar-split":              {"oci/cstorage", "index"},
	"go.yaml.in/yaml":                          {"chunk"},
	"github.com/containerd/stargz-snapshotter": nil, // tests make layers with it
	"C": nil,
}

type goPackage struct {
	ImportPath string
	Imports    []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// helper tells packages that only tests import: they hang off the package that they help with.
func helper(name string) bool {
	return strings.HasPrefix(name, "tests") || strings.HasSuffix(name, "test")
}

func TestArrows(t *testing.T) {
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		if helper(name) {
			continue
		}
		allowed, known := arrows[name]
		if !known {
			t.Errorf("package %s has no line in the table of arrows", name)
		}
		for _, i := range p.Imports {
			to, ours := strings.CutPrefix(i, module+"/")
			if ours && !slices.Contains(allowed, to) && !slices.Contains(allowed, "...") {
				t.Errorf("%s must not import %s", name, to)
			}
			checkQuarantine(t, name, i)
		}
	}
}

func checkQuarantine(t *testing.T, name, imported string) {
	t.Helper()
	for prefix, allowed := range quarantine {
		if (imported == prefix || strings.HasPrefix(imported, prefix+"/")) && !slices.Contains(allowed, name) {
			t.Errorf("%s must not import %s", name, imported)
		}
	}
}
