package mount

import (
	"context"
	"encoding/binary"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// standIn is the least of a FUSE server: a tree that is one empty directory. It
// lets this package's part be tested alone, with servers that fail too.
type standIn struct {
	mu      sync.Mutex
	running sync.WaitGroup
	seen    []Service
}

// start is a StartFunc. Like a real one it has its own descriptor and ends with
// the session.
func (s *standIn) start(_ context.Context, v Serving) error {
	fd, err := unix.FcntlInt(v.Device.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dev := os.NewFile(uintptr(fd), "device")
	if err := answerOne(dev); err != nil {
		dev.Close()
		return err
	}
	s.mu.Lock()
	s.seen = append(s.seen, v.Service)
	s.mu.Unlock()
	s.running.Go(func() {
		defer dev.Close()
		for answerOne(dev) == nil {
		}
	})
	return nil
}

// Opcodes of linux/fuse.h, enum fuse_opcode.
const (
	opLookup, opForget, opGetattr, opStatfs, opGetxattr, opListxattr, opInit, opReaddir = 1, 2, 3, 17, 22, 23, 26, 28
	opBatchForget, opReaddirplus                                                        = 42, 44
)

// answerOne reads a request and answers it; an error ends the session.
func answerOne(dev *os.File) error {
	b := make([]byte, fuseMinRead)
	n, err := unix.Read(int(dev.Fd()), b)
	if err == unix.EINTR || err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	opcode := binary.NativeEndian.Uint32(b[4:])
	if opcode == opForget || opcode == opBatchForget {
		return nil
	}
	body, errno := answerTo(opcode, b[40:n])
	out := make([]byte, 16, 16+len(body))
	binary.NativeEndian.PutUint32(out, uint32(16+len(body)))
	binary.NativeEndian.PutUint32(out[4:], uint32(-int32(errno)))
	copy(out[8:], b[8:16]) // unique
	_, err = unix.Write(int(dev.Fd()), append(out, body...))
	if err == unix.ENOENT { // the asker was interrupted
		err = nil
	}
	return err
}

func answerTo(opcode uint32, in []byte) ([]byte, unix.Errno) {
	switch opcode {
	case opInit: // struct fuse_init_out
		out := make([]byte, 64)
		copy(out, in[:12]) // major, minor and max_readahead of the kernel
		flags := uint64(fuseInitExt | fuseAllowIDMap)
		binary.NativeEndian.PutUint32(out[12:], uint32(flags))
		binary.NativeEndian.PutUint32(out[20:], 4096) // max_write
		binary.NativeEndian.PutUint32(out[32:], uint32(flags>>32))
		return out, 0
	case opGetattr: // struct fuse_attr_out, of a directory 0750 of 7:8
		out := make([]byte, 104)
		binary.NativeEndian.PutUint64(out[16:], 1)
		for i, v := range []uint32{unix.S_IFDIR | 0o750, 2, 7, 8} {
			binary.NativeEndian.PutUint32(out[76+4*i:], v)
		}
		return out, 0
	case opStatfs:
		return make([]byte, 80), 0
	case opReaddir, opReaddirplus:
		return nil, 0
	case opLookup:
		return nil, unix.ENOENT
	case opGetxattr:
		return nil, unix.ENODATA
	case opListxattr:
		if binary.NativeEndian.Uint32(in) > 0 { // size, 0: tell how much there is
			return nil, 0
		}
		return make([]byte, 8), 0
	}
	return nil, unix.ENOSYS
}

// serveStandIn lets r have a stand-in, and waits for its end after the test.
func serveStandIn(t *testing.T, r *Request) *standIn {
	t.Helper()
	s := &standIn{}
	r.Start = s.start
	t.Cleanup(s.running.Wait)
	return s
}
