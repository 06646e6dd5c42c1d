package fuse

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse/wire"
)

// FuzzRequest gives a server on an image that may be anything a request that may be anything. It must not panic, and the
// reply must be whole and no longer than what was asked for.
func FuzzRequest(f *testing.F) {
	seedRequests(f)
	f.Fuzz(func(t *testing.T, img, req []byte, view uint8) {
		m, err := erofs.OpenBytes(img)
		if err != nil {
			t.Skip("no image")
		}
		views := []mount.View{mount.ViewPlain, mount.ViewOverlay, mount.ViewUserOverlay}
		s := &Server{img: m, view: views[view%3], objects: pages{}, passthrough: view&4 != 0}
		w := &worker{s: s, img: m, out: make([]byte, wire.OutHeaderSize)}
		b := w.handle(req)
		var h wire.InHeader
		if !h.Decode(req) || !h.Opcode.Replied() {
			if b != nil {
				t.Fatal("a reply that nobody waits for")
			}
			return
		}
		checkReply(t, &h, req[wire.InHeaderSize:], b)
	})
}

func checkReply(t *testing.T, h *wire.InHeader, body, b []byte) {
	var out wire.OutHeader
	if !out.Decode(b) || int(out.Len) != len(b) || out.Unique != h.Unique || out.Error > 0 {
		t.Fatalf("%v: reply of %d bytes, header %+v", h.Opcode, len(b), out)
	}
	b = b[wire.OutHeaderSize:]
	if out.Error != 0 {
		if len(b) != 0 {
			t.Fatalf("%v: %v and %d bytes", h.Opcode, unix.Errno(-out.Error), len(b))
		}
		return
	}
	var r wire.ReadIn
	switch h.Opcode {
	case wire.OpLookup:
		checkSize(t, h, len(b), wire.EntryOutSize)
	case wire.OpGetattr:
		checkSize(t, h, len(b), wire.AttrOutSize)
	case wire.OpStatfs:
		checkSize(t, h, len(b), wire.StatfsOutSize)
	case wire.OpRead, wire.OpReaddir, wire.OpReaddirplus:
		if !r.Decode(body) || uint64(len(b)) > uint64(r.Size) || len(b) > maxReply {
			t.Fatalf("%v: %d bytes for %+v", h.Opcode, len(b), r)
		}
	case wire.OpGetxattr, wire.OpListxattr:
		if size := binary.NativeEndian.Uint32(body); size == 0 {
			checkSize(t, h, len(b), wire.GetxattrOutSize)
		} else if uint64(len(b)) > uint64(size) {
			t.Fatalf("%v: %d bytes for %d", h.Opcode, len(b), size)
		}
	}
	if h.Opcode == wire.OpReaddirplus {
		checkDirents(t, b)
	}
}

func checkSize(t *testing.T, h *wire.InHeader, got, want int) {
	if got != want {
		t.Fatalf("%v: %d bytes, want %d", h.Opcode, got, want)
	}
}

// checkDirents does what the kernel does with a reply to READDIRPLUS.
func checkDirents(t *testing.T, b []byte) {
	for len(b) > 0 {
		var d wire.Dirent
		if len(b) < wire.EntryOutSize || !d.Decode(b[wire.EntryOutSize:]) || d.NameLen == 0 || d.NameLen > 255 || d.Off > 1<<63-1 {
			t.Fatalf("entry %+v", d)
		}
		size := wire.EntryOutSize + wire.DirentLen(int(d.NameLen))
		if size > len(b) {
			t.Fatalf("entry of %d bytes in %d", size, len(b))
		}
		b = b[size:]
	}
}

func seedRequests(f *testing.F) {
	images, err := filepath.Glob("../../erofs/testdata/images/*.img")
	if err != nil || len(images) == 0 {
		f.Fatalf("no images: %v", err)
	}
	all := [][]byte{imageOf(f, sampleText)}
	for _, path := range images {
		if b, err := os.ReadFile(path); err == nil && len(b) <= 20<<10 {
			all = append(all, b)
		}
	}
	for k, img := range all {
		for _, req := range [][]byte{
			request(wire.OpLookup, 1, name("00")), request(wire.OpLookup, 1, name("inline")), request(wire.OpGetattr, 1, nil),
			request(wire.OpReaddirplus, 1, readBody(0, 4096)), request(wire.OpReaddir, 1, readBody(5, 4096)),
			request(wire.OpReadlink, 40, nil), request(wire.OpRead, 40, readBody(0, 4096)),
			request(wire.OpGetxattr, 1, xattrBody(10, "trusted.overlay.opaque")), request(wire.OpListxattr, 1, xattrBody(1000, "")),
			request(wire.OpOpen, 40, make([]byte, 8)), request(wire.OpRelease, 40, make([]byte, 24)),
			request(wire.OpStatfs, 1, nil), request(wire.OpForget, 1, nil), request(wire.OpSetattr, 1, nil),
		} {
			f.Add(img, req, uint8(k))
		}
	}
}
