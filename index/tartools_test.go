package index

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tree"
)

// holds says what a format can hold, so what must come out of it again.
type holds struct{ nsec, long, old, special, xattrs, sparse bool }

// tarTool is a way to make a tar of the working directory on stdout.
type tarTool struct {
	args []string
	holds
}

// sparseMin is the number of sparse files in the tree of TestTarTools.
const sparseMin = 2

func tarTools() []tarTool {
	gnu := func(h holds, args ...string) tarTool {
		return tarTool{append([]string{"tar", "--warning=no-file-changed", "-cf", "-"}, append(args, ".")...), h}
	}
	pax := holds{nsec: true, long: true, old: true, special: true, xattrs: true}
	paxSparse := pax
	paxSparse.sparse = true
	bsd, bsdSparse := pax, paxSparse
	bsd.old, bsdSparse.old = false, false // writes -1.5 for half a second after -1
	oldGNU := holds{long: true, old: true, special: true}
	return []tarTool{
		gnu(holds{}, "--format=v7"),
		gnu(holds{special: true}, "--format=ustar"),
		gnu(oldGNU, "--format=gnu"),
		gnu(oldGNU, "--format=oldgnu"),
		gnu(holds{long: true, old: true, special: true, sparse: true}, "--format=gnu", "--sparse"),
		gnu(pax, "--format=pax", "--xattrs"),
		gnu(pax, "--format=pax", "--xattrs", "--pax-option=comment=global"),
		gnu(paxSparse, "--format=pax", "--xattrs", "--sparse", "--sparse-version=0.0"),
		gnu(paxSparse, "--format=pax", "--xattrs", "--sparse", "--sparse-version=0.1"),
		gnu(paxSparse, "--format=pax", "--xattrs", "--sparse", "--sparse-version=1.0"),
		{[]string{"bsdtar", "--format=pax", "-cf", "-", "."}, bsdSparse},
		{[]string{"bsdtar", "--format=pax", "--no-read-sparse", "-cf", "-", "."}, bsd},
		{[]string{"bsdtar", "--format=ustar", "-cf", "-", "."}, holds{special: true}},
		{[]string{"bsdtar", "--format=gnutar", "-cf", "-", "."}, holds{long: true, special: true}},
		{[]string{"busybox", "tar", "-cf", "-", "."}, holds{special: true}},
		{[]string{"pax", "-w", "-x", "ustar", "."}, holds{special: true}},
	}
}

// TestTarTools reads what tar programs write of a tree and compares it with the
// tree.
func TestTarTools(t *testing.T) {
	for _, tool := range tarTools() {
		t.Run(strings.Join(tool.args, " "), func(t *testing.T) {
			if _, err := exec.LookPath(tool.args[0]); err != nil {
				t.Skipf("%s is not installed", tool.args[0])
			}
			dir := t.TempDir()
			hasXattrs := makeTestTree(t, dir, tool.holds)
			cmd := exec.Command(tool.args[0], tool.args[1:]...)
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "LC_ALL=C")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			b, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, &stderr)
			}
			entries, in, report, err := parseBytes(b, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(in.joined(), b) {
				t.Error("the pieces do not add up to the tar")
			}
			if report.Inexact || report.Sparse != tool.sparse {
				t.Errorf("report is %+v", report)
			}
			tool.xattrs = tool.xattrs && hasXattrs
			compareTree(t, dir, entries, in, tool.holds)
		})
	}
}

