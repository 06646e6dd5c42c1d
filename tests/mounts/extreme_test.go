package mounts

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/tests/testenv"
	"github.com/flatroot/flatroot/tree"
)

// TestExtremes compares the modes on a tree of what random ones have seldom or never.
func TestExtremes(t *testing.T) {
	needMounts(t)
	dir := tmpfs(t)
	b := newBuilder(t, newObjects(t, filepath.Join(dir, "objects")))
	extremeNames(b)
	extremeAttributes(b)
	extremeXattrs(b)
	hugeFile(b)
	formats := []erofs.Format{erofs.Format1}
	if testenv.Nightly() {
		formats = append(formats, erofs.Format0)
	}
	for _, f := range formats {
		if diff := compareModes(t, writeImage(t, dir, "extremes", b.tree, b.objects, f), modes()); diff != "" {
			t.Errorf("format %v: %s", f, diff)
		}
	}
}

// extremeNames has names of all lengths, a path that is longer than the kernel takes, a wide directory and many hard links.
func extremeNames(b *builder) {
	b.dir("/names", 0o755)
	for n := 1; n <= 255; n++ {
		b.file("/names/"+strings.Repeat("ä", n/2)+strings.Repeat("z", n%2), 0o644, nil)
	}
	for c := range 256 {
		if c != 0 && c != '/' && c != '.' {
			b.file(fmt.Sprintf("/names/byte-%c", []byte{byte(c)}), 0o644, nil)
		}
	}
	path := "/deep"
	b.dir(path, 0o755)
	for range 60 {
		path += "/" + strings.Repeat("d", 200)
		b.dir(path, 0o755)
	}
	b.file(path+"/end", 0o644, groundData[:70])
	b.dir("/wide", 0o755)
	for i := range bigEntries {
		b.symlink(fmt.Sprintf("/wide/%s%d", strings.Repeat("w", i%200), i), fmt.Sprint(i))
	}
	b.dir("/links", 0o755)
	n := b.file("/links/0", 0o644, groundData[:5000])
	for i := range 1000 {
		b.link(fmt.Sprintf("/links/%d", i+1), n)
	}
	a := b.tree.Attr(n)
	a.Nlink = 1001
	must(b.t, b.tree.SetAttr(n, a))
}

func extremeAttributes(b *builder) {
	b.dir("/attr", 0o755)
	for name, change := range map[string]func(a *tree.Attr){
		"owner":      owner(math.MaxUint32-1, math.MaxUint32-1), // the last number stands for none
		"group":      owner(65535, 65536),
		"before":     func(a *tree.Attr) { a.MtimeSec = -1; a.MtimeNsec = 999_999_999 },
		"long ago":   func(a *tree.Attr) { a.MtimeSec = math.MinInt32 },
		"in 2038":    func(a *tree.Attr) { a.MtimeSec = math.MaxInt32 + 1 },
		"in 2106":    func(a *tree.Attr) { a.MtimeSec = math.MaxUint32 + 1 },
		"far away":   func(a *tree.Attr) { a.MtimeSec = 1 << 40 },
		"many links": func(a *tree.Attr) { a.Nlink = 65536 },
		"no links":   func(a *tree.Attr) { a.Nlink = 0 },
		"all bits":   func(a *tree.Attr) { a.Mode |= 0o7777 },
		"no bits":    func(a *tree.Attr) { a.Mode &^= 0o7777 },
	} {
		b.file("/attr/"+name, 0o644, groundData[:100], change)
		b.dir("/attr/"+name+".d", 0o755, change)
		b.add("/attr/"+name+".fifo", unix.S_IFIFO|0o644, change)
	}
	for i, d := range [][2]uint32{{0, 1}, {1, 0}, {255, 255}, {256, 256}, {4095, 1<<20 - 1}} {
		b.add(fmt.Sprintf("/attr/char%d", i), unix.S_IFCHR|0o600, device(d[0], d[1]))
		b.add(fmt.Sprintf("/attr/block%d", i), unix.S_IFBLK|0o600, device(d[0], d[1]))
	}
	for _, n := range []int{1, 63, 64, 65, 4000, 4095} {
		b.symlink(fmt.Sprintf("/attr/link%d", n), strings.Repeat("l", n))
	}
}

func extremeXattrs(b *builder) {
	b.dir("/xattr", 0o755)
	var many []tree.Xattr
	for i := range 500 {
		many = append(many, userXattr(fmt.Sprintf("user.%03d", i), fmt.Sprint(i)))
	}
	for name, xs := range map[string][]tree.Xattr{
		"many":      many,
		"long":      {userXattr("user.long", strings.Repeat("v", 32000))},
		"long name": {userXattr("user."+strings.Repeat("n", 250), "v")},
		"binary":    {userXattr("user.binary", string(randomBytes(1000, 5)))},
		"zeros":     {userXattr("user.zeros", "\x00\x00"), userXattr("user.empty", "")},
		"cap":       {{Name: "security.capability", Value: netRaw}},
	} {
		b.xattrs(b.file("/xattr/"+name, 0o644, groundData[:200]), xs...)
		b.xattrs(b.dir("/xattr/"+name+".d", 0o755), xs...)
	}
}

// hugeFile is larger than 32 bits can say. It has no digest, which would take seconds to compute.
func hugeFile(b *builder) {
	const size = 1<<32 + 4097
	path := filepath.Join(b.objects.dir, "huge")
	f, err := os.Create(path)
	must(b.t, err)
	defer f.Close()
	must(b.t, f.Truncate(size))
	for _, off := range []int64{0, size/2 + 1, size - 1000} {
		_, err = f.WriteAt(bytes.Repeat([]byte("huge"), 250), off)
		must(b.t, err)
	}
	n := b.add("/huge", unix.S_IFREG|0o644, func(a *tree.Attr) { a.Size = size })
	must(b.t, b.tree.SetPayload(n, []byte("huge")))
}
