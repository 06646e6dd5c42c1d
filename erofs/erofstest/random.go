// Package erofstest has what tests of images share: dumps of random trees, and fsck.erofs.
package erofstest

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
)

// Random returns the dump of a tree that holds much of what trees can hold. It is the same for the same seed.
func Random(seed uint64) []byte {
	g := &generator{r: rand.New(rand.NewPCG(seed, 0x666c6174)), dirs: []string{""}, used: map[string]bool{}}
	g.prepare()
	g.line("/", 0o40755, "-", "-", "-", 0)
	for range 1 + g.r.IntN(g.size) {
		g.node()
	}
	if g.one(4) {
		g.bigDirectory()
	}
	if g.one(4) {
		g.manyShared()
	}
	for range g.r.IntN(10) {
		g.hardLink()
	}
	return g.out.Bytes()
}

// generator writes a dump line by line.
type generator struct {
	r     *rand.Rand
	out   bytes.Buffer
	size  int
	dirs  []string // raw paths
	files []string // raw paths of what may have more names
	used  map[string]bool

	mtimes  []string
	digests []string
	pairs   []string // KEY=VALUE
}

func (g *generator) one(in int) bool { return g.r.IntN(in) == 0 }

func pick[T any](g *generator, from ...T) T { return from[g.r.IntN(len(from))] }

// prepare makes the few values that many lines of the dump will share.
func (g *generator) prepare() {
	g.size = pick(g, 5, 30, 200, 600)
	g.mtimes = []string{"1700000000.0", "1700000000.0", "1700000000.0", fmt.Sprintf("%d.%d", g.r.Int64N(1<<33), g.r.IntN(1e9))}
	if g.one(3) {
		g.mtimes = append(g.mtimes, "-5.7", "0.0", "-5.8", "4294967296.1")
	}
	for range 10 {
		g.digests = append(g.digests, g.digest())
	}
	for range 20 {
		g.pairs = append(g.pairs, g.pair())
	}
}

func (g *generator) digest() string {
	b := make([]byte, 32)
	for i := range b {
		b[i] = byte(g.r.Uint32())
	}
	return hex.EncodeToString(b)
}

func (g *generator) bytes(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.r.Uint32())
	}
	return string(b)
}

// letters is text of which many a byte is repeated.
func (g *generator) letters(n int) string {
	return strings.Repeat(pick(g, "a", "xyz", "/long", "0"), n+1)[:n]
}

func (g *generator) length(typical, most int) int {
	if g.one(8) {
		return 1 + g.r.IntN(most)
	}
	return 1 + g.r.IntN(typical)
}

func (g *generator) name() string {
	switch g.r.IntN(12) {
	case 0:
		return fmt.Sprintf("%02x", g.r.IntN(256))
	case 1:
		return pick(g, "!", " x", "-", ".a", "..a", "...", ". ", ".!", "~", "=", "\\", "a\nb", "\x01", "\xff\xfe", "+")
	case 2:
		return g.letters(g.length(40, 255))
	case 3:
		return strings.NewReplacer("/", "_", "\x00", "0").Replace("n" + g.bytes(g.length(8, 254)))
	}
	return fmt.Sprintf("file-%d", g.r.IntN(5*g.size))
}

// path is one that is not used yet; "" if chance finds none.
func (g *generator) path() string {
	for range 5 {
		name := g.name()
		if len(name) > 255 || strings.Contains(name, "/") {
			continue
		}
		if p := pick(g, g.dirs...) + "/" + name; !g.used[p] {
			g.used[p] = true
			return p
		}
	}
	return ""
}

// xattrText bounds the text of a line's extended attributes in bytes, so that they stay below what a file may have.
const xattrText = 30000

// prefixes of names of extended attributes; some look like others or are special to overlayfs or composefs.
var prefixes = []string{
	"user.", "user.", "trusted.", "security.", "system.posix_acl_access", "system.posix_acl_default", "lustre.", "odd",
	"trusted.overlay.", "trusted.overlay.overlay.", "trusted.overlay", "user.overlay.", "system.posix_acl_accessible",
}

func (g *generator) pair() string {
	key := pick(g, prefixes...)
	if !strings.HasPrefix(key, "system.") || g.one(3) {
		key += pick(g, "opaque", "whiteout", "whiteouts", "metacopy", "redirect", "selinux", "x", g.letters(g.length(10, 200)))
	}
	value := ""
	if !g.one(4) {
		value = g.bytes(g.length(30, 3000))
	}
	return escape(key) + "=" + escape(value)
}