// makeTestTree fills dir with what a format with h can hold, and reports whether
// the file system takes extended attributes.
func makeTestTree(t *testing.T, dir string, h holds) (hasXattrs bool) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	must(os.MkdirAll(in("usr/bin"), 0o755))
	for _, size := range []int{0, 1, 64, 65, 511, 512, 513, 100_000} {
		must(os.WriteFile(in(fmt.Sprintf("usr/f%d", size)), bytes.Repeat([]byte("content."), size/8+1)[:size], 0o644))
	}
	must(os.WriteFile(in("usr/caf\xe9 =\n"), []byte("x"), 0o600))
	must(os.WriteFile(in("usr/bin/su"), bytes.Repeat([]byte{1}, 5000), 0o755))
	must(os.Chmod(in("usr/bin/su"), 0o755|fs.ModeSetuid))
	must(os.Symlink("../bin/./su", in("usr/link")))
	must(os.Link(in("usr/f513"), in("usr/g513")))
	if h.long {
		deep := "usr/" + strings.Repeat("directory/", 25)
		must(os.MkdirAll(in(deep), 0o755))
		must(os.WriteFile(in(deep+strings.Repeat("n", 200)), []byte("long"), 0o644))
		must(os.Symlink("/"+strings.Repeat("target/", 40), in("usr/longlink")))
		must(os.Link(in(deep+strings.Repeat("n", 200)), in("usr/zlong")))
	}
	if h.special {
		must(unix.Mkfifo(in("usr/fifo"), 0o600))
		// Containers may forbid device nodes: what is there gets compared.
		_ = unix.Mknod(in("usr/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	}
	if h.sparse {
		for i := range sparseMin {
			makeSparse(t, in(fmt.Sprintf("usr/sparse%d", i)), 3+40*i)
		}
	}
	hasXattrs = unix.Lsetxattr(in("usr/f65"), "user.one", []byte("1"), 0) == nil
	if hasXattrs {
		must(unix.Lsetxattr(in("usr/f65"), "user.two", []byte("\x00\n=\xff"), 0))
	}
	times := []time.Time{time.Unix(1_700_000_000, 123_456_789), time.Unix(1, 0)}
	if h.old {
		times = append(times, time.Unix(-1_000_000_000, 500_000_000), time.Unix(-1, 0))
	}
	i := 0
	must(filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		i++
		return os.Chtimes(name, time.Time{}, times[i%len(times)])
	}))
	return hasXattrs
}

// makeSparse makes a file with n stretches of content and holes between them.
func makeSparse(t *testing.T, name string, n int) {
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range n {
		if _, err := f.WriteAt([]byte("data"), int64(i)*64<<10+32<<10); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(int64(n)*64<<10 + 1000); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 >= st.Size {
		t.Skipf("the file system of %s has no sparse files: %v", name, err)
	}
}

// compareTree compares entries with what is below dir.
func compareTree(t *testing.T, dir string, entries []Entry, in *memInput, h holds) {
	t.Helper()
	found := map[string]int{}
	for i, e := range entries {
		if _, ok := found[string(e.Name)]; ok {
			t.Errorf("%q comes twice", e.Name)
		}
		found[string(e.Name)] = i
	}
	count := 0
	err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, name)
		if rel == "." {
			rel = ""
		}
		i, ok := found[rel]
		if !ok {
			t.Errorf("no entry for %q", rel)
			return err
		}
		count++
		compareFile(t, name, entries[i], entries, in, h)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if count != len(entries) {
		t.Errorf("%d entries for %d files", len(entries), count)
	}
}

// compareFile compares an entry with the file that it was made of.
func compareFile(t *testing.T, name string, e Entry, entries []Entry, in *memInput, h holds) {
	t.Helper()
	want := entryOfFile(t, name, h)
	if e.Hardlink {
		i := slices.IndexFunc(entries, func(x Entry) bool { return bytes.Equal(x.Name, e.Link) })
		if i < 0 || entries[i].Hardlink {
			t.Errorf("%q is a link to %q, which is no file", e.Name, e.Link)
			return
		}
		target := entries[i]
		target.Name = e.Name
		e = target
	}
	want.Name = e.Name
	w := &memInput{}
	if want.Mode&modeFmt == modeFile {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		w.objects, want.Size = [][]byte{content}, int64(len(content))
		if !bytes.Equal(content, in.content(e)) {
			t.Errorf("%q: content differs", e.Name)
		}
	}
	if got, exp := in.line(e), w.line(want); got != exp {
		t.Errorf("got  %s\nwant %s", got, exp)
	}
}

// entryOfFile returns the entry that a file should have in a format with h.
func entryOfFile(t *testing.T, name string, h holds) Entry {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		t.Fatal(err)
	}
	e := Entry{Mode: st.Mode, UID: st.Uid, GID: st.Gid, MtimeSec: st.Mtim.Sec}
	if h.nsec {
		e.MtimeNsec = uint32(st.Mtim.Nsec)
	}
	switch st.Mode & modeFmt {
	case modeChar, modeBlock:
		e.Rdev = uint32(st.Rdev)
	case modeSymlink:
		target, err := os.Readlink(name)
		if err != nil {
			t.Fatal(err)
		}
		e.Link = []byte(target)
	}
	if h.xattrs && filepath.Base(name) == "f65" {
		e.Xattrs = []tree.Xattr{{Name: "user.one", Value: []byte("1")}, {Name: "user.two", Value: []byte("\x00\n=\xff")}}
	}
	return e
}
