package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tests/testenv"
)

const smallDump = "/ 0 40755 2 0 0 0 1.0 - - -\n/f 5 100644 1 0 0 0 1.0 - hello -\n/w 0 20000 1 0 0 0 1.0 - - -\n"

// digests of smallDump's images, as C mkcomposefs 1.0.8 prints them.
const (
	smallAuto = "5e3f7e4aec5f1679103c6d0f8a29a0a603227cdede6933c1f6a915585162e481"
	small0    = "340abb54d05f55b6017a28231ed8e909b07d1b16c6288a7489d8b48333e5c7c0"
)

// runTool runs one of the C tools' stand-ins.
func runTool(stdin string, name string, args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	if name == "composefs-info" {
		code = composefsInfoMain(args, &out, &errs)
	} else {
		code = mkcomposefsMain(args, strings.NewReader(stdin), &out, &errs)
	}
	return out.String(), errs.String(), code
}

func writeFile(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMkcomposefs(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "small.dump"), smallDump)
	tests := []struct{ args, stdout, stderr string }{
		{"--from-file --print-digest-only " + file, smallAuto, ""},
		{"--print-digest-only --from-file -", smallAuto, ""},
		{"--from-file --print-digest-only --max-version=1 -", smallAuto, ""},
		{"--from-file --print-digest-only --max-version=0 -", small0, ""},
		{"--from-file --print-digest-only --min-version=1 -", smallAuto, ""}, // its whiteout raises it to 1 anyway
		{"--from-file --print-digest-only --min-version 1 --max-version 0 -", smallAuto, ""},
		{"--from-file --print-digest-only --min-version=2 -", "", "there are only 0 and 1"},
		{"--from-file --print-digest-only --min-version=-1 -", "", "there are only 0 and 1"},
		{"--from-file --print-digest-only --max-version=x -", "", "invalid syntax"},
		{"--threads=0 x", "", "invalid threads count 0"},
		{"", "", "no source path specified\nUsage: mkcomposefs"},
		{"x", "", "no destination path specified\nUsage: mkcomposefs"},
		{"x y z", "", "too many arguments\nUsage: mkcomposefs"},
		{"--print-digest-only x y", "", "cannot specify destination path"},
		{"--help", "", "unrecognized option '--help'\nUsage: mkcomposefs"},
		{"--from-file nofile out", "", "nofile: no such file"},
		{"--from-file " + file + " /nodir/x", "", "/nodir/x: no such file"},
		{"nodir out", "", "nodir: no such file"},
		{file + " out", "", "not a directory"},
		{"--skip-xattrs --user-xattrs . out", "", "exclude each other"},
	}
	for _, tt := range tests {
		stdout, stderr, code := runTool(smallDump, "mkcomposefs", strings.Fields(tt.args)...)
		if tt.stderr == "" {
			if code != 0 || stdout != tt.stdout+"\n" || stderr != "" {
				t.Errorf("%s: %d, %q, %q, want %s", tt.args, code, stdout, stderr, tt.stdout)
			}
		} else if code != 1 || stdout != "" || !strings.HasPrefix(stderr, "mkcomposefs: ") || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("%s: %d, %q, %q, want %q", tt.args, code, stdout, stderr, tt.stderr)
		}
	}
	if _, stderr, code := runTool("", "mkcomposefs", "", "x"); code != 1 || stderr != "mkcomposefs: empty source path specified\n" {
		t.Errorf("empty source: %q", stderr)
	}
}

func TestMkcomposefsOutput(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	stdout, stderr, code := runTool(smallDump, "mkcomposefs", "--from-file", "--print-digest", "-", image)
	if code != 0 || stdout != smallAuto+"\n" {
		t.Fatalf("%d, %q, %q", code, stdout, stderr)
	}
	written, err := os.ReadFile(image)
	if err != nil || fsverity.Sum(fsverity.SHA256, written).String() != smallAuto {
		t.Errorf("the file is not the image: %v", err)
	}
	if stdout, _, code = runTool(smallDump, "mkcomposefs", "--from-file", "-", "-"); code != 0 || stdout != string(written) {
		t.Errorf("what is written to standard output is not the image")
	}
}

