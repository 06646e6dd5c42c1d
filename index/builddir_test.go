package index

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree/dump"
)

// makeRootTree fills a directory with what a file system can hold, as far as the user may make it: on top of makeTestTree
// hard links of all kinds, file capabilities, ACLs, trusted attributes, sparse files, devices with large numbers, owners.
// It says whether extended attributes are among it.
func makeRootTree(t *testing.T, dir string) (hasXattrs bool) {
	t.Helper()
	in := func(name string) string { return filepath.Join(dir, name) }
	hasXattrs = makeTestTree(t, dir, holds{nsec: true, long: true, old: true, special: true, sparse: true, xattrs: true})
	check(t,
		os.Link(in("usr/link"), in("usr/bin/link2")), os.Link(in("usr/f65"), in("a-first")), os.Link(in("usr/sparse0"), in("usr/sparse-link")),
		os.WriteFile(in("usr/hole"), nil, 0o640), os.Truncate(in("usr/hole"), 1<<20),
		os.Chmod(in("usr/bin"), 0o777|os.ModeSticky|os.ModeSetgid),
	)
	if os.Geteuid() != 0 {
		return hasXattrs
	}
	check(t, os.Lchown(in("usr/hole"), 1000, 1<<20), os.Lchown(in("usr/longlink"), 5, 6))
	for name, dev := range map[string]uint64{"usr/block": unix.Mkdev(259, 0xfffff), "usr/char": unix.Mkdev(4095, 1)} {
		kind := uint32(unix.S_IFBLK)
		if strings.HasSuffix(name, "char") {
			kind = unix.S_IFCHR
		}
		_ = unix.Mknod(in(name), kind|0o600, int(dev)) // containers may forbid it
	}
	if hasXattrs {
		for _, x := range []struct{ file, key, value string }{
			// struct vfs_cap_data of linux/capability.h: revision 2, effective, CAP_NET_RAW.
			{"usr/f512", "security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
			// posix_acl_xattr.h: version 2, then tag, permissions and ID of user::rw-, user:10:r--, group::r--, mask::r--, other::r--.
			{"usr/f513", "system.posix_acl_access", "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\x0a\x00\x00\x00" +
				"\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"},
			{"usr/link", "trusted.of-a-link", "x"}, {"usr/bin", "trusted.of-a-directory", "\x00=\n"}, {"usr/fifo", "trusted.of-a-pipe", "x"},
		} {
			_ = unix.Lsetxattr(in(x.file), x.key, []byte(x.value), 0) // what is there gets compared
		}
	}
	return hasXattrs
}

// tarOfDir is the tar of a directory.
func tarOfDir(dir string) io.Reader {
	r, w := io.Pipe()
	go func() { w.CloseWithError(WriteDirTar(context.Background(), w, dir, DirOptions{})) }()
	return r
}

// dumpOf is the text of the tree that is built from a tar.
func dumpOf(t *testing.T, tar io.Reader, rules Rules) string {
	t.Helper()
	tr, err := BuildTree(context.Background(), fsverity.SHA256, tar, "test", ImportOptions{Rules: rules})
	check(t, err)
	var b bytes.Buffer
	check(t, dump.Write(&b, tr))
	return b.String()
}

// TestBuildAsTar builds a directory and tars of it that GNU tar has made: one digest, by both rules.
func TestBuildAsTar(t *testing.T) {
	dir := t.TempDir()
	hasXattrs := makeRootTree(t, dir)
	gnu := []string{"tar", "--warning=no-file-changed", "--format=pax", "--xattrs", "--xattrs-include=*", "-cf", "-"}
	for _, args := range [][]string{
		append(gnu, "."), append(gnu, "--sort=name", "."), append(gnu, "--acls", "."), append(gnu, "--sparse", "."),
		append(gnu, "--sparse", "--sparse-version=0.1", "."), append(gnu, "--pax-option=delete=atime,delete=ctime", "."),
	} {
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Skipf("%s is not installed", args[0])
		}
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "LC_ALL=C")
		b, err := cmd.Output()
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			t.Fatalf("%v: %s", err, exit.Stderr)
		}
		check(t, err)
		for _, rules := range []Rules{OCI1, Faithful1} {
			want, got := dumpOf(t, tarOfDir(dir), rules), dumpOf(t, bytes.NewReader(b), rules)
			if got != want {
				t.Errorf("%v by %s:\n%s", args, rules, firstDifference(got, want))
			}
			o := ImportOptions{Rules: rules, Image: writeImage}
			ofDir, err := BuildDigest(context.Background(), fsverity.SHA256, tarOfDir(dir), "directory", o)
			check(t, err)
			ofTar, err := BuildDigest(context.Background(), fsverity.SHA256, bytes.NewReader(b), "tar", o)
			check(t, err)
			if ofDir.Image != ofTar.Image {
				t.Errorf("%v by %s: %s, of the directory %s", args, rules, ofTar.Image, ofDir.Image)
			}
		}
	}
	// What is compared is there at all.
	text := dumpOf(t, tarOfDir(dir), Faithful1)
	for what, there := range map[string]bool{
		"\n/usr/bin/link2 11 120777 2 ": true, "\n/usr/link 11 @120777 2 ": true,
		"\n/usr/f65 65 @100644 2 ": true, "\n/usr/hole 1048576 ": true, "\n/usr/sparse0 ": true, "\n/usr/fifo 0 10600 ": true,
		" user.one=1": hasXattrs,
	} {
		if there && !strings.Contains(text, what) {
			t.Errorf("no %q in\n%s", what, text)
		}
	}
}

// firstDifference returns the first line in which two texts differ.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return "got  " + g[i] + "\nwant " + w[i]
		}
	}
	return "one is longer"
}
