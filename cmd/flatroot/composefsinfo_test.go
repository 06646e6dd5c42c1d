package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/tests/testenv"
	"github.com/flatroot/flatroot/tree/dump"
)

const infoDump = `/ 0 40755 2 0 0 0 1.0 - - -
/a\x20b 0 40755 2 0 0 0 1.0 - - -
/a\x20b/= 0 120777 1 0 0 0 1.0 to\x20where - -
/a\x20b/file 100 100644 2 0 0 0 1.0 xx/object - -
/b 0 @100644 1 0 0 0 1.0 /a\x20b/file - -
/c 5 100644 1 0 0 0 1.0 - hello -
/d 9 100644 1 0 0 0 1.0 /yy/other - -
/w 0 20000 1 0 0 0 1.0 - - -
`

// makeImage makes the default image of a dump.
func makeImage(t *testing.T, text string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	if _, stderr, code := runTool(text, "mkcomposefs", "--from-file", "-", image); code != 0 {
		t.Fatal(stderr)
	}
	return image
}

func TestComposefsInfo(t *testing.T) {
	image := makeImage(t, infoDump)
	base := t.TempDir()
	if err := os.MkdirAll(base+"/yy/other", 0o755); err != nil {
		t.Fatal(err)
	}
	const opaque = " trusted.overlay.opaque=x user.overlay.opaque=x"
	tests := []struct {
		args         []string
		want, stderr string
	}{
		{[]string{"ls", image}, "/a b/\t\n/a b/=\t-> to\\x20where\n/a b/file\t@ xx/object\n/b\n/c\n/d\t@ /yy/other\n/w\n", ""},
		{[]string{"ls", "--filter=b", image}, "/b\t@ xx/object\n", ""},
		{[]string{"objects", image, image}, "/yy/other\nxx/object\n", ""},
		{[]string{"missing-objects", image}, "/yy/other\nxx/object\n", ""},
		{[]string{"--basedir", base, "missing-objects", image}, "xx/object\n", ""},
		{[]string{"dump", "--filter", "c", "--filter", "w", "--filter", "none", image},
			"/ 4096 40755 3 0 0 0 1.0 - - -" + opaque + "\n/c 5 100644 1 0 0 0 1.0 - hello -\n/w 0 20000 1 0 0 0 1.0 - - -\n", ""},
		{nil, "", "no command specified\nusage: "},
		{[]string{"ls"}, "", "no image path specified\nusage: "},
		{[]string{"measure-file"}, "", "no files specified\nusage: "},
		{[]string{"none", image}, "", "unknown command 'none'\nusage: "},
		{[]string{"--none", "ls", image}, "", "unrecognized option '--none'\nusage: "},
		{[]string{"--filter=a/b", "ls", image}, "", "filter must be a single name: a/b\n"},
		{[]string{"--basedir=/nodir", "missing-objects", image}, "", "/nodir: no such file"},
		{[]string{"ls", "nofile"}, "", "nofile: no such file"},
		{[]string{"ls", os.DevNull}, "", "load /dev/null: "},
	}
	for _, tt := range tests {
		stdout, stderr, code := runTool("", "composefs-info", tt.args...)
		if tt.stderr == "" {
			if code != 0 || stdout != tt.want || stderr != "" {
				t.Errorf("%q: %d, %q, %q, want %q", tt.args, code, stdout, stderr, tt.want)
			}
		} else if code != 1 || stdout != "" || !strings.HasPrefix(stderr, "composefs-info: ") || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("%q: %d, %q, %q, want %q", tt.args, code, stdout, stderr, tt.stderr)
		}
	}
}

func TestMeasureFile(t *testing.T) {
	image := makeImage(t, smallDump)
	stdout, stderr, code := runTool("", "composefs-info", "measure-file", image, image)
	if code != 0 || stdout != smallAuto+"\n"+smallAuto+"\n" {
		t.Errorf("%d, %q, %q", code, stdout, stderr)
	}
	if _, stderr, code = runTool("", "composefs-info", "measure-file", image, t.TempDir()); code != 1 {
		t.Errorf("digest of a directory: %d, %q", code, stderr)
	}
}

// cReadsTooFar names vectors with an object path whose xattr ends without padding: C takes the bytes behind it for a part
// of the path, up to the next NUL.
var cReadsTooFar = []string{"chunk-1024-spill.dump", "object-forms.dump"}

// TestInfoAgainstC compares what both tools print of the images of all vectors.
func TestInfoAgainstC(t *testing.T) {
	info := testenv.Peer(t, "composefs-info")
	vectors, err := filepath.Glob("../../erofs/testdata/vectors/*.dump")
	if err != nil || len(vectors) < 100 {
		t.Fatalf("%d vectors: %v", len(vectors), err)
	}
	for _, v := range vectors {
		image := imageOfVector(t, v)
		if image == "" || slices.Contains(cReadsTooFar, filepath.Base(v)) {
			continue
		}
		for _, command := range []string{"ls", "dump", "objects"} {
			want, err := exec.Command(info, command, image).CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v: %s", v, err, want)
			}
			got, stderr, code := runTool("", "composefs-info", command, image)
			if code != 0 {
				t.Errorf("%s %s: %s", command, v, stderr)
			}
			if g, w := sortXattrs(got), sortXattrs(string(want)); g != w {
				t.Errorf("%s %s: got\n%.2000swant\n%.2000s", command, v, g, w)
			}
		}
	}
}

// imageOfVector is "" if there is none.
func imageOfVector(t *testing.T, file string) string {
	t.Helper()
	tr, err := dump.Parse(bytes.NewReader(read(t, file)), dump.Options{})
	if err != nil {
		return ""
	}
	var img bytes.Buffer
	if _, err := erofs.Write(&img, tr, erofs.WriteOptions{Format: erofs.FormatAuto}); err != nil {
		return ""
	}
	return writeFile(t, filepath.Join(t.TempDir(), "image"), img.String())
}

// sortXattrs brings the extended attributes of a dump's lines into byte order: C prints those that are shared apart from
// the others.
func sortXattrs(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if f := strings.Split(l, " "); len(f) > 11 {
			slices.Sort(f[11:])
			lines[i] = strings.Join(f, " ")
		}
	}
	return strings.Join(lines, "\n")
}