func (g *generator) xattrs() string {
	if !g.one(3) {
		return ""
	}
	var b strings.Builder
	for range g.length(4, 12) {
		p := pick(g, g.pairs...)
		if g.one(5) {
			p = g.pair()
		}
		if b.Len()+len(p) < xattrText {
			b.WriteString(" " + p)
		}
	}
	return b.String()
}

// node adds one name of any type.
func (g *generator) node() {
	p := g.path()
	if p == "" {
		return
	}
	perm := pick(g, 0o644, 0o755, 0o7777, 0)
	switch g.r.IntN(16) {
	case 0, 1, 2:
		g.line(p, 0o40000|perm, "-", "-", "-", uint64(g.r.IntN(5000)))
		g.dirs = append(g.dirs, p)
		return
	case 3, 4:
		target := g.letters(g.length(50, 4095))
		g.line(p, 0o120777, target, "-", "-", 0)
	case 5:
		g.line(p, pick(g, 0o20000, 0o60000)|perm, "-", "-", "-", pick[uint64](g, 0, 0, 1<<33))
	case 6:
		g.line(p, pick(g, 0o10000, 0o140000)|perm, "-", "-", "-", 0)
	case 7, 8, 9:
		content := g.bytes(g.length(100, 5000))
		g.line(p, 0o100000|perm, "-", content, "-", uint64(len(content)))
	default:
		g.backed(p, 0o100000|perm)
	}
	g.files = append(g.files, p)
}

// backed adds a file whose content is elsewhere, or nowhere.
func (g *generator) backed(p string, mode int) {
	digest := g.digest()
	if g.one(3) {
		digest = pick(g, g.digests...)
	}
	payload := digest[:2] + "/" + digest[2:]
	switch g.r.IntN(10) {
	case 0:
		payload = g.letters(g.length(30, 4095))
	case 1:
		payload = "-"
	case 2:
		digest = "-"
	}
	size := pick(g, 0, 1, 4096, g.r.Uint64N(1e6), g.r.Uint64N(1e6), g.r.Uint64N(1e6))
	if g.one(10) {
		size = g.r.Uint64N(1 << (10 + g.r.IntN(43))) // up to 4 PiB: 512 chunks
	}
	g.line(p, mode, payload, "-", digest, size)
}

// line writes one. Only the device of a device is anything but 0, and of these every other one is a whiteout.
func (g *generator) line(path string, mode int, payload, content, digest string, size uint64) {
	nlink, uid, gid, rdev := 1, 0, 0, uint64(0)
	if g.one(10) {
		nlink, uid, gid = g.r.IntN(70000), g.r.IntN(70000), g.r.IntN(70000)
	}
	if mode&0o160000 == 0o020000 && g.one(2) {
		rdev = uint64(g.r.Uint32())
	}
	fmt.Fprintf(&g.out, "%s %d %o %d %d %d %d %s %s %s %s%s\n", escape(path), size, mode, nlink, uid, gid, rdev,
		pick(g, g.mtimes...), optional(payload), optional(content), digest, g.xattrs())
}

func optional(s string) string {
	if s == "-" {
		return s
	}
	return escape(s)
}

// bigDirectory adds one of many blocks, and at its end one that the tail rule decides about.
func (g *generator) bigDirectory() {
	p := g.path()
	if p == "" {
		return
	}
	g.line(p, 0o40755, "-", "-", "-", 0)
	width := 8 + g.r.IntN(100)
	for i := range 20 + g.r.IntN(2000) {
		g.line(fmt.Sprintf("%s/%0*d", p, width, i*7919%10007), 0o100644, "-", "-", "-", 0)
	}
}

// manyShared gives two files more pairs in common than a node may refer to.
func (g *generator) manyShared() {
	var b strings.Builder
	for i := range 100 + g.r.IntN(100) {
		fmt.Fprintf(&b, " %s%03d=%d", pick(g, "user.s", "security.s"), i, i)
	}
	for range 2 + g.r.IntN(2) {
		if p := g.path(); p != "" {
			fmt.Fprintf(&g.out, "%s 5 100644 1 0 0 0 7.0 - - -%s\n", escape(p), b.String())
			g.files = append(g.files, p)
		}
	}
}

// hardLink adds a name for a file, or for a name that is one itself.
func (g *generator) hardLink() {
	p := g.path()
	if p == "" || len(g.files) == 0 {
		return
	}
	fmt.Fprintf(&g.out, "%s 0 @100644 1 0 0 0 0.0 %s - -\n", escape(p), escape(pick(g, g.files...)))
	g.files = append(g.files, p)
}

// escape writes every other byte than a letter or digit as an escape, so that it shares nothing with package dump's.
func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c == '/' || c == '.' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}
