package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Chunkah has the program itself cut each release: of a root tree with a file for each component, and what it takes for a
// database of rpm, since it reads changelogs of no other packages. Its clock, SOURCE_DATE_EPOCH, is the release's.
type Chunkah struct {
	Program string

	Releases int   // that it has cut
	Apart    int   // of these, those that hashTiers cuts otherwise
	Err      error // that has stopped it; results don't count then
}

// chunkahScale is by how much files are smaller than components. They are packed by relations of sizes, and all of them are read
// and written at each release. With this one the largest tree has 256 MB, and the smallest file still has 78 bytes.
const chunkahScale = 16

// Policy of the program. Use it for one row at a time.
func (c *Chunkah) Policy() Policy {
	return Policy{"chunkah (run)", func() Cut {
		return (&chunkahImage{Chunkah: c, blobs: map[string]string{}, contents: map[string]string{}}).cut
	}}
}

// chunkahImage is one image through its releases.
type chunkahImage struct {
	*Chunkah
	blobs    map[string]string // digests of layers by what is in them
	contents map[string]string // and the other way round
}

func (c *chunkahImage) cut(v *View) [][]int {
	if c.Err != nil {
		return floor(v)
	}
	groups, err := c.run(v)
	if err != nil {
		c.Err = fmt.Errorf("release of %s: %w", v.Now.Format(time.DateOnly), err)
		return floor(v)
	}
	c.Releases++
	if !maps.Equal(v.layers(groups), v.layers(hashTiers(v))) {
		c.Apart++
	}
	return groups
}

func (c *chunkahImage) run(v *View) (groups [][]int, err error) {
	dir, err := os.MkdirTemp("", "chunkah-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := v.writeRoot(dir); err != nil {
		return nil, err
	}
	if err := c.build(v, dir); err != nil {
		return nil, err
	}
	layers, err := readLayers(filepath.Join(dir, "image"))
	if err != nil {
		return nil, err
	}
	var all []int
	for _, l := range layers {
		group, err := v.named(strings.Fields(l.Annotations["org.chunkah.component"]))
		if err != nil {
			return nil, err
		}
		if err := c.know(v.content(group), l.Digest.String()); err != nil {
			return nil, err
		}
		groups, all = append(groups, group), append(all, group...)
	}
	if slices.Sort(all); !slices.Equal(all, v.IDs) {
		return nil, fmt.Errorf("layers have %d components, the tree has %d", len(all), len(v.IDs))
	}
	return groups, nil
}

// writeRoot makes, in dir, the tree "root" and a program "bin/rpm" that lists its packages.
func (v *View) writeRoot(dir string) error {
	root := filepath.Join(dir, "root")
	// That there is a database is told by its directory.
	for _, d := range []string{filepath.Join(root, "usr/lib/sysimage/rpm"), filepath.Join(dir, "bin")} {
		if err := os.MkdirAll(d, 0o777); err != nil {
			return err
		}
	}
	for _, id := range v.IDs {
		if err := v.writeComponent(filepath.Join(root, strconv.Itoa(id)), id); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "packages"), v.packages(), 0o666); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "bin/rpm"), []byte("#!/bin/sh\nexec cat \"${0%/*}/../packages\"\n"), 0o777)
}

// writeComponent makes a sparse file that is another one for each version.
func (v *View) writeComponent(name string, id int) error {
	content := fmt.Appendf(nil, "%d version %d\n", id, v.Version[id])
	if err := os.WriteFile(name, content, 0o666); err != nil {
		return err
	}
	if err := os.Truncate(name, max(v.size(id)/chunkahScale, int64(len(content)))); err != nil {
		return err
	}
	built := v.built(id)
	return os.Chtimes(name, built, built)
}

// built is when a component's packages were: 1970 if its first change that is known is still to come, which is long ago as it
// is for hashTiers.
func (v *View) built(id int) time.Time {
	if past := v.Past(id); len(past) > 0 {
		return past[len(past)-1]
	}
	return time.Unix(0, 0)
}

// packages are what `rpm -qa` prints by the format of the crate rpm-qa 0.3, which chunkah asks with: a package for each
// component, its file, and the dates of its changelog with the newest first.
func (v *View) packages() []byte {
	var b bytes.Buffer
	for _, id := range v.IDs {
		name, built, past := v.Components[id].Name, v.built(id).Unix(), v.Past(id)
		fmt.Fprintf(&b, "@@PKG@@\t%s\t1\t1\t(none)\tnoarch\tnone\t0\t%d\t%d\t%s-1-1.src.rpm\t(none)\n", name, built, built, name)
		fmt.Fprintf(&b, "@@FILE@@\t/%d\t0\t%d\t%d\t\t0\troot\troot\t\n", id, 0o100644, built)
		for k := range past {
			fmt.Fprintf(&b, "@@CL@@\t%d\n", past[len(past)-1-k].Unix())
		}
	}
	return b.Bytes()
}

// build runs the program. What the tree has for the sake of the database is no component.
func (c *Chunkah) build(v *View, dir string) error {
	cmd := exec.Command(c.Program, "build", "--rootfs", filepath.Join(dir, "root"), "--prune", "/usr",
		"--output", "oci:"+filepath.Join(dir, "image"), "--max-layers", strconv.Itoa(v.N), "--threads", "1",
		"--source-date-epoch", strconv.FormatInt(v.Now.Unix(), 10), "--config-str", "{}")
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", c.Program, err, bytes.TrimSpace(out))
	}
	return nil
}

// readLayers has those of the one image of an OCI layout.
func readLayers(dir string) ([]ocispec.Descriptor, error) {
	var index ocispec.Index
	if err := readJSON(filepath.Join(dir, "index.json"), &index); err != nil {
		return nil, err
	}
	if len(index.Manifests) != 1 {
		return nil, fmt.Errorf("%s has %d images", dir, len(index.Manifests))
	}
	d := index.Manifests[0].Digest
	if err := d.Validate(); err != nil {
		return nil, err
	}
	var m ocispec.Manifest
	err := readJSON(filepath.Join(dir, "blobs", d.Algorithm().String(), d.Encoded()), &m)
	return m.Layers, err
}

func readJSON(name string, to any) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, to); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// named are the components that chunkah calls so.
func (v *View) named(names []string) (group []int, err error) {
	for _, name := range names {
		id := -1
		for _, x := range v.IDs {
			if "rpm/"+v.Components[x].Name == name {
				id = x
			}
		}
		if id < 0 {
			return nil, fmt.Errorf("a layer has %q, which is no component", name)
		}
		group = append(group, id)
	}
	return group, nil
}

// know fails unless layers have the same bytes whenever the same versions of the same components are in them, and only then:
// that is how fetches are counted.
func (c *chunkahImage) know(content, blob string) error {
	if known, ok := c.blobs[content]; ok && known != blob {
		return fmt.Errorf("layer %s has the components of %s, which had other bytes", blob, known)
	}
	if known, ok := c.contents[blob]; ok && known != content {
		return fmt.Errorf("layer %s had other components before", blob)
	}
	c.blobs[content], c.contents[blob] = blob, content
	return nil
}
