package powercut

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount/fuse/wire"
)

const (
	maxTransfer = 1 << 20 // of a READ or WRITE, bytes
	readers     = 2       // goroutines that answer requests
	requestRoom = maxTransfer + 2*blockSize

	writeInSize     = 40 // struct fuse_write_in
	fallocateInSize = 32 // struct fuse_fallocate_in
)

// server is a FUSE server whose files are disks. Nothing of them is kept by the kernel, neither names nor sizes nor pages:
// each request of the loop device above comes here, one after the other.
type server struct {
	dir string // where it is mounted
	dev int    // /dev/fuse

	mu    sync.Mutex
	nodes map[string]uint64
	disks map[uint64]*disk // by node
	last  uint64           // node; none is used twice

	ended sync.WaitGroup
}

// serve mounts a server in dir.
func serve(dir string) (*server, error) {
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	s := &server{dir: dir, dev: dev, nodes: map[string]uint64{}, disks: map[uint64]*disk{}, last: wire.RootID}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev)
	if err := unix.Mount("powercut", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(dev)
		return nil, fmt.Errorf("mount FUSE on %s: %w", dir, err)
	}
	for range readers {
		s.ended.Go(s.answer)
	}
	return s, nil
}

// close ends the server, when nothing uses its files any more.
func (s *server) close() error {
	err := unix.Unmount(s.dir, unix.MNT_DETACH)
	s.ended.Wait()
	return errors.Join(err, unix.Close(s.dev))
}

// add makes a disk a file, and returns its path.
func (s *server) add(name string, d *disk) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	s.nodes[name], s.disks[s.last] = s.last, d
	return filepath.Join(s.dir, name)
}

// remove forgets a disk.
func (s *server) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.disks, s.nodes[name])
	delete(s.nodes, name)
}

func (s *server) disk(node uint64) *disk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.disks[node]
}

func (s *server) find(name string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[name]
}

// answer answers requests until the session ends, which is ENODEV.
func (s *server) answer() {
	in, out := make([]byte, requestRoom), make([]byte, requestRoom)
	for {
		n, err := unix.Read(s.dev, in)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN || err == unix.ENOENT:
			continue
		case err != nil:
			return
		}
		var h wire.InHeader
		if !h.Decode(in[:n]) {
			return
		}
		body, errno := s.request(h, in[wire.InHeaderSize:n], out[wire.OutHeaderSize:])
		if !h.Opcode.Replied() {
			continue
		}
		if errno != 0 {
			body = 0
		}
		o := wire.OutHeader{Len: uint32(wire.OutHeaderSize + body), Unique: h.Unique, Error: -int32(errno)}
		o.Encode(out)
		// It fails for a request whose sender was killed.
		_, _ = unix.Write(s.dev, out[:o.Len])
	}
}

// request writes the body of the answer to out, and returns its length.
func (s *server) request(h wire.InHeader, in, out []byte) (int, unix.Errno) {
	switch h.Opcode {
	case wire.OpInit:
		return negotiate(in, out)
	case wire.OpLookup:
		return s.lookup(in, out)
	case wire.OpGetattr:
		a := wire.AttrOut{Attr: s.attr(h.NodeID)}
		a.Encode(out)
		return wire.AttrOutSize, 0
	case wire.OpOpen:
		o := wire.OpenOut{OpenFlags: wire.OpenDirectIO}
		o.Encode(out)
		return wire.OpenOutSize, 0
	case wire.OpRelease, wire.OpFlush, wire.OpDestroy:
		return 0, 0
	}
	d := s.disk(h.NodeID)
	if d == nil {
		return 0, unix.ENOSYS
	}
	return d.request(h.Opcode, in, out)
}

func negotiate(in, out []byte) (int, unix.Errno) {
	var i wire.InitIn
	if !i.Decode(in) || i.Major != wire.Major {
		return 0, unix.EPROTO
	}
	o := wire.InitOut{
		Major: wire.Major, Minor: min(i.Minor, wire.Minor), Flags: i.Flags & wire.MaxPages, MaxReadahead: i.MaxReadahead,
		MaxWrite: maxTransfer, TimeGran: 1, MaxPages: maxTransfer / blockSize,
	}
	o.Encode(out)
	return wire.InitOutSize, 0
}

func (s *server) lookup(in, out []byte) (int, unix.Errno) {
	name, ok := wire.Name(in)
	node := s.find(string(name))
	if !ok || node == 0 {
		return 0, unix.ENOENT
	}
	e := wire.EntryOut{NodeID: node, Attr: s.attr(node)}
	e.Encode(out)
	return wire.EntryOutSize, 0
}

func (s *server) attr(node uint64) wire.Attr {
	if node == wire.RootID {
		return wire.Attr{Ino: node, Mode: unix.S_IFDIR | 0o700, Nlink: 1}
	}
	a := wire.Attr{Ino: node, Mode: unix.S_IFREG | 0o600, Nlink: 1, Blksize: blockSize}
	if d := s.disk(node); d != nil {
		a.Size = uint64(d.blocks.size) // it never changes
		a.Blocks = a.Size / sectorSize
	}
	return a
}

// request does what the loop device asks for.
func (d *disk) request(op wire.Opcode, in, out []byte) (int, unix.Errno) {
	switch op {
	case wire.OpRead:
		var r wire.ReadIn
		if !r.Decode(in) || r.Size > maxTransfer || r.Offset > math.MaxInt64 {
			return 0, unix.EINVAL
		}
		return d.read(out[:r.Size], int64(r.Offset)), 0
	case wire.OpWrite:
		return d.write(in, out)
	case wire.OpFallocate:
		return 0, d.fallocate(in)
	case wire.OpFsync:
		d.do(event{Kind: eventFlush})
		return 0, 0
	}
	return 0, unix.ENOSYS
}

func (d *disk) write(in, out []byte) (int, unix.Errno) {
	if len(in) < writeInSize {
		return 0, unix.EINVAL
	}
	off, size := binary.NativeEndian.Uint64(in[8:]), binary.NativeEndian.Uint32(in[16:])
	data := in[writeInSize:]
	if off > math.MaxInt64 || int(size) != len(data) {
		return 0, unix.EINVAL
	}
	if !d.do(event{Kind: eventWrite, Off: int64(off), Len: int64(size), Data: bytes.Clone(data)}) {
		return 0, unix.ENOSPC
	}
	clear(out[:8])
	binary.NativeEndian.PutUint32(out, size)
	return 8, 0 // struct fuse_write_out
}

// fallocate makes zeros, the one use that a loop device has for it.
func (d *disk) fallocate(in []byte) unix.Errno {
	if len(in) < fallocateInSize {
		return unix.EINVAL
	}
	off, n, mode := binary.NativeEndian.Uint64(in[8:]), binary.NativeEndian.Uint64(in[16:]), binary.NativeEndian.Uint32(in[24:])
	if mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) == 0 || mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		return unix.EOPNOTSUPP
	}
	if off > math.MaxInt64 || n > math.MaxInt64 || !d.do(event{Kind: eventZero, Off: int64(off), Len: int64(n)}) {
		return unix.ENOSPC
	}
	return 0
}
