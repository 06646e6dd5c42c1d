package chunk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flatroot/flatroot/chunk/pkgdb"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

// checkOwners compares all owners of a tree with lines of a path and a name.
func checkOwners(t *testing.T, tr *tree.Tree, c *Claims, want string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(want) {
		if f := strings.Fields(line); len(f) > 0 {
			lines = append(lines, strings.Join(f, " "))
		}
	}
	got := strings.Split(strings.TrimSpace(owners(tr, c)), "\n")
	for _, line := range got {
		if !slices.Contains(lines, line) {
			t.Errorf("got %s", line)
		}
	}
	for _, line := range lines {
		if !slices.Contains(got, line) {
			t.Errorf("want %s", line)
		}
	}
}

func TestClaimDebian(t *testing.T) {
	tr := newTree(t, debian)
	c := mustClaim(t, tr, ClaimOptions{Databases: debianDatabases()})
	checkOwners(t, tr, c, `
		/bin dpkg/base-files
		/boot/config-6.12.9-amd64 kernel
		/boot/grub/grub.cfg rest/boot
		/boot/initrd.img-6.12.9-amd64 initramfs
		/boot/vmlinuz-6.12.9-amd64 kernel
		/etc/alternatives/awk rest/etc
		/etc/ld.so.cache pkgdb
		/etc/opt dpkg/base-files
		/etc/passwd rest/etc
		/etc/ssl/openssl.cnf dpkg/openssl
		/lib dpkg/base-files
		/mnt rest
		/opt/app/bin/app file/opt/app/bin/app
		/opt/app/readme rest/opt/app
		/usr/bin/awk rest/usr/bin
		/usr/bin/cat dpkg/coreutils
		/usr/bin/cpan dpkg/perl
		/usr/bin/ls dpkg/coreutils
		/usr/bin/mawk dpkg/mawk
		/usr/bin/perl dpkg/perl
		/usr/bin/perl5.40 dpkg/perl
		/usr/lib/firmware/owned.bin dpkg/firmware-nonfree
		/usr/lib/firmware/wifi.bin firmware
		/usr/lib/modules/6.12.9-amd64/initramfs.img initramfs
		/usr/lib/modules/6.12.9-amd64/kernel/fs/erofs.ko kernel
		/usr/lib/modules/6.12.9-amd64/modules.dep kernel
		/usr/lib/modules/6.12.9-amd64/vmlinuz kernel
		/usr/lib/x86_64-linux-gnu/libc.so.6 dpkg/glibc
		/usr/local/bin dpkg/base-files
		/usr/local/share/big file/usr/local/share/big
		/usr/local/share/small rest/usr/local
		/usr/share/doc/coreutils/copyright dpkg/coreutils
		/usr/share/doc/libc6/changelog.gz dpkg/glibc
		/var/cache/apt/pkgcache.bin file/var/cache/apt/pkgcache.bin
		/var/cache/debconf/config.dat pkgdb
		/var/lib/app/state rest/var/lib
		/var/lib/dpkg/info/coreutils.md5sums dpkg/coreutils
		/var/lib/dpkg/status pkgdb
		/var/log/dpkg.log pkgdb`)
	for _, want := range []Component{
		{Name: "dpkg/glibc", Size: 2*512 + 2000384 + 3072, Changes: []time.Time{may, march, january}},
		{Name: "dpkg/openssl", Size: 512 + 9216, Interval: packaged},
		{Name: "kernel", Size: 5*512 + 2*9000448 + 200192 + 300032 + 70144, Changes: []time.Time{may}},
		{Name: "initramfs", Size: 2*512 + 30000128 + 40000000, Interval: always},
		{Name: "pkgdb", Size: 4*512 + 30208 + 50176 + 400384 + 90112, Interval: always},
		{Name: "firmware", Size: 512 + 2000384, Interval: packaged},
		{Name: "file/opt/app/bin/app", Size: 512 + 5000192, Interval: unownedBig},
		{Name: "rest/etc", Size: 2*512 + 1024, Interval: unowned},
	} {
		got := c.find(t, want.Name)
		want.Digest = got.Digest
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestClaimByPlace(t *testing.T) {
	var opt, tops []string
	for i := range maxBranches + 1 {
		opt = append(opt, fmt.Sprintf("/opt/%d/f 1", i))
		tops = append(tops, fmt.Sprintf("/%d/f 1", i))
	}
	for _, tc := range []struct {
		name       string
		tree, want string // components
		rules      string
	}{
		{name: "nothing", want: "rest"},
		{name: "no database", tree: "/usr/bin/app 10\n/app 20", want: "rest rest/usr/bin"},
		{name: "kernels by number", want: "kernel kernel/2 kernel/3",
			tree: "/lib/modules/6.12.1/a 1\n/lib/modules/6.9.1/a 1\n/lib/modules/6.12.1-rt/a 1"},
		{name: "kernels here and there", want: "kernel",
			tree: "/lib/modules/6.1/a 1\n/usr/lib/modules/6.1/b 1\n/boot/vmlinuz-6.1 5000000\n/boot/symvers-6.1.xz 1"},
		{name: "no kernel, since there are no modules", want: "initramfs rest/boot rest/usr/lib",
			tree: "/boot/vmlinuz-6.1 5\n/boot/initramfs-6.1.img 5\n/usr/lib/modules/6.2/\n/usr/lib/modules/README 1"},
		{name: "bad names", want: "file/a%25%2C%20b/c%2Bdata rest/a%25%2C%20b", tree: "/a%,_b/c+data 2000000\n/a%,_b/x 1"},
		{name: "many directories in one", tree: strings.Join(opt, "\n"), want: "rest/opt"},
		{name: "many directories at the top", tree: strings.Join(tops, "\n"), want: "rest"},
		{name: "no big files but regular ones", tree: "/d -> " + strings.Repeat("x", 2000), want: "rest"},
		{name: "firmware twice", tree: "/lib/firmware/a 1\n/usr/lib/firmware/b/c 2000000", want: "firmware"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := newTree(t, tc.tree)
			if strings.Contains(tc.tree, "_") {
				tr = spaced(t, tc.tree)
			}
			var names []string
			for _, c := range mustClaim(t, tr, ClaimOptions{}).Components {
				names = append(names, c.Name)
			}
			if got := strings.Join(names, " "); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

// spaced is newTree with spaces where names have underscores.
func spaced(t *testing.T, lines string) *tree.Tree {
	t.Helper()
	tr := newTree(t, lines)
	out := tree.New(fsverity.SHA256, tree.Attr{Mode: 0o755})
	var copyDir func(from, to tree.Node)
	copyDir = func(from, to tree.Node) {
		for name, n := range tr.Children(from) {
			c, err := out.Add(to, []byte(strings.ReplaceAll(name, "_", " ")), tr.Attr(n))
			if err != nil {
				t.Fatal(err)
			}
			if d := tr.Digest(n); !d.IsZero() {
				out.SetObject(c, d)
			}
			copyDir(n, c)
		}
	}
	copyDir(tree.Root, tree.Root)
	return out
}

// What comes of packages without being in their lists, or in spite of it.
func TestClaimOfPackages(t *testing.T) {
	for _, tc := range []struct{ name, kind, tree, owned, want string }{
		{name: "lists of dpkg", kind: "dpkg", want: "/var/lib/dpkg/info/p.list pkgdb\n/var/lib/dpkg/info/p.md5sums dpkg/p",
			tree:  "/var/lib/dpkg/info/p.list 1\n/var/lib/dpkg/info/p.md5sums 1",
			owned: "/var/lib/dpkg/info/p.list /var/lib/dpkg/info/p.md5sums"},
		{name: "other lists", kind: "dpkg", tree: "/usr/p.list 1", owned: "/usr/p.list", want: "/usr/p.list dpkg/p"},
		{name: "pacman", kind: "pacman", tree: "/var/lib/pacman/local/p-1/desc 1\n/var/lib/pacman/local/p-1/mtree 1",
			owned: "/var/lib/pacman/local/p-1/desc /var/lib/pacman/local/p-1/mtree",
			want:  "/var/lib/pacman/local/p-1/desc pkgdb\n/var/lib/pacman/local/p-1/mtree pacman/p"},
		{name: "bytecode", kind: "dpkg", tree: `
				/p/a.py 1
				/p/__pycache__/a.cpython-313.pyc 2000000
				/p/__pycache__/a.cpython-313.opt-1.pyc 1
				/p/__pycache__/a.cpython-313.pyo 1
				/p/__pycache__/a.pyc 1
				/p/__pycache__/b.cpython-313.pyc 1
				/p/x/a.cpython-313.pyc 1
				/p/x/a.py 1`,
			owned: "/p/a.py /p/x/a.py",
			want: `
				/p/__pycache__/a.cpython-313.opt-1.pyc dpkg/p+bytecode
				/p/__pycache__/a.cpython-313.pyc dpkg/p+bytecode
				/p/__pycache__/a.cpython-313.pyo rest/p
				/p/__pycache__/a.pyc rest/p
				/p/__pycache__/b.cpython-313.pyc rest/p
				/p/a.py dpkg/p
				/p/x/a.cpython-313.pyc rest/p
				/p/x/a.py dpkg/p`},
		{name: "a directory where there was a file", kind: "rpm", tree: "/a/b 1", owned: "/a", want: "/a/b rest/a"},
		{name: "a symlink of its own", kind: "rpm", tree: "/a -> b\n/b/c 1", owned: "/a /b/c", want: "/a rpm/p\n/b/c rpm/p"},
		{name: "a symlink for a directory", kind: "rpm", tree: "/a -> b\n/b/c 1", owned: "/a /a-b /a/c", want: "/a rest\n/b/c rpm/p"},
		{name: "only an empty directory", kind: "apk", tree: "/a/\n/b/c 1", owned: "/a /b", want: "/a apk/p\n/b/c rest/b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := newTree(t, tc.tree)
			databases := []pkgdb.Database{{Kind: tc.kind, Packages: []pkgdb.Package{{Name: "p", Paths: strings.Fields(tc.owned)}}}}
			checkOwners(t, tr, mustClaim(t, tr, ClaimOptions{Databases: databases}), tc.want)
		})
	}
}

// What layers are not to have is in no component, whoever claims it.
func TestClaimLeavesOut(t *testing.T) {
	tr := newTree(t, `
		/big 2000000
		/p/a 1
		/p/b 1
		/p/empty/
		/lib/modules/1/k 1
		/x 1 user.component=x
		/y 1
		/z = /y`)
	left := []string{"/big", "/p/a", "/p/empty", "/lib/modules/1/k", "/x", "/y"}
	has := func(n tree.Node) bool { return !slices.Contains(left, tr.Path(n)) }
	packages := []pkgdb.Package{{Name: "p", Changes: []time.Time{may}, Paths: []string{"/lib/modules/1/k", "/p/a", "/p/b", "/x"}}}
	c := mustClaim(t, tr, ClaimOptions{Databases: []pkgdb.Database{{Kind: "dpkg", Packages: packages}}, Has: has})
	if len(c.Components) != 1 || c.Components[0].Name != "dpkg/p" {
		t.Errorf("%+v", c.Components)
	}
	for n, owner := range c.Owners {
		if want := tr.Path(tree.Node(n)) == "/p/b"; want != (owner >= 0) {
			t.Errorf("%s has the owner %d", tr.Path(tree.Node(n)), owner)
		}
	}
}

func TestClaimBadSource(t *testing.T) {
	for _, source := range []string{strings.Repeat("x", maxName+1), "a\x00b"} {
		_, err := Claim(newTree(t), ClaimOptions{Databases: []pkgdb.Database{
			{Kind: "rpm", Packages: []pkgdb.Package{{Name: "p", Source: source}}},
		}})
		var wrong *pkgdb.Error
		if !errors.As(err, &wrong) || wrong.Kind != "rpm" ||
			!strings.Contains(err.Error(), `package "p": its source: a component's name has`) {
			t.Error(err)
		}
	}
}

func TestBytecodeHasDates(t *testing.T) {
	tr := newTree(t, "/p/a.py 1\n/p/__pycache__/a.cpython-313.pyc 1")
	c := mustClaim(t, tr, ClaimOptions{Databases: []pkgdb.Database{
		{Kind: "dpkg", Packages: []pkgdb.Package{{Name: "p", Changes: []time.Time{may}, Paths: []string{"/p/a.py"}}}},
	}})
	if b := c.find(t, "dpkg/p+bytecode"); !slices.Equal(b.Changes, []time.Time{may}) || b.Interval != 0 {
		t.Errorf("%+v", b)
	}
}

// Only the largest of many big files are components, whatever the order in the tree.
func TestClaimManyBigFiles(t *testing.T) {
	var lines []string
	for i := range maxBig + 3 {
		lines = append(lines, fmt.Sprintf("/srv/data/%d %d", i, minBig+i%2))
	}
	c := mustClaim(t, newTree(t, lines...), ClaimOptions{})
	if len(c.Components) != maxBig+1 || c.Components[maxBig].Name != "rest/srv/data" {
		t.Fatalf("%d components, the last %s", len(c.Components), c.Components[len(c.Components)-1].Name)
	}
	for _, x := range c.Components[:maxBig] {
		if x.Name == "file/srv/data/998" {
			t.Error("of files of one size, the last by name is a component and others are not")
		}
	}
}

func TestClaimXattr(t *testing.T) {
	for _, tc := range []struct{ name, tree, want, err string }{
		{name: "inherited, and overridden",
			tree: "/app/ user.component=app\n/app/a/b 1\n/app/ui/c 1 user.component=ui\n/app/d/ user.component=d\n/app/d/e 1",
			want: "/app/a/b xattr/app\n/app/d/e xattr/d\n/app/ui/c xattr/ui"},
		{name: "from the root", tree: "/ user.component=all\n/a 1", want: "/a xattr/all"},
		{name: "an empty directory", tree: "/a/ user.component=a", want: "/a xattr/a"},
		{name: "a link, one name of which is elsewhere",
			tree: "/a/ user.component=a\n/a/b 1\n/b = /a/b", want: "/a/b xattr/a\n/b xattr/a"},
		{name: "before all others", want: "/lib/modules/1/a xattr/k\n/usr/big xattr/big",
			tree: "/lib/modules/ user.component=k\n/lib/modules/1/a 1\n/usr/big 2000000 user.component=big"},
		{name: "a name that isn't one", tree: "/a 1 user.component=a,b", want: "/a xattr/a%2Cb"},
		{name: "an interval without a component", tree: "/a 1 user.update-interval=daily", want: "/a rest"},
		{name: "empty", tree: "/a 1 user.component=", err: "/a: user.component: a component's name is empty"},
		{name: "long", tree: "/a 1 user.component=" + strings.Repeat("x", 256),
			err: "/a: user.component: a component's name has 256 bytes, at most 255 are possible"},
		{name: "two names", tree: "/a/ user.component=a\n/a/f 1\n/b/ user.component=b\n/b/f = /a/f",
			err: "/a/f: under one of its names user.component is a, under another b"},
		{name: "two intervals", err: "/b: component c has a user.update-interval of 1 days here and of 7 elsewhere",
			tree: "/a 1 user.component=c user.update-interval=7\n/b 1 user.component=c user.update-interval=daily"},
		{name: "a bad interval", tree: "/a/b 1 user.update-interval=often", err: `/a/b: user.update-interval: interval "often"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := newTree(t, tc.tree)
			c, err := Claim(tr, ClaimOptions{})
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got %v, want %s", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkOwners(t, tr, c, tc.want)
		})
	}
}

func TestClaimIntervals(t *testing.T) {
	tr := newTree(t, `
		/said/ user.component=said
		/said/f 1 user.update-interval=monthly
		/said/dated 1
		/silent/f 1 user.component=silent
		/dated/f 1 user.component=dated
		/dated/dir/ user.component=dated`)
	databases := []pkgdb.Database{{Kind: "apk", Packages: []pkgdb.Package{
		{Name: "a", Source: "a", Built: march, Paths: []string{"/dated/f", "/said/dated"}},
		{Name: "b", Source: "b", Built: may, Paths: []string{"/dated/dir"}},
	}}}
	c := mustClaim(t, tr, ClaimOptions{Databases: databases})
	for _, want := range []Component{
		{Name: "xattr/dated", Changes: []time.Time{march}}, // a directory that is empty says nothing
		{Name: "xattr/said", Interval: 30 * day},           // whatever packages say
		{Name: "xattr/silent", Interval: grouped},
	} {
		got := c.find(t, want.Name)
		if got.Interval != want.Interval || !slices.Equal(got.Changes, want.Changes) {
			t.Errorf("%s: got %v, %v", want.Name, got.Interval, got.Changes)
		}
	}
}

func TestClaimMapping(t *testing.T) {
	for _, tc := range []struct{ name, mapping, tree, want string }{
		{name: "the first rule counts", tree: "/a/b 1\n/a/c 1\n/d/ user.component=x",
			mapping: "- {component: one, paths: [/a/b]}\n- {component: two, paths: [/a/*, /d]}",
			want:    "/a/b map/one\n/a/c map/two\n/d map/two"},
		{name: "the first rule of all names", tree: "/a/b 1\n/c = /a/b",
			mapping: "- {component: z, paths: [/c]}\n- {component: a, paths: [/a/**]}", want: "/a/b map/z\n/c map/z"},
		{name: "one component of two rules", tree: "/a 1\n/b 1\n/c 1\n/c2 = /b",
			mapping: "- {component: z, paths: [/a]}\n- {component: y, paths: [/c2]}\n- {component: z, paths: [/b]}",
			want:    "/a map/z\n/b map/y\n/c rest\n/c2 map/y"},
		{name: "by way of symlinks", tree: "/lib -> usr/lib\n/usr/lib/a/b.so 1\n/usr/lib64 -> ../lib/./a\n/x -> x",
			mapping: "- {component: lib, paths: [/lib/**/*.so, /usr/lib64, /x/**]}\n- {component: link, paths: [/lib]}",
			want:    "/lib map/link\n/usr/lib/a/b.so map/lib\n/usr/lib64 map/lib\n/x map/lib"},
		{name: "an empty directory", tree: "/a/b/", mapping: "- {component: a, paths: [/a/]}", want: "/a/b map/a"},
		{name: "no directory with something in it", tree: "/a/b 1", mapping: "- {component: a, paths: [/a]}",
			want: "/a/b rest/a"},
		{name: "bytecode of what is mapped", tree: "/A.py 1\n/__pycache__/A.x.pyc 1\n/__pycache__/b.x.pyc 1\n/b.py 1",
			mapping: `[{component: a, paths: ["**/*.py"]}]`,
			want:    "/A.py map/a\n/__pycache__/A.x.pyc rpm/p+bytecode\n/__pycache__/b.x.pyc rpm/p+bytecode\n/b.py map/a"},
		{name: "but", tree: "/a/b/c 1\n/a/d 1", mapping: `- {component: a, paths: ["!/a/b/**", "/a/**"]}`,
			want: "/a/b/c rest/a\n/a/d map/a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := ParseMapping([]byte(tc.mapping))
			if err != nil {
				t.Fatal(err)
			}
			tr := newTree(t, tc.tree)
			databases := []pkgdb.Database{{Kind: "rpm", Packages: []pkgdb.Package{{Name: "p", Paths: []string{"/A.py", "/b.py"}}}}}
			checkOwners(t, tr, mustClaim(t, tr, ClaimOptions{Mapping: m, Databases: databases}), tc.want)
		})
	}
}

// A rule that gets no file is told by its line: one that matches none, and one of which earlier rules have all.
func TestClaimMappingUnused(t *testing.T) {
	m, err := ParseMapping([]byte(`# a comment
- {component: a, paths: [/a/**]}

- component: none
  paths: [/absent/**]
- {component: behind, paths: [/a/1]}
- {component: dir, paths: [/a]}
- {component: excluded, paths: [/b, "!/b"]}
- {component: none, paths: [/b]}
`))
	if err != nil {
		t.Fatal(err)
	}
	c := mustClaim(t, newTree(t, "/a/1 1\n/a/2 1\n/b 1"), ClaimOptions{Mapping: m})
	if want := []UnusedRule{{4, "none"}, {6, "behind"}, {7, "dir"}, {8, "excluded"}}; !slices.Equal(c.Unused, want) {
		t.Errorf("%v, want %v", c.Unused, want)
	}
	if c := mustClaim(t, newTree(t, "/a/1 1"), ClaimOptions{}); c.Unused != nil {
		t.Errorf("without a mapping: %v", c.Unused)
	}
}

func TestClaimMappingSaysMore(t *testing.T) {
	m, err := ParseMapping([]byte(`
- component: a
  paths: [/a]
- component: b
  paths: [/b]
- component: a
  paths: [/a2]
  interval: 10d
  exclusive: true
`))
	if err != nil {
		t.Fatal(err)
	}
	c := mustClaim(t, newTree(t, "/a 1\n/b 1"), ClaimOptions{Mapping: m})
	if a := c.find(t, "map/a"); a.Interval != 10*day || !a.Exclusive {
		t.Errorf("%+v", a)
	}
	if b := c.find(t, "map/b"); b.Interval != grouped || b.Exclusive {
		t.Errorf("%+v", b)
	}
}

// A path of a package is nobody's if it leads nowhere, or in a circle.
func TestClaimThroughSymlinks(t *testing.T) {
	long := ""
	for i := range maxFollowed + 1 {
		long += fmt.Sprintf("/chain/%02d -> %02d\n", i, i+1)
	}
	tr := newTree(t, long, fmt.Sprintf("/chain/%02d/f 1", maxFollowed+1),
		"/up -> ../../a/./b/..", "/a/b/c 1", "/a/f 1", "/loop -> loop/x", "/x -> /y", "/y -> x", "/file 1", "/dangling -> no")
	for path, want := range map[string]string{
		"/up/f": "/a/f", "/up/b/c": "/a/b/c", "/chain/01/f": "/chain/41/f",
		"/chain/00/f": "", "/loop/f": "", "/x/f": "", "/file/f": "", "/dangling/f": "", "/no/f": "", "f": "", "": "",
	} {
		c := mustClaim(t, tr, ClaimOptions{Databases: []pkgdb.Database{
			{Kind: "rpm", Packages: []pkgdb.Package{{Name: "p", Paths: []string{path}}}},
		}})
		got := ""
		for line := range strings.Lines(owners(tr, c)) {
			if p, ok := strings.CutSuffix(line, " rpm/p\n"); ok {
				got = p
			}
		}
		if got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
}

// Symlinks that lead through each other at any length are given up in time.
func TestClaimHostileSymlinks(t *testing.T) {
	var lines, paths []string
	for i := range maxFollowed - 1 {
		lines = append(lines, fmt.Sprintf("/%02d -> %s%02d", i, strings.Repeat("d/../", 800), i+1))
	}
	for i := range 200 {
		lines = append(lines, fmt.Sprintf("/s/%03d -> /00", i))
		paths = append(paths, fmt.Sprintf("/s/%03d/f", i))
	}
	tr := newTree(t, append(lines, fmt.Sprintf("/%02d/f 1", maxFollowed-1), "/d/f 1")...)
	claim := func(paths []string) error {
		_, err := Claim(tr, ClaimOptions{Databases: []pkgdb.Database{{Packages: []pkgdb.Package{{Name: "p", Paths: paths}}}}})
		return err
	}
	if err := claim(paths[:100]); err != nil {
		t.Error(err)
	}
	if err := claim(paths); err == nil || !strings.Contains(err.Error(), "symlinks") {
		t.Error(err)
	}
}

func contentOf(tr *tree.Tree, elf ...string) Content {
	return func(n tree.Node) (io.ReadCloser, error) {
		if p := tr.Path(n); slices.Contains(elf, p) {
			return io.NopCloser(strings.NewReader("\x7fELF...")), nil
		} else if p == "/usr/bin/broken" {
			return nil, io.ErrUnexpectedEOF
		}
		return io.NopCloser(strings.NewReader("#!/bin/sh")), nil
	}
}

func TestClaimSplit(t *testing.T) {
	const large = `
		/usr/bin/prog 6000000 mode=755
		/usr/bin/script 900000 mode=755
		/usr/bin/small 63 mode=755
		/usr/lib/libx.so.1.2 100000
		/usr/lib/libx.so.1 -> libx.so.1.2
		/usr/lib/another.name = /usr/lib/libx.so.1.2
		/usr/lib/plugin.so.d/conf 1000000
		/usr/share/changelog.gz 100
		/usr/share/data 2000000
		/usr/share/info/app.md5sums 100
		/usr/share/dir/
		/usr/share/link -> data`
	all := []string{"/usr/bin/prog", "/usr/lib/another.name", "/usr/share/data"}
	mapping := func(extra string) *Mapping {
		m, err := ParseMapping([]byte("- {component: app, paths: [/usr/**]" + extra + "}"))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	tr := newTree(t, large)
	o := ClaimOptions{Split: true, Content: contentOf(tr, all...), Mapping: mapping("")}
	checkOwners(t, tr, mustClaim(t, tr, o), `
		/usr/bin/prog map/app
		/usr/bin/script map/app+data
		/usr/bin/small map/app+data
		/usr/lib/another.name map/app
		/usr/lib/libx.so.1 map/app
		/usr/lib/libx.so.1.2 map/app
		/usr/lib/plugin.so.d/conf map/app+data
		/usr/share/changelog.gz map/app
		/usr/share/data map/app+data
		/usr/share/dir map/app+data
		/usr/share/info/app.md5sums map/app
		/usr/share/link map/app+data`)
	o.Databases = []pkgdb.Database{{Packages: []pkgdb.Package{
		{Name: "p", Built: march, Changes: []time.Time{march, january}, Paths: []string{"/usr/share/data"}},
		{Name: "q", Changes: []time.Time{may, march}, Paths: []string{"/usr/bin/prog"}},
	}}}
	for _, name := range []string{"map/app", "map/app+data"} {
		c := mustClaim(t, tr, o).find(t, name)
		if c.Interval != 0 || !slices.Equal(c.Changes, []time.Time{may, march, january}) {
			t.Errorf("%s: %v, %v", name, c.Interval, c.Changes)
		}
	}
	for _, tc := range []struct {
		name   string
		change func(*ClaimOptions)
	}{
		{"no wish", func(o *ClaimOptions) { o.Split = false }},
		{"no content", func(o *ClaimOptions) { o.Content = nil }},
		{"exclusive", func(o *ClaimOptions) { o.Mapping = mapping(", exclusive: true") }},
		{"few programs", func(o *ClaimOptions) { o.Content = contentOf(tr, "/usr/lib/another.name") }},
		{"several components", func(o *ClaimOptions) { o.Mapping = nil }},
	} {
		o := o
		tc.change(&o)
		for _, c := range mustClaim(t, tr, o).Components {
			if strings.HasSuffix(c.Name, "+data") {
				t.Errorf("%s: %s", tc.name, c.Name)
			}
		}
	}
	tr = newTree(t, large, "/usr/bin/broken 100 mode=755")
	o.Content = contentOf(tr)
	if _, err := Claim(tr, o); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "/usr/bin/broken") {
		t.Error(err)
	}
}

func TestClaimWithoutContent(t *testing.T) {
	tr := newTree(t, "/a/b 0")
	n, err := tr.Add(nodeAt(t, tr, "/a"), []byte("c"), tree.Attr{Mode: tree.Regular | 0o644, Size: 1})
	if err != nil {
		t.Fatal(err)
	}
	claims := mustClaim(t, tr, ClaimOptions{})
	if d := claims.Components[0].Digest; d != "" {
		t.Errorf("without the content of a file it has digest %s", d)
	}
	if err := tr.SetContent(n, []byte("x")); err != nil {
		t.Fatal(err)
	}
	claims.Measure(tr)
	if want := mustClaim(t, tr, ClaimOptions{}).Components; !reflect.DeepEqual(claims.Components, want) {
		t.Errorf("measured again: %v, want %v", claims.Components, want)
	}
}

// wantDigest is of the sample's first component, and the same for ever.
const wantDigest = "59d2f2760d027950870b95ce8cc43bc7377039f37aaa981dffd6beb6d6de0f06"

// A component's digest changes with all that a layer has of it, and with nothing else.
func TestDigests(t *testing.T) {
	base := "/a/f 10\n/a/g 10\n/a/h = /a/g\n/b/f 10\n/c -> b"
	before := mustClaim(t, newTree(t, base), ClaimOptions{}).Components
	for _, tc := range []struct {
		name, tree string
		changed    string // components
	}{
		{"nothing", base, ""},
		{"another component", base + "\n/d/f 1", ""},
		{"mode", strings.Replace(base, "/a/f 10", "/a/f 10 mode=600", 1), "rest/a"},
		{"mtime", strings.Replace(base, "/b/f 10", "/b/f 10 mtime=-1", 1), "rest/b"},
		{"size", strings.Replace(base, "/b/f 10", "/b/f 11", 1), "rest/b"},
		{"content", strings.Replace(base, "/b/f 10", "/b/f 10 content=x", 1), "rest/b"},
		{"xattr", strings.Replace(base, "/b/f 10", "/b/f 10 user.x=y", 1), "rest/b"},
		{"name", strings.Replace(base, "/b/f 10", "/b/g 10 content=f10", 1), "rest/b"},
		{"target", strings.Replace(base, "-> b", "-> a", 1), "rest"},
		{"a directory above", base + "\n/b/ mode=700", "rest/b"},
		{"an empty directory", base + "\n/b/d/", "rest/b"},
		{"a link to another", strings.Replace(base, "= /a/g", "= /a/f", 1), "rest/a"},
		{"a copy for a link", strings.Replace(base, "= /a/g", "10 content=g10", 1), "rest/a"},
		{"the root", base + "\n/ mode=700", "rest rest/a rest/b"},
	} {
		var changed []string
		for i, c := range mustClaim(t, newTree(t, tc.tree), ClaimOptions{}).Components {
			if i < len(before) && c.Digest != before[i].Digest {
				changed = append(changed, c.Name)
			}
		}
		if got := strings.Join(changed, " "); got != tc.changed {
			t.Errorf("%s: changed %q, want %q", tc.name, got, tc.changed)
		}
	}
	if before[0].Digest != wantDigest {
		t.Errorf("the digest of the sample is %s: all that is kept of plans is of no use any more", before[0].Digest)
	}
}

// randomTree is of files in a few directories, with links between them, and packages that have some of them.
func randomTree(t *testing.T, r *rand.Rand) (string, []pkgdb.Database) {
	t.Helper()
	dirs := []string{"/usr/bin", "/usr/lib", "/usr/lib/firmware", "/usr/lib/modules/1", "/boot", "/etc", "/opt/a/b", "/var/lib/x"}
	lines := []string{"/bin -> usr/bin", "/lib -> usr/lib", "/empty/", "/usr/lib/app/ user.component=app", "/usr/lib/app/f 1"}
	paths := []string{"/bin", "/lib", "/empty", "/usr/lib/app/f"}
	for i := range 60 {
		p := fmt.Sprintf("%s/%d", dirs[r.IntN(len(dirs))], i)
		switch r.IntN(8) {
		case 0:
			lines = append(lines, p+"/")
		case 1:
			lines = append(lines, p+" -> /etc")
		case 2, 3:
			if target := paths[r.IntN(len(paths))]; strings.Contains(target, "/lib/") {
				lines = append(lines, p+" = "+target)
				break
			}
			fallthrough
		default:
			lines = append(lines, fmt.Sprintf("%s %d", p, r.IntN(3<<20)))
		}
		if strings.Fields(lines[len(lines)-1])[0] == p+"/" {
			p += "/f"
			lines = append(lines, p+" 5")
		}
		paths = append(paths, p)
	}
	databases := []pkgdb.Database{{Kind: "rpm", Files: []string{"/var/lib/x/1"}}, {Kind: "dpkg"}}
	for i := range 20 {
		p := pkgdb.Package{Name: fmt.Sprint("p", i), Source: fmt.Sprint("s", i/2), Built: march.Add(time.Duration(i) * time.Hour)}
		for range 10 {
			p.Paths = append(p.Paths, strings.Replace(paths[r.IntN(len(paths))], "/usr/lib/", "/lib/", r.IntN(2)))
		}
		slices.Sort(p.Paths)
		d := &databases[i%2]
		d.Packages = append(d.Packages, p)
	}
	return strings.Join(lines, "\n"), databases
}

// Everything has just one owner, and the same whatever the order of databases, packages and a file's names.
func TestClaimProperties(t *testing.T) {
	m, err := ParseMapping([]byte(`[{component: m, paths: ["**/*7", "/usr/lib/**/1*"]}, {component: n, paths: ["**/[2-5]"]}]`))
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		lines, databases := randomTree(t, r)
		tr := newTree(t, lines)
		want := mustClaim(t, tr, ClaimOptions{Databases: databases, Mapping: m})
		checkAllOwned(t, tr, want)

		r.Shuffle(len(databases), func(i, k int) { databases[i], databases[k] = databases[k], databases[i] })
		for _, d := range databases {
			r.Shuffle(len(d.Packages), func(i, k int) { d.Packages[i], d.Packages[k] = d.Packages[k], d.Packages[i] })
		}
		got := mustClaim(t, tr, ClaimOptions{Databases: databases, Mapping: m})
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: the order of databases or packages makes a difference", seed)
		}
		other := unfold(t, lines, r)
		got = mustClaim(t, other, ClaimOptions{Databases: databases, Mapping: m})
		if !reflect.DeepEqual(got.Components, want.Components) || owners(other, got) != owners(tr, want) {
			t.Fatalf("seed %d: which of a file's names is its home makes a difference", seed)
		}
	}
}

// unfold is the same tree made in another order, with other homes.
func unfold(t *testing.T, lines string, r *rand.Rand) *tree.Tree {
	t.Helper()
	from := newTree(t, lines)
	out := tree.New(fsverity.SHA256, from.Attr(tree.Root))
	made := map[tree.Node]tree.Node{}
	var add func(dir, to tree.Node)
	add = func(dir, to tree.Node) {
		var entries []tree.Entry
		for e := range from.Entries(dir) {
			entries = append(entries, e)
		}
		r.Shuffle(len(entries), func(i, k int) { entries[i], entries[k] = entries[k], entries[i] })
		for _, e := range entries {
			if n, ok := made[e.Node]; ok {
				if err := out.Link(to, e.Name, n); err != nil {
					t.Fatal(err)
				}
				continue
			}
			n, err := out.Add(to, e.Name, from.Attr(e.Node))
			if err == nil && from.Target(e.Node) != nil {
				err = out.SetTarget(n, from.Target(e.Node))
			}
			if d := from.Digest(e.Node); err == nil && !d.IsZero() {
				err = out.SetObject(n, d)
			}
			if err == nil {
				err = out.SetXattrs(n, from.Xattrs(e.Node))
			}
			if err != nil {
				t.Fatal(err)
			}
			made[e.Node] = n
			add(e.Node, n)
		}
	}
	add(tree.Root, tree.Root)
	return out
}

func checkAllOwned(t *testing.T, tr *tree.Tree, c *Claims) {
	t.Helper()
	used := make([]bool, len(c.Components))
	eachPath(tr, func(p string, n tree.Node) {
		empty := true
		for range tr.Entries(n) {
			empty = false
		}
		if owned := c.Owners[n] >= 0; owned != empty {
			t.Errorf("%s: owned: %t, a directory with something in it: %t", p, owned, !empty)
		}
		if c.Owners[n] >= 0 {
			used[c.Owners[n]] = true
		}
	})
	if i := slices.Index(used, false); i >= 0 {
		t.Errorf("component %s has nothing", c.Components[i].Name)
	}
	if !slices.IsSortedFunc(c.Components, func(a, b Component) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("components are not sorted by name")
	}
}

// Nodes that were removed from the tree are nobody's.
func TestClaimRemoved(t *testing.T) {
	tr := newTree(t, "/a/f 1\n/b 1")
	gone := nodeAt(t, tr, "/a/f")
	tr.Remove(tree.Root, []byte("a"))
	c := mustClaim(t, tr, ClaimOptions{})
	if c.Owners[gone] != -1 || len(c.Owners) != tr.Len() || len(c.Components) != 1 {
		t.Errorf("%+v", c)
	}
}

func TestClaimTooMany(t *testing.T) {
	var lines bytes.Buffer
	d := pkgdb.Database{Kind: "dpkg"}
	for i := range maxComponents + 1 {
		fmt.Fprintf(&lines, "/d/%d 1\n", i)
		d.Packages = append(d.Packages, pkgdb.Package{Name: fmt.Sprint(i), Paths: []string{fmt.Sprintf("/d/%d", i)}})
	}
	_, err := Claim(newTree(t, lines.String()), ClaimOptions{Databases: []pkgdb.Database{d}})
	if err == nil || !strings.Contains(err.Error(), "more than 65536") {
		t.Error(err)
	}
}

func TestChangesAreBounded(t *testing.T) {
	var c changes
	for i := range 20 {
		p := pkgdb.Package{Built: may}
		for k := range 500 {
			p.Changes = append(p.Changes, march.Add(-time.Duration(i*500+k)*time.Hour))
		}
		c.add(&p)
	}
	if list := c.list(); len(list) != maxChanges || !list[0].Equal(may) || !list[999].Equal(march.Add(-998*time.Hour)) {
		t.Error(len(list), list[0], list[len(list)-1])
	}
}

func TestEscapeName(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "libsigc++-2.0": "libsigc++-2.0", "a/b c": "a/b%20c", "100%": "100%25", "x,y\n": "x%2Cy%0A", "é\xff": "%C3%A9%FF",
		"x+data": "x%2Bdata", "x+data+": "x+data+", "x+data+bytecode": "x+data%2Bbytecode", "+data": "%2Bdata",
	} {
		if got := escapeName(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestParseInterval(t *testing.T) {
	for in, days := range map[string]time.Duration{
		"daily": 1, "weekly": 7, "biweekly": 14, "monthly": 30, "quarterly": 90, "yearly": 365, "1": 1, "3660d": 3660,
		"": 0, "d": 0, "0d": 0, "3661": 0, "1.5": 0, "+7": 0, "7dd": 0, "99999999999999999999": 0,
	} {
		if d, err := ParseInterval(in); d != days*day || (err == nil) != (days > 0) {
			t.Errorf("%q: got %v, %v", in, d, err)
		}
	}
}

func TestCompareVersions(t *testing.T) {
	sorted := []string{"", "5", "6", "6.9.010", "6.9.10", "6.12", "6.12-rt", "6.12-rt2", "6.12.1", "10", "a", "a1b"}
	for i, a := range sorted {
		for k, b := range sorted {
			if got := compareVersions(a, b); (got < 0) != (i < k) || (got == 0) != (i == k) {
				t.Errorf("%q, %q: %d", a, b, got)
			}
		}
	}
}

// TestLayersAtOnce is for the race detector: once a tree is divided its layers can be written at the same time.
func TestLayersAtOnce(t *testing.T) {
	var lines []string
	for i := range 200 {
		lines = append(lines, fmt.Sprintf("/opt/%d/b/c/ user.component=%d", 200-i, i%4), fmt.Sprintf("/opt/%d/b/a/ user.x=1", 200-i))
	}
	tr := newTree(t, lines...)
	for i := range 200 { // which leaves directories out of order
		if _, err := tr.Add(nodeAt(t, tr, fmt.Sprintf("/opt/%d/b", i+1)), []byte("b"), tree.Attr{Mode: tree.FIFO | 0o600}); err != nil {
			t.Fatal(err)
		}
	}
	c := mustClaim(t, tr, ClaimOptions{})
	var wg sync.WaitGroup
	for i := range c.Components {
		wg.Go(func() {
			err := WriteLayer(t.Context(), io.Discard, tr, func(n tree.Node) bool { return c.Owners[n] == int32(i) }, nil)
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
