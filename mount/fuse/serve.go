package fuse

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/mount/fuse/wire"
)

// Serve answers requests until the file system is unmounted or Stop is called; both are no error. The devices are those of
// one session (see Clone); if there are more readers than devices they share them. Serve makes the devices non-blocking, and
// blocking again when it returns: a device that is non-blocking when os.NewFile gets it costs time for each request, since
// the runtime waits for it too.
func (s *Server) Serve(devs []*os.File) error {
	if len(devs) == 0 {
		return errors.New("serve FUSE: no device")
	}
	fds, err := nonblocking(devs)
	defer blocking(fds)
	if err != nil {
		return fmt.Errorf("serve FUSE: %w", err)
	}
	errs := make([]error, max(s.o.Readers, len(fds)))
	var wg sync.WaitGroup
	for k := range errs {
		wg.Go(func() {
			errs[k] = s.serveDevice(fds[k%len(fds)])
			s.Stop() // for one reader it is over for all: unmounted, stopped, or failed
		})
	}
	wg.Go(s.survey)
	wg.Wait()
	runtime.KeepAlive(devs)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("serve FUSE: %w", err)
	}
	return nil
}

func nonblocking(devs []*os.File) (fds []int, err error) {
	for _, d := range devs {
		fd := int(d.Fd())
		if err := unix.SetNonblock(fd, true); err != nil {
			return fds, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func blocking(fds []int) {
	for _, fd := range fds {
		unix.SetNonblock(fd, false)
	}
}

// Stop has Serve return after the requests in hand are answered. It may be called at any time, also before Serve; the server
// serves no more then.
func (s *Server) Stop() {
	s.stopping.Store(true)
	// More than once is enough too: a counter that is full gives EAGAIN.
	unix.Write(s.stop, eventOne)
	s.crew.dismiss()
}

// eventOne adds 1 to an eventfd's counter.
var eventOne = binary.NativeEndian.AppendUint64(nil, 1)

// errUnmounted tells that the session has ended.
var errUnmounted = errors.New("unmounted")

// serveDevice is one reader.
func (s *Server) serveDevice(dev int) error {
	// A thread of its own keeps what it has in its processor's caches, and its device's requests in one place.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	ep, err := s.newEpoll(dev)
	if err != nil {
		return err
	}
	defer unix.Close(ep)
	err = s.newWorker(dev).run(ep)
	if err == errUnmounted {
		return nil
	}
	return err
}

// newEpoll waits for a request or Stop. Of several readers that wait, a request wakes up one: that is what EPOLLEXCLUSIVE is
// for; poll(2) would wake up all of them each time.
func (s *Server) newEpoll(dev int) (int, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("epoll_create: %w", err)
	}
	err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, s.stop, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.stop)})
	if err == nil {
		err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, dev, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLEXCLUSIVE, Fd: int32(dev)})
	}
	if err != nil {
		unix.Close(ep)
		return -1, fmt.Errorf("epoll_ctl: %w", err)
	}
	return ep, nil
}

// worker is what one reader has to answer requests with.
type worker struct {
	s   *Server
	img *erofs.Image // this reader's
	dev int

	out         []byte // the reply: a header, and room
	node, child erofs.Inode
	name        []byte // of an xattr
	path        []byte // of an object
}

// firstReply is the size of the replies that a worker has room for from the begin on, in bytes: that of what getdents(3) of
// libc asks for, and of read-ahead as it is without root's help.
const firstReply = 128 << 10

func (s *Server) newWorker(dev int) *worker {
	return &worker{
		s: s, img: s.img.Buffered(), dev: dev,
		out: make([]byte, wire.OutHeaderSize+firstReply), name: make([]byte, 0, nameRoom),
	}
}

// nameRoom has room for the longest name of an xattr (XATTR_NAME_MAX, 255 bytes) and what a view puts in front.
const nameRoom = 512

// run answers requests. It reads before it waits: then it knows, by a request that came before it had to wait, that there
// are more of them than it can answer.
func (w *worker) run(ep int) error {
	buf := make([]byte, max(wire.MinReadBuffer, wire.InHeaderSize+wire.ReadInSize+maxWrite))
	events := make([]unix.EpollEvent, 2)
	crew := &w.s.crew
	crew.join()
	for streak := 0; !w.s.stopping.Load(); {
		n, err := deviceCall(unix.SYS_READ, w.dev, buf)
		switch {
		case err == nil:
			if streak++; streak > backlog {
				crew.call()
			}
			if err := w.one(buf[:n]); err != nil {
				return err
			}
		case err == unix.ENODEV:
			return errUnmounted
		case !transient(err):
			return fmt.Errorf("read request: %w", err)
		case err == unix.EAGAIN:
			streak = 0
			if crew.rest() {
				continue
			}
			if _, err := unix.EpollWait(ep, events, -1); err != nil && err != unix.EINTR {
				return fmt.Errorf("epoll_wait: %w", err)
			}
		}
	}
	return nil
}

// one answers a request.
func (w *worker) one(req []byte) error {
	b := w.handle(req)
	if b == nil {
		return nil
	}
	_, err := deviceCall(unix.SYS_WRITE, w.dev, b)
	switch {
	case err == unix.ENODEV:
		return errUnmounted
	case err != nil && err != unix.ENOENT: // ENOENT: it was interrupted, and nobody waits any more
		w.s.log.printf("answer to request of %d bytes: %v", len(req), err)
	}
	return nil
}
