package fuse

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/erofs/erofstest"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse/object"
	"github.com/flatroot/flatroot/mount/fuse/wire"
	"github.com/flatroot/flatroot/tree/dump"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func imageOf(t testing.TB, text string) []byte {
	t.Helper()
	tr, err := dump.Parse(strings.NewReader(text), dump.Options{})
	must(t, err)
	var b bytes.Buffer
	_, err = erofs.Write(&b, tr, erofs.WriteOptions{})
	must(t, err)
	return b.Bytes()
}

// newServer serves an image file of these bytes, without a kernel.
func newServer(t testing.TB, img []byte, v mount.View, o Options) *Server {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(path, img, 0o644))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	s, err := NewServer(mount.Serving{Service: mount.Service{View: v}, Image: f}, o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// request is one as the kernel sends it.
func request(o wire.Opcode, node uint64, body []byte) []byte {
	h := wire.InHeader{Len: uint32(wire.InHeaderSize + len(body)), Opcode: o, Unique: 7, NodeID: node}
	b := make([]byte, wire.InHeaderSize)
	h.Encode(b)
	return append(b, body...)
}

// answer splits a reply.
func answer(t testing.TB, b []byte) (body []byte, err unix.Errno) {
	t.Helper()
	var h wire.OutHeader
	if !h.Decode(b) || int(h.Len) != len(b) || h.Unique != 7 || h.Error > 0 || h.Error < -4095 {
		t.Fatalf("reply of %d bytes with header %+v", len(b), h)
	}
	if h.Error != 0 && len(b) != wire.OutHeaderSize {
		t.Fatalf("an error with %d bytes", len(b))
	}
	return bytes.Clone(b[wire.OutHeaderSize:]), unix.Errno(-h.Error)
}

func name(s string) []byte { return append([]byte(s), 0) }

func readBody(offset uint64, size uint32) []byte {
	b := make([]byte, wire.ReadInSize)
	r := wire.ReadIn{Offset: offset, Size: size}
	r.Encode(b)
	return b
}

func xattrBody(size uint32, n string) []byte {
	b := make([]byte, wire.GetxattrInSize)
	binary.NativeEndian.PutUint32(b, size)
	if n != "" {
		b = append(b, name(n)...)
	}
	return b
}

// nodeOf looks a name in the root up.
func nodeOf(t testing.TB, w *worker, n string) uint64 {
	t.Helper()
	body, err := answer(t, w.handle(request(wire.OpLookup, wire.RootID, name(n))))
	if err != 0 {
		t.Fatalf("look up %q: %v", n, err)
	}
	return binary.NativeEndian.Uint64(body)
}

const sampleText = "/ 0 40755 2 0 0 0 0.0 - - - security.selinux=label\n" +
	"/backed 5000 100644 1 0 0 0 0.0 ab/cdef - 5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a user.long=value\n" +
	"/inline 5 100644 1 0 0 0 0.0 - hello -\n/link 6 120777 1 0 0 0 0.0 inline - -\n" +
	"/marked 0 100644 1 0 0 0 0.0 - - - trusted.overlay.own=1 user.overlay.own=2 trusted.other=3\n"

// pages stands for a pool whose objects are all there.
type pages struct{}

func (pages) ReadAt(_ object.Ref, b []byte, _ int64) (int, error) { return len(b), nil }
func (pages) Open(object.Ref) (*os.File, error)                   { return nil, errors.ErrUnsupported }
func (pages) Close() error                                        { return nil }

func TestNoAllocations(t *testing.T) {
	for _, v := range []mount.View{mount.ViewPlain, mount.ViewOverlay, mount.ViewUserOverlay} {
		s := newServer(t, imageOf(t, sampleText), v, Options{})
		s.objects = pages{}
		w := s.newWorker(-1)
		backed, inline, link := nodeOf(t, w, "backed"), nodeOf(t, w, "inline"), nodeOf(t, w, "link")
		requests := map[string][]byte{
			"LOOKUP":                  request(wire.OpLookup, wire.RootID, name("backed")),
			"LOOKUP of no name":       request(wire.OpLookup, wire.RootID, name("nothing")),
			"GETATTR":                 request(wire.OpGetattr, backed, nil),
			"READDIRPLUS":             request(wire.OpReaddirplus, wire.RootID, readBody(0, 32<<10)),
			"READDIR":                 request(wire.OpReaddir, wire.RootID, readBody(0, 32<<10)),
			"READLINK":                request(wire.OpReadlink, link, nil),
			"READ of an inline file":  request(wire.OpRead, inline, readBody(0, 4096)),
			"READ of an object":       request(wire.OpRead, backed, readBody(0, 128<<10)),
			"GETXATTR":                request(wire.OpGetxattr, backed, xattrBody(100, "user.long")),
			"GETXATTR of a size":      request(wire.OpGetxattr, backed, xattrBody(0, "user.long")),
			"GETXATTR of none":        request(wire.OpGetxattr, inline, xattrBody(100, "security.capability")),
			"GETXATTR for overlayfs":  request(wire.OpGetxattr, backed, xattrBody(100, "trusted.overlay.metacopy")),
			"GETXATTR with userxattr": request(wire.OpGetxattr, backed, xattrBody(100, "user.overlay.redirect")),
			"LISTXATTR":               request(wire.OpListxattr, backed, xattrBody(1000, "")),
			"STATFS":                  request(wire.OpStatfs, wire.RootID, nil),
			"FORGET":                  request(wire.OpForget, backed, make([]byte, 8)),
		}
		for what, req := range requests {
			if n := testing.AllocsPerRun(50, func() { w.handle(req) }); n != 0 {
				t.Errorf("%s, %s: %v allocations", v, what, n)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	w := newServer(t, imageOf(t, sampleText), mount.ViewPlain, Options{}).newWorker(-1)
	inline := nodeOf(t, w, "inline")
	openBody := func(flags uint32) []byte { return binary.NativeEndian.AppendUint64(nil, uint64(flags)) }
	for _, c := range []struct {
		what string
		req  []byte
		want unix.Errno
	}{
		{"OPEN", request(wire.OpOpen, inline, openBody(unix.O_RDONLY)), unix.ENOSYS},
		{"OPENDIR", request(wire.OpOpendir, wire.RootID, openBody(unix.O_RDONLY)), unix.ENOSYS},
		{"FLUSH", request(wire.OpFlush, inline, make([]byte, 24)), unix.ENOSYS},
		{"STATX", request(wire.OpStatx, inline, make([]byte, 24)), unix.ENOSYS},
		{"an unknown one", request(4000, inline, nil), unix.ENOSYS},
		{"IOCTL", request(wire.OpIoctl, inline, make([]byte, 32)), unix.ENOTTY},
		{"WRITE", request(wire.OpWrite, inline, make([]byte, 40)), unix.EROFS},
		{"SETATTR", request(wire.OpSetattr, inline, make([]byte, 88)), unix.EROFS},
		{"READLINK of a file", request(wire.OpReadlink, inline, nil), unix.EINVAL},
		{"READDIRPLUS of a file", request(wire.OpReaddirplus, inline, readBody(0, 4096)), unix.ENOTDIR},
		{"LOOKUP in a file", request(wire.OpLookup, inline, name("a")), unix.ENOTDIR},
		{"LOOKUP of a long name", request(wire.OpLookup, wire.RootID, name(strings.Repeat("n", 255))), 0},
		{"LOOKUP of a name too long", request(wire.OpLookup, wire.RootID, name(strings.Repeat("n", 256))), unix.ENAMETOOLONG},
		{"LOOKUP of an unfinished name", request(wire.OpLookup, wire.RootID, []byte("a")), unix.EINVAL},
		{"READ of a directory", request(wire.OpRead, wire.RootID, readBody(0, 4096)), unix.EINVAL},
		{"READ without its structure", request(wire.OpRead, inline, nil), unix.EINVAL},
		{"GETATTR of no inode", request(wire.OpGetattr, 1<<40, nil), unix.EIO},
		{"GETXATTR of a namespace", request(wire.OpGetxattr, inline, xattrBody(9, "user.")), unix.EINVAL},
		{"GETXATTR of another namespace", request(wire.OpGetxattr, inline, xattrBody(9, "system.x")), unix.EOPNOTSUPP},
		{"GETXATTR of an ACL", request(wire.OpGetxattr, inline, xattrBody(9, "system.posix_acl_access")), unix.ENODATA},
		{"GETXATTR of none", request(wire.OpGetxattr, inline, xattrBody(9, "user.x")), unix.ENODATA},
		{"GETXATTR with too little room", request(wire.OpGetxattr, wire.RootID, xattrBody(4, "security.selinux")), unix.ERANGE},
		{"LISTXATTR with too little room", request(wire.OpListxattr, wire.RootID, xattrBody(4, "")), unix.ERANGE},
	} {
		if _, err := answer(t, w.handle(c.req)); err != c.want {
			t.Errorf("%s: got %v, want %v", c.what, err, c.want)
		}
	}
	if w.handle(request(wire.OpInterrupt, inline, nil)) != nil || w.handle([]byte("short")) != nil {
		t.Error("a reply to what has none")
	}
}

func TestNegativeLookup(t *testing.T) {
	img := imageOf(t, sampleText)
	for v, whiteouts := range map[mount.View]bool{mount.ViewPlain: false, mount.ViewOverlay: true} {
		w := newServer(t, img, v, Options{}).newWorker(-1)
		for n, want := range map[string]bool{"nothing": false, "inline": true, "00": whiteouts} {
			body, err := answer(t, w.handle(request(wire.OpLookup, wire.RootID, name(n))))
			if err != 0 || len(body) != wire.EntryOutSize || binary.NativeEndian.Uint64(body[16:]) != valid {
				t.Fatalf("%s: %v, % x", n, err, body)
			}
			if got := binary.NativeEndian.Uint64(body) != 0; got != want {
				t.Errorf("%s, %s: is there: %t", v, n, got)
			}
		}
	}
}

// The xattrs of /marked in each view, by their shown names.
func TestViews(t *testing.T) {
	img := imageOf(t, sampleText)
	for v, want := range map[mount.View]map[string]string{
		mount.ViewPlain:       {"trusted.overlay.own": "1", "user.overlay.own": "2", "trusted.other": "3"},
		mount.ViewOverlay:     {"trusted.overlay.overlay.own": "1", "user.overlay.own": "2", "trusted.other": "3"},
		mount.ViewUserOverlay: {"trusted.overlay.own": "1", "user.overlay.overlay.own": "2", "trusted.other": "3"},
	} {
		w := newServer(t, img, v, Options{}).newWorker(-1)
		node := nodeOf(t, w, "marked")
		body, err := answer(t, w.handle(request(wire.OpListxattr, node, xattrBody(1000, ""))))
		if err != 0 {
			t.Fatal(err)
		}
		names := strings.Split(strings.TrimSuffix(string(body), "\x00"), "\x00")
		if len(names) != len(want) {
			t.Errorf("%s: names %q", v, names)
		}
		for n, value := range want {
			if got, err := answer(t, w.handle(request(wire.OpGetxattr, node, xattrBody(100, n)))); err != 0 || string(got) != value {
				t.Errorf("%s: %s is %q, %v", v, n, got, err)
			}
			if !bytes.Contains(append([]byte{0}, body...), append([]byte{0}, name(n)...)) {
				t.Errorf("%s: %s is not in %q", v, n, body)
			}
		}
		size, err := answer(t, w.handle(request(wire.OpListxattr, node, xattrBody(0, ""))))
		if err != 0 || int(binary.NativeEndian.Uint32(size)) != len(body) {
			t.Errorf("%s: size % x, %v", v, size, err)
		}
		for _, hidden := range []string{"trusted.overlay.overlay.own", "user.overlay.own", "user.overlay.overlay.own", "trusted.overlay.own"} {
			_, there := want[hidden]
			if _, err := answer(t, w.handle(request(wire.OpGetxattr, node, xattrBody(100, hidden)))); (err == unix.ENODATA) == there {
				t.Errorf("%s: %s: %v", v, hidden, err)
			}
		}
	}
}

// Every stored name has one shown name or none, no two have the same, and the shown leads back to the stored.
func TestViewNames(t *testing.T) {
	stored := []string{
		"user.x", "trusted.x", "security.x", "trusted.overlay", "user.overlay", "trusted.overlay.x", "trusted.overlay.overlay.x",
		"trusted.overlay.overlay.overlay.x", "user.overlay.x", "user.overlay.overlay.x", "user.overlay.overlay.overlay.x",
		"trusted.overlay.", "trusted.overlay.overlay.", "user.overlay.", "user.overlay.overlay.", "trusted.overlay.overlay", "user.overlay.overlay",
	}
	for _, v := range []mount.View{mount.ViewPlain, mount.ViewOverlay, mount.ViewUserOverlay} {
		seen := map[string]string{}
		for _, s := range stored {
			prefix, rest, ok := shownName(v, []byte(s))
			if !ok {
				continue
			}
			shown := prefix + string(rest)
			if other, twice := seen[shown]; twice {
				t.Errorf("%s: %q and %q are both shown as %q", v, s, other, shown)
			}
			seen[shown] = s
			if back := storedName(v, nil, []byte(shown)); string(back) != s {
				t.Errorf("%s: %q is shown as %q, which leads to %q", v, s, shown, back)
			}
		}
	}
}

// The kernel asks for . to find an inode, of any type, that it has only a file handle of.
func TestLookupItself(t *testing.T) {
	w := newServer(t, imageOf(t, sampleText), mount.ViewPlain, Options{}).newWorker(-1)
	for _, node := range []uint64{wire.RootID, nodeOf(t, w, "inline"), nodeOf(t, w, "link")} {
		body, err := answer(t, w.handle(request(wire.OpLookup, node, name("."))))
		if err != 0 || binary.NativeEndian.Uint64(body) != node {
			t.Errorf("node %d: % x, %v", node, body, err)
		}
	}
}

// A tree without xattrs has the kernel ask for none.
func TestSurvey(t *testing.T) {
	plain := "/ 0 40755 2 0 0 0 0.0 - - -\n/d 0 40755 2 0 0 0 0.0 - - -\n/d/e 0 40755 2 0 0 0 0.0 - - -\n" +
		"/d/e/f 9 100644 1 0 0 0 0.0 ab/cd - -"
	for what, c := range map[string]struct {
		text string
		view mount.View
		none bool
	}{
		"no xattrs":     {plain + "\n", mount.ViewPlain, true},
		"overlayfs":     {plain + "\n", mount.ViewOverlay, false},
		"one":           {plain + " user.x=1\n", mount.ViewPlain, false},
		"an escaped":    {plain + " trusted.overlay.x=1\n", mount.ViewPlain, false},
		"a never shown": {plain + " lustre.x=1\n", mount.ViewPlain, true},
	} {
		s := newServer(t, imageOf(t, c.text), c.view, Options{})
		if s.survey(); s.noXattrs.Load() != c.none {
			t.Errorf("%s: found that there are none: %t", what, !c.none)
		}
		w := s.newWorker(-1)
		if _, err := answer(t, w.handle(request(wire.OpGetxattr, 1, xattrBody(9, "user.none")))); (err == unix.ENOSYS) != c.none {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := answer(t, w.handle(request(wire.OpListxattr, 1, xattrBody(9000, "")))); err != 0 {
			t.Errorf("%s: list: %v", what, err)
		}
	}
}

// Directories that lead in a circle end the search, and prove nothing.
func TestSurveyCircle(t *testing.T) {
	img := imageOf(t, "/ 0 40755 2 0 0 0 0.0 - - -\n/d 0 40755 2 0 0 0 0.0 - - -\n")
	s := newServer(t, img, mount.ViewPlain, Options{})
	root, err := s.img.Inode(s.img.Root())
	must(t, err)
	d, err := root.Lookup("d")
	must(t, err)
	nid := binary.LittleEndian.AppendUint64(nil, uint64(d))
	entries := img[len(img)-4096:] // the root's one block, the only one of the image
	if n := bytes.Count(entries, nid); n != 1 {
		t.Fatalf("%d places", n)
	}
	binary.LittleEndian.PutUint64(entries[bytes.Index(entries, nid):], uint64(s.img.Root()))
	s = newServer(t, img, mount.ViewPlain, Options{})
	if s.survey(); s.noXattrs.Load() {
		t.Error("found that there are none")
	}
}

func TestNodeIDs(t *testing.T) {
	s := newServer(t, imageOf(t, sampleText), mount.ViewPlain, Options{})
	seen := map[uint64]erofs.Nid{}
	for _, n := range []erofs.Nid{0, 1, 2, s.img.Root(), 1 << 40} {
		id := s.nodeID(n)
		if other, twice := seen[id]; twice || id == 0 || s.nid(id) != n {
			t.Errorf("nid %d has node ID %#x, as has %d; that leads to %d", n, id, other, s.nid(id))
		}
		seen[id] = n
	}
	if s.nodeID(s.img.Root()) != wire.RootID {
		t.Error("the root is not 1")
	}
}

// A listing in pieces of any size has all names once.
func TestReaddirPieces(t *testing.T) {
	var text strings.Builder
	text.WriteString("/ 0 40755 2 0 0 0 0.0 - - -\n")
	for k := range 300 {
		text.WriteString("/" + strings.Repeat(string(rune('a'+k%26)), 1+k/2) + " 0 100644 1 0 0 0 0.0 - - -\n")
	}
	w := newServer(t, imageOf(t, text.String()), mount.ViewPlain, Options{}).newWorker(-1)
	for _, plus := range []bool{false, true} {
		for _, size := range []uint32{450, 1000, 4096, 1 << 20} {
			if n := countNames(t, w, plus, size); n != 302 {
				t.Errorf("plus %t, %d bytes: %d names", plus, size, n)
			}
		}
	}
	if body, err := answer(t, w.handle(request(wire.OpReaddirplus, wire.RootID, readBody(0, 10)))); err != 0 || len(body) != 0 {
		t.Errorf("no room: %d bytes, %v", len(body), err)
	}
}

func countNames(t *testing.T, w *worker, plus bool, size uint32) int {
	t.Helper()
	op, head := wire.OpReaddir, 0
	if plus {
		op, head = wire.OpReaddirplus, wire.EntryOutSize
	}
	seen := map[string]bool{}
	for off := uint64(0); ; {
		body, err := answer(t, w.handle(request(op, wire.RootID, readBody(off, size))))
		if err != 0 || len(body) > int(size) {
			t.Fatalf("%d bytes, %v", len(body), err)
		}
		if len(body) == 0 {
			return len(seen)
		}
		for len(body) > 0 {
			var d wire.Dirent
			if !d.Decode(body[head:]) {
				t.Fatalf("%d bytes at the end", len(body))
			}
			n := string(body[head+wire.DirentSize:][:d.NameLen])
			if seen[n] {
				t.Fatalf("%q twice", n)
			}
			seen[n] = true
			off = d.Off
			body = body[head+wire.DirentLen(len(n)):]
		}
	}
}

// failing stands for a pool that reads less than the object has.
type failing struct {
	pages
	n   int
	err error
}

func (f failing) ReadAt(object.Ref, []byte, int64) (int, error) { return f.n, f.err }

func TestObjectErrors(t *testing.T) {
	var log []string
	s := newServer(t, imageOf(t, sampleText), mount.ViewPlain, Options{Log: func(format string, args ...any) {
		log = append(log, strings.TrimSpace(fmt.Sprintf(format, args...)))
	}})
	w := s.newWorker(-1)
	backed := nodeOf(t, w, "backed")
	for _, f := range []failing{{n: 0, err: io.EOF}, {n: 10, err: nil}, {n: 0, err: errors.New(`open object "ab/cdef": gone`)}} {
		log = nil
		s.objects = f
		if _, err := answer(t, w.handle(request(wire.OpRead, backed, readBody(0, 4096)))); err != unix.EIO {
			t.Errorf("%+v: %v", f, err)
		}
		if len(log) != 1 || !strings.Contains(log[0], "ab/cdef") || !strings.Contains(log[0], "digest 5a5a5a") {
			t.Errorf("%+v: log %q", f, log)
		}
	}
}

func TestRandomTreesInMemory(t *testing.T) {
	for seed := range uint64(5) {
		w := newServer(t, imageOf(t, string(erofstest.Random(seed))), mount.ViewPlain, Options{}).newWorker(-1)
		if n := countNames(t, w, true, 8192); n < 2 {
			t.Errorf("seed %d: %d names", seed, n)
		}
	}
}
