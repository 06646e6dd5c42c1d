package inguest

import (
	"encoding/json"
	"strings"
	"testing"
)

// way is one way of mounting an image, and what is checked then.
type way struct {
	name    string
	disk    disk
	options string
	want    mounted
}

// mounted is what `flatroot mount --json` reports.
type mounted struct {
	Mode        string `json:"mode"`
	ImageCheck  string `json:"image_check"`
	ObjectCheck string `json:"object_check"`
}

// ways are those that let no wrong byte through.
var ways = []way{
	{"native", verityDisk, "mode=native,verity=require", mounted{"native", "kernel", "kernel"}},
	{"hybrid", verityDisk, "mode=hybrid,verity=require", mounted{"hybrid", "kernel", "kernel"}},
	{"fuse", verityDisk, "mode=fuse,verity=require", mounted{"fuse", "kernel", "user"}},
	// What the server checks once, when it opens an object, can't be changed afterwards if it has fs-verity.
	{"passthrough", verityDisk, "mode=fuse,passthrough,verity=auto", mounted{"fuse", "kernel", "once"}},
	{"fuse", plainDisk, "mode=fuse,verity=require", mounted{"fuse", "sealed", "user"}},
}

// autoWays ask for less, and come to the same as one of ways.
var autoWays = []way{
	{"auto", verityDisk, "verity=auto", mounted{"native", "kernel", "kernel"}},
	{"auto", plainDisk, "verity=auto", mounted{"fuse", "sealed", "user"}},
}

// otherWays leave it to the plan, or get less than they might.
var otherWays = []way{
	{"require", verityDisk, "verity=require", mounted{"native", "kernel", "kernel"}},
	{"require", plainDisk, "verity=require", mounted{"fuse", "sealed", "user"}},
	{"native", plainDisk, "mode=native,verity=auto", mounted{"native", "sealed", "unchecked"}},
	{"hybrid", plainDisk, "mode=hybrid,verity=auto", mounted{"hybrid", "sealed", "unchecked"}},
	{"passthrough", plainDisk, "mode=fuse,passthrough,verity=auto", mounted{"fuse", "sealed", "once"}},
	{"off", verityDisk, "mode=native,verity=off", mounted{"native", "kernel", "unchecked"}},
}

// each runs the test for those of ways that the disk has.
func (d disk) each(t *testing.T, test func(t *testing.T, w way)) {
	t.Helper()
	d.eachOf(t, ways, test)
}

func (d disk) eachOf(t *testing.T, list []way, test func(t *testing.T, w way)) {
	t.Helper()
	for _, w := range list {
		if w.disk == d {
			t.Run(w.name, func(t *testing.T) { test(t, w) })
		}
	}
}

// byOverlay: overlayfs opens the objects, and a FUSE server at most tells it where.
func (w way) byOverlay() bool { return w.want.Mode != "fuse" }

// required: nothing less than everything checked will do.
func (w way) required() bool { return strings.Contains(w.options, "verity=require") }

// tryMount mounts by name from a store.
func (w way) tryMount(dir, target string) (m mounted, err error) {
	out, err := tryFlatroot("mount", sampleName, target, "-o", w.options, "--store", dir, "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &m)
	}
	return m, err
}

// mount mounts by name until the end of the test, and expects it to be checked as it should be.
func (w way) mount(t *testing.T, dir string) (target string) {
	t.Helper()
	target = t.TempDir()
	m, err := w.tryMount(dir, target)
	must(t, err)
	t.Cleanup(func() { unmount(t, target) })
	if m != w.want {
		t.Errorf("mounted as %+v, want %+v", m, w.want)
	}
	return target
}

// tryMountPath mounts an image file, expecting it to have this digest.
func (w way) tryMountPath(image, digest, objects, target string) error {
	_, err := tryFlatroot("mount", image, target, "-o", w.options+",digest="+digest+",basedir="+objects)
	return err
}
