package pkgdb

import (
	"encoding/binary"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// fuzzTree reads a tree and checks that what it has is as it is promised, and no more than the tree accounts for.
func fuzzTree(t *testing.T, tree fstest.MapFS) {
	t.Helper()
	dbs, err := Read(tree, ReadOptions{})
	if err != nil {
		return
	}
	size := 0
	for name, f := range tree {
		size += len(name) + len(f.Data)
	}
	for _, d := range dbs {
		if !slices.IsSorted(d.Files) || !slices.IsSortedFunc(d.Packages, comparePackages) || len(d.Packages)*4 > size {
			t.Errorf("%s: %s, %d packages of %d bytes", d.Kind, d.Files, len(d.Packages), size)
		}
		owned := 0
		for _, p := range d.Packages {
			owned += checkPackage(t, p)
		}
		if owned > (size+1)*(maxPathRatio+1)+maxPath*(len(d.Packages)+len(tree)) {
			t.Errorf("%d bytes of paths of %d", owned, size)
		}
	}
}

// checkPackage checks a package, and is how many bytes its paths have.
func checkPackage(t *testing.T, p Package) (owned int) {
	t.Helper()
	if p.Name == "" || p.Source == "" {
		t.Errorf("a package without a name: %+v", p)
	}
	for i, c := range p.Changes {
		if i > 0 && !c.Before(p.Changes[i-1]) || len(p.Changes) > maxChanges {
			t.Errorf("%s: changed %v", p.Name, p.Changes)
		}
	}
	for i, name := range p.Paths {
		owned += len(name)
		if path.Clean(name) != name || name[0] != '/' || len(name) > maxPath+1 || strings.Contains(name, "\x00") ||
			i > 0 && name <= p.Paths[i-1] {
			t.Errorf("%s: path %q", p.Name, name)
		}
	}
	return owned
}

func texts(pairs ...string) fstest.MapFS {
	tree := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		tree[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return tree
}

// FuzzDpkg reads databases with two packages, a and b, and one in status.d.
func FuzzDpkg(f *testing.F) {
	f.Add(stanza("a", "installed")+stanza("b", "unpacked"), "/.\n/bin/sh\n", "/bin/sh\n/bin/sh.distrib\na\n", "Package: c\n",
		"0123456789abcdef0123456789abcdef  x/y\n", "text")
	f.Add("Package: b\nStatus: install ok installed\nMulti-Arch: same\nArchitecture: amd64\nSource: x (1)\n\nP", "",
		"/a\n/b\n:\n", "\n\nPackage: d\n\n", "", entryText("unstable", "N <x>  Mon, 02 Jan 2006 15:04:05 -0700"))
	f.Fuzz(func(t *testing.T, status, list, diversions, stanza, sums, changelog string) {
		const dir = "var/lib/dpkg/"
		fuzzTree(t, texts(dir+"status", status, dir+"info/a.list", list, dir+"info/b:amd64.list", list, dir+"diversions", diversions,
			dir+"status.d/c", stanza, dir+"status.d/c.md5sums", sums, "usr/share/doc/a/changelog.Debian", changelog))
	})
}

// FuzzApk reads databases.
func FuzzApk(f *testing.F) {
	f.Add("P:a\nV:1\nA:x\no:b\nt:1\nF:\nF:usr\nR:c\n\nP:b\n")
	f.Add(longFiles(100))
	f.Fuzz(func(t *testing.T, text string) { fuzzTree(t, texts("lib/apk/db/installed", text)) })
}

// FuzzPacman reads a package.
func FuzzPacman(f *testing.F) {
	f.Add("%NAME%\na\n\n%VERSION%\n1-1\n\n%BASE%\nb\n\n%ARCH%\nany\n\n%BUILDDATE%\n1\n", "%FILES%\nusr/\nusr/x\n\n%BACKUP%\nx\ty\n")
	f.Fuzz(func(t *testing.T, desc, files string) {
		fuzzTree(t, texts("var/lib/pacman/local/a/desc", desc, "var/lib/pacman/local/a/files", files))
	})
}

// FuzzRpmHeader reads what is known of a package.
func FuzzRpmHeader(f *testing.F) {
	f.Add(headerOf(tag{tagName, "a"}, tag{tagVersion, "1"}, tag{tagRelease, "2"}, tag{tagEpoch, []uint32{3}},
		tag{tagSourceRPM, "a-1-2.src.rpm"}, tag{tagChangelogTime, []uint32{1, 2}}, tag{tagDirIndexes, []uint32{0, 1}},
		tag{tagBaseNames, []string{"x", "y"}}, tag{tagDirNames, []string{"/", "/z/"}}))
	f.Add(headerOf(tag{tagName, "a"}, tag{tagOldFileNames, []string{"/a", "/b"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseHeader(newTree(fstest.MapFS{}), b)
		if err != nil {
			return
		}
		d := Database{}
		if d.add(*p) != nil {
			return
		}
		d.sort()
		if owned := checkPackage(t, d.Packages[0]); owned > len(b)*(maxPathRatio+1)+maxPath {
			t.Errorf("%d bytes of paths of %d", owned, len(b))
		}
	})
}

// FuzzNdb reads files, and headers in files with the right checksum, which is hard to guess.
func FuzzNdb(f *testing.F) {
	f.Add(ndbOf(headerOf(tag{tagName, "a"}), headerOf(tag{tagName, "b"})))
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzTree(t, rpmTree("Packages.db", b))
		fuzzTree(t, rpmTree("Packages.db", ndbOf(b)))
	})
}

// FuzzBDB reads files.
func FuzzBDB(f *testing.F) {
	f.Add(bdbOf(binary.LittleEndian, bdbHash, 512, bdbHeaders()...))
	f.Add(bdbOf(binary.BigEndian, bdbUnsorted, 512, bdbHeaders()...))
	f.Fuzz(func(t *testing.T, b []byte) { fuzzTree(t, rpmTree("Packages", b)) })
}

// FuzzSQLite reads files, and write-ahead logs with and without the right checksums.
func FuzzSQLite(f *testing.F) {
	f.Add(expand(f, "../sqlite/small.zst"), expand(f, "../sqlite/small-wal.zst"))
	f.Add(expand(f, "../sqlite/small.zst"), []byte{})
	f.Fuzz(func(t *testing.T, b, log []byte) {
		tree := rpmTree("rpmdb.sqlite", b)
		tree[marinerLog] = &fstest.MapFile{Data: log}
		fuzzTree(t, tree)
		sealed := slices.Clone(log)
		seal(sealed, 512, binary.LittleEndian)
		tree[marinerLog] = &fstest.MapFile{Data: sealed}
		fuzzTree(t, tree)
	})
}
