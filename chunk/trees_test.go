package chunk

import (
	"crypto/sha256"
	"fmt"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flatroot/flatroot/chunk/pkgdb"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

// newTree makes a tree of lines, parents included:
//
//	/a/dir/ KEY=VALUE...
//	/a/file SIZE KEY=VALUE...
//	/a/symlink -> TARGET
//	/a/name = /another/name/of/a/file
//
// Keys are mode (octal), mtime (seconds), content (told apart by any word), else names of extended attributes.
func newTree(t testing.TB, lines ...string) *tree.Tree {
	t.Helper()
	tr := tree.New(fsverity.SHA256, tree.Attr{Mode: 0o755})
	for line := range strings.SplitSeq(strings.Join(lines, "\n"), "\n") {
		if f := strings.Fields(line); len(f) > 0 {
			addLine(t, tr, f)
		}
	}
	tr.Canonicalize()
	return tr
}

func addLine(t testing.TB, tr *tree.Tree, f []string) {
	t.Helper()
	dir := mkdirAll(t, tr, path.Dir(path.Clean(f[0])))
	name := []byte(path.Base(f[0]))
	var n tree.Node
	var err error
	switch {
	case strings.HasSuffix(f[0], "/"):
		n = mkdirAll(t, tr, path.Clean(f[0]))
		f = f[1:]
	case len(f) == 3 && f[1] == "->":
		if n, err = tr.Add(dir, name, tree.Attr{Mode: tree.Symlink | 0o777}); err == nil {
			err = tr.SetTarget(n, []byte(f[2]))
		}
		f = nil
	case len(f) == 3 && f[1] == "=":
		err = tr.Link(dir, name, nodeAt(t, tr, f[2]))
		f = nil
	default:
		n, err = addFile(tr, dir, name, f[1])
		f = f[2:]
	}
	for _, word := range f {
		key, value, _ := strings.Cut(word, "=")
		if err == nil {
			err = setKey(tr, n, key, value)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func addFile(tr *tree.Tree, dir tree.Node, name []byte, size string) (tree.Node, error) {
	bytes, err := strconv.ParseUint(size, 10, 64)
	if err != nil {
		return tree.None, err
	}
	n, err := tr.Add(dir, name, tree.Attr{Mode: tree.Regular | 0o644, Size: bytes})
	if err == nil {
		err = setKey(tr, n, "content", string(name)+size)
	}
	return n, err
}

func setKey(tr *tree.Tree, n tree.Node, key, value string) error {
	a := tr.Attr(n)
	switch key {
	case "mode":
		mode, err := strconv.ParseUint(value, 8, 12)
		if err != nil {
			return err
		}
		a.Mode = a.Mode&tree.TypeMask | uint32(mode)
		return tr.SetAttr(n, a)
	case "mtime":
		a.MtimeSec, _ = strconv.ParseInt(value, 10, 64)
		return tr.SetAttr(n, a)
	case "content":
		sum := sha256.Sum256([]byte(value))
		d, err := fsverity.NewDigest(fsverity.SHA256, sum[:])
		if err != nil {
			return err
		}
		return tr.SetObject(n, d)
	}
	return tr.SetXattrs(n, append(tr.Xattrs(n), tree.Xattr{Name: key, Value: []byte(value)}))
}

func mkdirAll(t testing.TB, tr *tree.Tree, p string) tree.Node {
	t.Helper()
	if p == "/" {
		return tree.Root
	}
	dir := mkdirAll(t, tr, path.Dir(p))
	n, ok := tr.Lookup(dir, []byte(path.Base(p)))
	if !ok {
		var err error
		if n, err = tr.Add(dir, []byte(path.Base(p)), tree.Attr{Mode: tree.Directory | 0o755}); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
	}
	return n
}

// nodeAt finds a path that leads through no symlinks.
func nodeAt(t testing.TB, tr *tree.Tree, p string) tree.Node {
	t.Helper()
	n := tree.Root
	for name := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
		next, ok := tr.Lookup(n, []byte(name))
		if !ok {
			t.Fatalf("%s is not in the tree", p)
		}
		n = next
	}
	return n
}

// eachPath visits all entries under all their names.
func eachPath(tr *tree.Tree, visit func(p string, n tree.Node)) {
	var walk func(dir tree.Node, at string)
	walk = func(dir tree.Node, at string) {
		for name, n := range tr.Children(dir) {
			visit(at+"/"+name, n)
			walk(n, at+"/"+name)
		}
	}
	walk(tree.Root, "")
}

// debian is a small tree as Debian has them, with /usr merged.
const debian = `
	/bin -> usr/bin
	/lib -> usr/lib
	/boot/vmlinuz-6.12.9-amd64 9000000
	/boot/initrd.img-6.12.9-amd64 30000000
	/boot/config-6.12.9-amd64 200000
	/boot/grub/grub.cfg 5000
	/etc/ld.so.cache 30000
	/etc/passwd 1000
	/etc/opt/
	/etc/ssl/openssl.cnf 9000
	/opt/app/bin/app 5000000 mode=755
	/opt/app/readme 500
	/usr/bin/ls 140000 mode=755
	/usr/bin/cat 40000 mode=755
	/usr/bin/perl 3000000 mode=755
	/usr/bin/perl5.40 = /usr/bin/perl
	/usr/bin/cpan 8000 mode=755
	/usr/bin/awk -> /etc/alternatives/awk
	/etc/alternatives/awk -> /usr/bin/mawk
	/usr/bin/mawk 200000 mode=755
	/usr/lib/modules/6.12.9-amd64/vmlinuz 9000000
	/usr/lib/modules/6.12.9-amd64/kernel/fs/erofs.ko 300000
	/usr/lib/modules/6.12.9-amd64/modules.dep 70000
	/usr/lib/modules/6.12.9-amd64/initramfs.img 40000000
	/usr/lib/firmware/wifi.bin 2000000
	/usr/lib/firmware/owned.bin 2000000
	/usr/lib/x86_64-linux-gnu/libc.so.6 2000000 mode=755
	/usr/local/bin/
	/usr/local/share/big 1048576
	/usr/local/share/small 1048575
	/usr/share/doc/libc6/changelog.gz 3000
	/usr/share/doc/coreutils/copyright 3000
	/var/cache/debconf/config.dat 50000
	/var/cache/apt/pkgcache.bin 20000000
	/var/lib/dpkg/status 400000
	/var/lib/dpkg/info/coreutils.md5sums 3000
	/var/lib/app/state 10
	/var/log/dpkg.log 90000
	/mnt/
`

var (
	january = time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)
	march   = time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC)
	may     = time.Date(2026, 5, 20, 0, 0, 0, 0, time.UTC)
)

// debianDatabases are as dpkg has them: paths as packages know them, directories and all.
func debianDatabases() []pkgdb.Database {
	return []pkgdb.Database{{
		Kind:  "dpkg",
		Files: []string{"/var/lib/dpkg/available", "/var/lib/dpkg/status"},
		Packages: []pkgdb.Package{
			{Name: "base-files", Source: "base-files", Paths: []string{"/.", "/bin", "/etc/opt", "/lib", "/usr/local/bin"}},
			{Name: "coreutils", Source: "coreutils", Changes: []time.Time{march}, Paths: []string{
				"/bin", "/bin/cat", "/bin/ls", "/usr/share/doc/coreutils/copyright", "/var/lib/dpkg/info/coreutils.md5sums"}},
			{Name: "firmware-misc", Source: "firmware-nonfree", Paths: []string{"/lib/firmware/owned.bin"}},
			{Name: "libc-bin", Source: "glibc", Changes: []time.Time{january}, Paths: []string{"/etc", "/usr/bin/missing"}},
			{Name: "libc6", Source: "glibc", Built: may, Changes: []time.Time{march, january}, Paths: []string{
				"/lib", "/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu/libc.so.6", "/usr/share/doc/libc6/changelog.gz"}},
			{Name: "linux-image-6.12.9-amd64", Source: "linux", Changes: []time.Time{may}, Paths: []string{
				"/boot/config-6.12.9-amd64", "/boot/vmlinuz-6.12.9-amd64", "/lib/modules/6.12.9-amd64/kernel/fs/erofs.ko"}},
			{Name: "mawk", Paths: []string{"/usr/bin/mawk"}},
			{Name: "openssl", Source: "openssl", Paths: []string{"/etc/ssl/openssl.cnf"}},
			{Name: "perl", Source: "perl", Paths: []string{"/usr/bin/cpan", "/usr/bin/perl5.40"}},
			{Name: "perl-base", Source: "perl-base-of-another-source", Paths: []string{"/usr/bin/cpan", "/usr/bin/perl"}},
		},
	}}
}

// owners lists all entries under all their names, with the component's name.
func owners(tr *tree.Tree, c *Claims) string {
	var b strings.Builder
	eachPath(tr, func(p string, n tree.Node) {
		if i := c.Owners[n]; i >= 0 {
			fmt.Fprintf(&b, "%s %s\n", p, c.Components[i].Name)
		}
	})
	return b.String()
}

func mustClaim(t testing.TB, tr *tree.Tree, o ClaimOptions) *Claims {
	t.Helper()
	c, err := Claim(tr, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *Claims) find(t testing.TB, name string) Component {
	t.Helper()
	for _, x := range c.Components {
		if x.Name == name {
			return x
		}
	}
	t.Fatalf("there is no component %s", name)
	return Component{}
}
