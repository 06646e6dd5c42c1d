package tree

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
)

func TestAttr(t *testing.T) {
	tr := newTree()
	a := Attr{
		Mode: BlockDevice | 0o7777, Nlink: 1 << 31, UID: 1<<32 - 1, GID: 1 << 20, Rdev: 0xfff0ff12,
		Size: 1<<64 - 1, MtimeSec: -1 << 63, MtimeNsec: 1<<32 - 1,
	}
	n := add(t, tr, "d", a)
	if got := tr.Attr(n); got != a {
		t.Errorf("got %+v, want %+v", got, a)
	}
	a.Mode, a.Rdev = BlockDevice, 1
	if err := tr.SetAttr(n, a); err != nil || tr.Attr(n) != a {
		t.Errorf("got %+v, %v, want %+v", tr.Attr(n), err, a)
	}
	if err := tr.SetAttr(n, fileAttr); !errors.Is(err, ErrType) {
		t.Errorf("change of type: %v", err)
	}
	f := add(t, tr, "f", Attr{Mode: Regular, Rdev: 5})
	if tr.Attr(f).Rdev != 0 {
		t.Error("a regular file has a device number")
	}
}

func TestNewRootIsDirectory(t *testing.T) {
	tr := New(fsverity.SHA512, Attr{Mode: Regular | 0o700})
	if tr.Mode(Root) != Directory|0o700 || tr.Algorithm() != fsverity.SHA512 {
		t.Errorf("root has mode %o", tr.Mode(Root))
	}
}

func digest(b byte) fsverity.Digest { return fsverity.Sum(fsverity.SHA256, []byte{b}) }

func TestFileData(t *testing.T) {
	tr := newTree()
	n := add(t, tr, "f", fileAttr)
	d := digest(1)
	path := d.ObjectPath()
	steps := []struct {
		name                     string
		do                       func() error
		content, digest, payload string
	}{
		{"nothing", func() error { return nil }, "", "", ""},
		{"object", func() error { return tr.SetObject(n, d) }, "", d.String(), path},
		{"content", func() error { return tr.SetContent(n, []byte("hello")) }, "hello", d.String(), ""},
		{"payload", func() error { return tr.SetPayload(n, []byte("some/path")) }, "", d.String(), "some/path"},
		{"payload, a digest's", func() error { return tr.SetPayload(n, []byte(path)) }, "", d.String(), path},
		{"upper case", func() error { return tr.SetPayload(n, []byte(strings.ToUpper(path))) }, "", d.String(), strings.ToUpper(path)},
		{"object again", func() error { return tr.SetObject(n, digest(2)) }, "", digest(2).String(), digest(2).ObjectPath()},
		{"no digest", func() error { return tr.SetDigest(n, fsverity.Digest{}) }, "", "", digest(2).ObjectPath()},
		{"no payload", func() error { return tr.SetPayload(n, nil) }, "", "", ""},
		{"empty content", func() error { return tr.SetContent(n, []byte{}) }, "", "", ""},
		{"no object", func() error { return tr.SetObject(n, fsverity.Digest{}) }, "", "", ""},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if c, d, p := string(tr.Content(n)), tr.Digest(n).String(), string(tr.Payload(n)); c != s.content || d != s.digest || p != s.payload {
			t.Errorf("%s: content %q, digest %q, payload %q", s.name, c, d, p)
		}
	}
}

func TestWrongType(t *testing.T) {
	tr := newTree()
	f := add(t, tr, "f", fileAttr)
	l := add(t, tr, "l", Attr{Mode: Symlink | 0o777})
	for _, n := range []Node{Root, l} {
		for name, err := range map[string]error{
			"content": tr.SetContent(n, []byte("x")), "digest": tr.SetDigest(n, digest(1)),
			"payload": tr.SetPayload(n, []byte("x")), "object": tr.SetObject(n, digest(1)),
		} {
			if !errors.Is(err, ErrType) {
				t.Errorf("%s of %o: %v", name, tr.Mode(n), err)
			}
		}
		if tr.Content(n) != nil || tr.RawDigest(n) != nil || tr.Payload(n) != nil || tr.PayloadID(n) != -1 || tr.DigestID(n) != -1 {
			t.Errorf("%o has data", tr.Mode(n))
		}
	}
	if err := tr.SetTarget(f, []byte("x")); !errors.Is(err, ErrType) {
		t.Errorf("target of a file: %v", err)
	}
	if tr.Target(f) != nil {
		t.Error("a file has a target")
	}
}

func TestLimits(t *testing.T) {
	tr := newTree()
	f := add(t, tr, "f", fileAttr)
	l := add(t, tr, "l", Attr{Mode: Symlink | 0o777, Size: 77})
	long := bytes.Repeat([]byte{'x'}, 70000)
	tests := []struct {
		name string
		err  error
		bad  bool
	}{
		{"content of 5000", tr.SetContent(f, long[:5000]), false},
		{"content of 5001", tr.SetContent(f, long[:5001]), true},
		{"payload of 4095", tr.SetPayload(f, long[:4095]), false},
		{"payload of 4096", tr.SetPayload(f, long[:4096]), true},
		{"target of 4095", tr.SetTarget(l, long[:4095]), false},
		{"target of 4096", tr.SetTarget(l, long[:4096]), true},
		{"empty target", tr.SetTarget(l, nil), true},
		{"target with NUL", tr.SetTarget(l, []byte("a\x00")), true},
		{"digest of another algorithm", tr.SetDigest(f, fsverity.Sum(fsverity.SHA512, nil)), true},
		{"xattr of 32767", tr.SetXattrs(f, []Xattr{{"user.a", long[:32767-12-7-6]}}), false},
		{"xattr of 32768", tr.SetXattrs(f, []Xattr{{"user.a", long[:32768-12-7-6]}}), true},
		{"xattr value of 65536", tr.SetXattrs(f, []Xattr{{"user.a", long[:65536]}}), true},
		{"xattr name of 255", tr.SetXattrs(f, []Xattr{{string(long[:255]), nil}}), false},
		{"xattr name of 256", tr.SetXattrs(f, []Xattr{{string(long[:256]), nil}}), true},
		{"empty xattr name", tr.SetXattrs(f, []Xattr{{"", nil}}), true},
	}
	for _, tt := range tests {
		if tt.bad && !errors.Is(tt.err, ErrValue) || !tt.bad && tt.err != nil {
			t.Errorf("%s: %v", tt.name, tt.err)
		}
	}
	if a := tr.Attr(l); a.Size != 4095 || len(tr.Target(l)) != 4095 {
		t.Errorf("the symlink's size is %d", a.Size)
	}
}