func TestMkcomposefsSyntaxError(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "bad.dump"), smallDump+"/x\n")
	_, stderr, code := runTool("", "mkcomposefs", "--from-file", "--print-digest-only", file)
	if code != 1 || !strings.HasPrefix(stderr, "mkcomposefs: "+file+":4: ") {
		t.Errorf("%d, %q", code, stderr)
	}
	strictOnly := strings.TrimSuffix(smallDump, "\n")
	if _, stderr, code = runTool(strictOnly, "mkcomposefs", "--from-file", "--print-digest-only", "-"); code != 0 {
		t.Error(stderr)
	}
	t.Setenv("CFS_PARSE_STRICT", "")
	if _, stderr, code = runTool(strictOnly, "mkcomposefs", "--from-file", "--print-digest-only", "-"); code != 1 ||
		!strings.HasPrefix(stderr, "mkcomposefs: stdin:3: ") {
		t.Errorf("%d, %q", code, stderr)
	}
}

func TestFormatOfRange(t *testing.T) {
	tests := map[[2]int64]erofs.Format{{0, 0}: erofs.Format0, {0, 1}: erofs.FormatAuto, {1, 1}: erofs.Format1, {1, 0}: erofs.Format1, {0, -5}: erofs.Format0}
	for in, want := range tests {
		if f, err := formatOfRange(in[0], in[1]); err != nil || f != want {
			t.Errorf("%v: %v, %v", in, f, err)
		}
	}
	for _, in := range [][2]int64{{0, 2}, {1, 2}, {2, 2}, {2, 0}, {-1, 1}, {-1, -1}} {
		if _, err := formatOfRange(in[0], in[1]); err == nil {
			t.Errorf("%v: no error", in)
		}
	}
}

// optionSets are command lines that give one directory different images.
var optionSets = []string{
	"", "--use-epoch", "--skip-xattrs", "--user-xattrs", "--skip-devices", "--use-epoch --skip-xattrs --skip-devices",
	"--min-version=1", "--max-version=0", "--threads=1", "--threads=7",
}

// TestDirectoryAgainstC compares images and object stores of a directory with those of the C tool.
func TestDirectoryAgainstC(t *testing.T) {
	mkcomposefs := testenv.Peer(t, "mkcomposefs")
	dir := makeEverything(t)
	for _, set := range optionSets {
		out := t.TempDir()
		args := func(who string) []string {
			return append(strings.Fields(set), "--print-digest", "--digest-store="+filepath.Join(out, who), dir, filepath.Join(out, who+".img"))
		}
		c := exec.Command(mkcomposefs, args("c")...)
		want, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", c.Args, err, want)
		}
		got, stderr, code := runTool("", "mkcomposefs", args("go")...)
		if code != 0 || got != string(want) {
			t.Errorf("%q: %d, %s%s, want %s", set, code, got, stderr, want)
		}
		if a, b := read(t, out+"/c.img"), read(t, out+"/go.img"); !bytes.Equal(a, b) {
			t.Errorf("%q: images differ", set)
		}
		if a, b := listFiles(t, out+"/c"), listFiles(t, out+"/go"); a != b {
			t.Errorf("%q: stores differ: C's has\n%sours\n%s", set, a, b)
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// listFiles is what a directory holds, with modes and digests.
func listFiles(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		fmt.Fprintf(&out, "%s %v", strings.TrimPrefix(path, dir), info.Mode())
		if info.Mode().IsRegular() {
			fmt.Fprint(&out, " ", fsverity.Sum(fsverity.SHA256, read(t, path)))
		}
		fmt.Fprintln(&out)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestErrorsAgainstC compares exit codes, and that nothing is printed to standard output.
func TestErrorsAgainstC(t *testing.T) {
	mkcomposefs := testenv.Peer(t, "mkcomposefs")
	vectors, err := filepath.Glob("../../erofs/testdata/vectors/fail-*.dump")
	if err != nil || len(vectors) < 30 {
		t.Fatalf("%d vectors: %v", len(vectors), err)
	}
	commands := [][]string{
		{}, {"x"}, {"--none"}, {"--min-version"}, {"--min-version=2", "--from-file", "-", "/dev/null"}, {"-x"},
		{"--print-digest-only", "a", "b"}, {"nodir", "/dev/null"}, {"--from-file", "nofile", "/dev/null"},
	}
	for _, v := range vectors {
		if !strings.Contains(v, "whiteout-collide") { // a mistake of C's own
			commands = append(commands, []string{"--from-file", "--print-digest-only", v})
		}
	}
	for _, args := range commands {
		c := exec.Command(mkcomposefs, args...)
		c.Stdin = strings.NewReader(smallDump)
		want, _ := c.Output()
		got, stderr, code := runTool(smallDump, "mkcomposefs", args...)
		if code != c.ProcessState.ExitCode() || got != string(want) {
			t.Errorf("%q: %d, %q, %q; C: %d, %q", args, code, got, stderr, c.ProcessState.ExitCode(), want)
		}
	}
}
