package fuse

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount/fuse/wire"
)

// Session is what INIT negotiated. With it another server can go on (Resume).
type Session struct {
	Major uint32    `json:"major"`
	Minor uint32    `json:"minor"`
	Flags wire.Flag `json:"flags"` // that both sides know
}

// What INIT asks for.
const (
	// maxReply is the longest reply to READ or READDIRPLUS in bytes, without the header.
	maxReply = 1 << 20
	// maxWrite is small since nothing is written and it decides how large the buffers for requests are.
	maxWrite = 4096
	// READs that nobody waits for, such as those of read-ahead, that the kernel sends at a time; and how many of them make it
	// stop reading ahead.
	maxBackground       = 64
	congestionThreshold = 48
	// Backing files lie on a file system that is on no other; on this one an overlayfs may lie (FILESYSTEM_MAX_STACK_DEPTH
	// is 2).
	maxStackDepth = 1
)

const wantedFlags = wire.AsyncRead | wire.ExportSupport | wire.ReadDirPlus | wire.NoOpen | wire.ParallelDirs | wire.MaxPages |
	wire.CacheSymlinks | wire.NoOpendir | wire.InitExt | wire.HasResend | wire.AllowIDMap

// ErrStopped is returned by Init after Stop.
var ErrStopped = errors.New("FUSE server was stopped")

// Init answers INIT, the first request of a new session.
func (s *Server) Init(dev *os.File) (Session, error) {
	ss, err := s.init(int(dev.Fd()))
	if err != nil {
		return Session{}, fmt.Errorf("begin FUSE session: %w", err)
	}
	return ss, s.take(ss, ss.Flags&wire.Passthrough != 0)
}

func (s *Server) init(dev int) (Session, error) {
	buf := make([]byte, wire.MinReadBuffer)
	for {
		n, err := s.readFirst(dev, buf)
		if err != nil {
			return Session{}, err
		}
		var h wire.InHeader
		var in wire.InitIn
		if !h.Decode(buf[:n]) || h.Opcode != wire.OpInit || !in.Decode(buf[wire.InHeaderSize:n]) {
			return Session{}, fmt.Errorf("the first request is %v of %d bytes, not INIT", h.Opcode, n)
		}
		ss, out := s.negotiate(in)
		if ss.Minor < wire.MinorOldest && in.Major == wire.Major {
			return Session{}, fmt.Errorf("the kernel's FUSE protocol %d.%d is too old, it must be %d.%d (Linux 3.15) or later",
				in.Major, in.Minor, wire.Major, wire.MinorOldest)
		}
		if err := reply(dev, h.Unique, out); err != nil {
			return Session{}, err
		}
		if in.Major <= wire.Major {
			return ss, nil
		} // else the kernel asks again, in the version of the reply
	}
}

// readFirst waits for a request, or Stop.
func (s *Server) readFirst(dev int, buf []byte) (int, error) {
	for {
		fds := []unix.PollFd{{Fd: int32(dev), Events: unix.POLLIN}, {Fd: int32(s.stop), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return 0, fmt.Errorf("poll: %w", err)
		}
		if s.stopping.Load() {
			return 0, ErrStopped
		}
		if fds[0].Revents == 0 {
			continue
		}
		n, err := unix.Read(dev, buf)
		if err == nil || !transient(err) {
			return max(n, 0), err
		}
	}
}

// negotiate chooses from what the kernel offers.
func (s *Server) negotiate(in wire.InitIn) (Session, wire.InitOut) {
	want := wantedFlags
	if s.img.HasACL() {
		want |= wire.POSIXACL
	}
	if s.passthrough {
		want |= wire.Passthrough
	}
	ss := Session{Major: wire.Major, Minor: min(in.Minor, wire.Minor), Flags: want & in.Flags}
	out := wire.InitOut{
		Major: ss.Major, Minor: ss.Minor, Flags: ss.Flags, MaxReadahead: in.MaxReadahead,
		MaxBackground: maxBackground, CongestionThreshold: congestionThreshold,
		MaxWrite: maxWrite, TimeGran: 1, MaxPages: uint16(max(1, maxReply/os.Getpagesize())),
	}
	if ss.Flags&wire.Passthrough != 0 {
		out.MaxStackDepth = maxStackDepth
	}
	return ss, out
}

// reply writes the answer to INIT.
func reply(dev int, unique uint64, out wire.InitOut) error {
	b := make([]byte, wire.OutHeaderSize+wire.InitOutSize)
	h := wire.OutHeader{Len: uint32(len(b)), Unique: unique}
	h.Encode(b)
	out.Encode(b[wire.OutHeaderSize:])
	if _, err := unix.Write(dev, b); err != nil {
		return fmt.Errorf("answer INIT: %w", err)
	}
	return nil
}

// Resume goes on with a session that another server negotiated, which must have had the same image and service. With
// passthrough the other must have ended.
//
// Passthrough needs a ledger: what is open from before must be opened again with the same backing ID, or the kernel fails
// the open. Without one the server has the kernel ask no more (see openFile).
func (s *Server) Resume(ss Session) error {
	return s.take(ss, ss.Flags&wire.Passthrough != 0 && s.opened.ledger.b != nil)
}

func (s *Server) take(ss Session, passthrough bool) error {
	if ss.Major != wire.Major || ss.Minor < wire.MinorOldest {
		return fmt.Errorf("resume FUSE session: unknown protocol %d.%d", ss.Major, ss.Minor)
	}
	if unknown := ss.Flags &^ (wantedFlags | wire.POSIXACL | wire.Passthrough); unknown != 0 {
		return fmt.Errorf("resume FUSE session: unknown flags %#x", uint64(unknown))
	}
	s.passthrough = passthrough
	s.opened.load()
	return nil
}

// transient tells errors after which a device is read again: no request came after all, it was taken by another reader, or
// whoever waited for it went away.
func transient(err error) bool {
	return err == unix.EAGAIN || err == unix.EINTR || err == unix.ENOENT
}