func TestXattrs(t *testing.T) {
	tr := newTree()
	a, b, c := add(t, tr, "a", fileAttr), add(t, tr, "b", fileAttr), add(t, tr, "c", fileAttr)
	set := func(n Node, xs ...Xattr) {
		t.Helper()
		if err := tr.SetXattrs(n, xs); err != nil {
			t.Fatal(err)
		}
	}
	set(a, Xattr{"user.z", []byte("1")}, Xattr{"user.a", nil}, Xattr{"user.z", []byte("2")})
	if got := fmt.Sprintf("%q", tr.Xattrs(a)); got != `[{"user.a" ""} {"user.z" "2"}]` {
		t.Errorf("xattrs are %s", got)
	}
	set(b, Xattr{"user.a", nil}, Xattr{"user.z", []byte("2")})
	if tr.XattrSet(a) != tr.XattrSet(b) || tr.NumXattrSets() != 1 {
		t.Error("equal xattrs are two sets")
	}
	set(c, Xattr{"user.a", nil})
	if tr.NumXattrPairs() != 2 || tr.XattrSet(c) == tr.XattrSet(a) {
		t.Errorf("%d pairs", tr.NumXattrPairs())
	}
	tr.CopyXattrs(c, a)
	if tr.XattrSet(c) != tr.XattrSet(a) {
		t.Error("xattrs are not copied")
	}
	set(c)
	if tr.Xattrs(c) != nil || tr.XattrSet(c) != -1 || tr.Xattrs(Root) != nil {
		t.Error("no xattrs are some")
	}
}

func TestInterning(t *testing.T) {
	tr := newTree()
	a, b, c := add(t, tr, "a", fileAttr), add(t, tr, "b", fileAttr), add(t, tr, "c", fileAttr)
	for _, n := range []Node{a, b} {
		if err := tr.SetObject(n, digest(1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.SetPayload(c, []byte(digest(1).ObjectPath())); err != nil {
		t.Fatal(err)
	}
	if tr.DigestID(a) != tr.DigestID(b) || tr.NumDigests() != 1 || tr.PayloadID(c) != tr.PayloadID(a) {
		t.Error("equal digests have different numbers")
	}
	if err := tr.SetPayload(c, []byte("p")); err != nil {
		t.Fatal(err)
	}
	if id := tr.PayloadID(c); id < tr.NumDigests() || id >= tr.NumPayloads() {
		t.Errorf("payload has number %d", id)
	}
}

func TestSetAlgorithm(t *testing.T) {
	tr := newTree()
	n := add(t, tr, "f", fileAttr)
	if err := tr.SetPayload(n, []byte("any/path")); err != nil {
		t.Fatal(err)
	}
	if err := tr.SetAlgorithm(fsverity.SHA512); err != nil || tr.Algorithm() != fsverity.SHA512 {
		t.Errorf("algorithm is %v: %v", tr.Algorithm(), err)
	}
	d := fsverity.Sum(fsverity.SHA512, []byte("x"))
	if err := tr.SetObject(n, d); err != nil || string(tr.Payload(n)) != d.ObjectPath() {
		t.Errorf("payload %s: %v", tr.Payload(n), err)
	}
	if err := tr.SetAlgorithm(fsverity.SHA256); !errors.Is(err, ErrValue) {
		t.Errorf("algorithm changed under a digest: %v", err)
	}
}

func TestSetAlgorithmAfterPath(t *testing.T) {
	tr := newTree()
	n := add(t, tr, "f", fileAttr)
	path := fsverity.Sum(fsverity.SHA512, []byte("x")).ObjectPath()
	if err := tr.SetPayload(n, []byte(path)); err != nil || string(tr.Payload(n)) != path {
		t.Fatalf("payload %s: %v", tr.Payload(n), err)
	}
	if err := tr.SetAlgorithm(fsverity.SHA512); !errors.Is(err, ErrValue) {
		t.Errorf("equal payloads could now have two numbers: %v", err)
	}
}

// TestTextBlocks fills several blocks of the arenas with strings that do not divide them.
func TestTextBlocks(t *testing.T) {
	tr := newTree()
	var nodes []Node
	content := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 4999-i%7) }
	for i := range 300 {
		n := add(t, tr, fmt.Sprint(i), fileAttr)
		if err := tr.SetContent(n, content(i)); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n)
	}
	for i, n := range nodes {
		if !bytes.Equal(tr.Content(n), content(i)) {
			t.Fatalf("content %d is not what was set", i)
		}
	}
}
