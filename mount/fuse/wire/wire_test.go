package wire

import (
	"bytes"
	"testing"
)

// The kernel's sizes (fuse.h, checked there by its users with _Static_assert or pahole), spelt out so that a constant that
// changes by mistake does not change them.
func TestSizes(t *testing.T) {
	for name, s := range map[string][2]int{
		"in header": {InHeaderSize, 40}, "out header": {OutHeaderSize, 16}, "init in": {InitInSize, 64}, "init out": {InitOutSize, 64},
		"attr": {AttrSize, 88}, "entry out": {EntryOutSize, 128}, "attr out": {AttrOutSize, 104}, "open in": {OpenInSize, 8},
		"open out": {OpenOutSize, 16}, "release in": {ReleaseInSize, 24}, "read in": {ReadInSize, 40},
		"getxattr in": {GetxattrInSize, 8}, "getxattr out": {GetxattrOutSize, 8}, "statfs out": {StatfsOutSize, 80},
		"dirent": {DirentSize, 24}, "backing map": {BackingMapSize, 16},
	} {
		if s[0] != s[1] {
			t.Errorf("%s has %d bytes, want %d", name, s[0], s[1])
		}
	}
}

// Each structure is written as a whole, over what was there before, and not a byte further.
func TestEncodeFills(t *testing.T) {
	for name, s := range map[string]struct {
		size   int
		encode func([]byte)
	}{
		"in header": {InHeaderSize, new(InHeader).Encode}, "out header": {OutHeaderSize, new(OutHeader).Encode},
		"init out": {InitOutSize, new(InitOut).Encode}, "attr": {AttrSize, new(Attr).Encode},
		"entry out": {EntryOutSize, new(EntryOut).Encode}, "attr out": {AttrOutSize, new(AttrOut).Encode},
		"open out": {OpenOutSize, new(OpenOut).Encode}, "read in": {ReadInSize, new(ReadIn).Encode},
		"getxattr out": {GetxattrOutSize, new(GetxattrOut).Encode}, "statfs out": {StatfsOutSize, new(StatfsOut).Encode},
		"dirent": {DirentSize, new(Dirent).Encode}, "backing map": {BackingMapSize, new(BackingMap).Encode},
	} {
		b := bytes.Repeat([]byte{0xaa}, s.size+1)
		s.encode(b)
		if want := append(make([]byte, s.size), 0xaa); !bytes.Equal(b, want) {
			t.Errorf("%s: a structure of zeros is % x", name, b)
		}
	}
}

// Where the fields are, by the kernel's offsets.
func TestOffsets(t *testing.T) {
	b := make([]byte, EntryOutSize)
	e := EntryOut{NodeID: 1, Attr: Attr{Ino: 2, Size: 3, MtimeNsec: 4, Mode: 5, Nlink: 6, Rdev: 7, Blksize: 8}}
	e.Encode(b)
	for off, want := range map[int]uint64{0: 1, 40: 2, 48: 3} {
		if got := ne.Uint64(b[off:]); got != want {
			t.Errorf("entry out: %d at %d, want %d", got, off, want)
		}
	}
	for off, want := range map[int]uint32{92: 4, 100: 5, 104: 6, 116: 7, 120: 8} {
		if got := ne.Uint32(b[off:]); got != want {
			t.Errorf("entry out: %d at %d, want %d", got, off, want)
		}
	}
	i := InitOut{Flags: InitExt | AllowIDMap, MaxWrite: 1, MaxPages: 2, MaxStackDepth: 3}
	i.Encode(b)
	for off, want := range map[int]uint32{12: 1 << 30, 20: 1, 28: 2, 32: 1 << 8, 36: 3} {
		if got := ne.Uint32(b[off:]); got != want {
			t.Errorf("init out: %#x at %d, want %#x", got, off, want)
		}
	}
}

func TestDecodeShort(t *testing.T) {
	b := bytes.Repeat([]byte{0xff}, 100)
	for name, s := range map[string]struct {
		size   int
		decode func([]byte) bool
	}{
		"in header": {InHeaderSize, new(InHeader).Decode}, "out header": {OutHeaderSize, new(OutHeader).Decode},
		"init in": {initInShort, new(InitIn).Decode}, "open in": {OpenInSize, new(OpenIn).Decode},
		"release in": {ReleaseInSize, new(ReleaseIn).Decode}, "read in": {ReadInSize, new(ReadIn).Decode},
		"getxattr in": {GetxattrInSize, new(GetxattrIn).Decode}, "dirent": {DirentSize, new(Dirent).Decode},
	} {
		if !s.decode(b) || !s.decode(b[:s.size]) || s.decode(b[:s.size-1]) || s.decode(nil) {
			t.Errorf("%s is not decoded from %d bytes and more", name, s.size)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	b := make([]byte, 64)
	in := InHeader{Len: 1, Opcode: OpStatx, Unique: 3 | UniqueResend, NodeID: 4, UID: 5, GID: 6, PID: 7, ExtLength: 8}
	in.Encode(b)
	var in2 InHeader
	if in2.Decode(b); in2 != in {
		t.Errorf("got %+v, want %+v", in2, in)
	}
	r := ReadIn{Fh: 1, Offset: 2, Size: 3, ReadFlags: 4, LockOwner: 5, Flags: 6}
	r.Encode(b)
	var r2 ReadIn
	if r2.Decode(b); r2 != r {
		t.Errorf("got %+v, want %+v", r2, r)
	}
}

// Kernels before 5.17 have no flags2.
func TestInitIn(t *testing.T) {
	b := make([]byte, InitInSize)
	ne.PutUint32(b[12:], uint32(InitExt|AsyncRead))
	ne.PutUint32(b[16:], 1<<8)
	var i InitIn
	if i.Decode(b); i.Flags != InitExt|AsyncRead|AllowIDMap {
		t.Errorf("flags %#x", i.Flags)
	}
	if i.Decode(b[:16]); i.Flags != InitExt|AsyncRead {
		t.Errorf("short: flags %#x", i.Flags)
	}
	ne.PutUint32(b[12:], uint32(AsyncRead))
	if i.Decode(b); i.Flags != AsyncRead {
		t.Errorf("without INIT_EXT: flags %#x", i.Flags)
	}
}

func TestNotify(t *testing.T) {
	b := make([]byte, OutHeaderSize)
	NotifyResend.Encode(b)
	var h OutHeader
	if h.Decode(b); h != (OutHeader{Len: 16, Error: 7}) {
		t.Errorf("got %+v", h)
	}
}

func TestName(t *testing.T) {
	for in, want := range map[string]string{"a\x00": "a", "\x00": "", "ab\x00c\x00": "ab"} {
		if got, ok := Name([]byte(in)); !ok || string(got) != want {
			t.Errorf("%q: %q, %t", in, got, ok)
		}
	}
	for _, in := range []string{"", "a"} {
		if _, ok := Name([]byte(in)); ok {
			t.Errorf("%q has a name", in)
		}
	}
}

func TestOpcodes(t *testing.T) {
	for o, want := range map[Opcode]string{OpLookup: "LOOKUP", OpCopyRange64: "COPY_FILE_RANGE_64", 7: "7", 63: "63", 1 << 31: "2147483648"} {
		if got := o.String(); got != want {
			t.Errorf("%d is %q, want %q", uint32(o), got, want)
		}
	}
	if OpForget.Replied() || OpBatchForget.Replied() || OpInterrupt.Replied() || !OpLookup.Replied() || !Opcode(99).Replied() {
		t.Error("wrong operations wait for replies")
	}
}
