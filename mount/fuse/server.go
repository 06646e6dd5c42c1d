package fuse

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse/object"
	"github.com/flatroot/flatroot/mount/fuse/wire"
)

// Options are NewServer's.
type Options struct {
	// Readers is the number of goroutines that answer requests. Zero: GOMAXPROCS, at most 4; more have cost more processor
	// time than they saved.
	Readers int
	// Log is called with a line for what goes wrong. Of many lines at a time some are left out. Nil: nothing is logged.
	Log func(format string, args ...any)
	// Ledger is of the session (NewLedger): with passthrough, what one server knows of open files and the next has to. The file
	// may be closed when NewServer has returned. Nil: a server that goes on with the session of another has no passthrough.
	Ledger *os.File
	// Count is called for each request, by several goroutines. Nil: nothing is counted.
	Count func(wire.Opcode)
}

const maxReaders = 4

func (o Options) fill() Options {
	if o.Readers <= 0 {
		o.Readers = min(runtime.GOMAXPROCS(0), maxReaders)
	}
	return o
}

// objects are where the data of backed files is. It is *object.Pool, or a test's.
type objects interface {
	ReadAt(r object.Ref, b []byte, off int64) (int, error)
	Open(r object.Ref) (*os.File, error)
	Close() error
}

// Server answers the requests of one session.
type Server struct {
	o       Options
	view    mount.View
	img     *erofs.Image
	mapped  mapping  // the image's, if it is mapped
	objects objects  // nil: the view has no data of backed files
	dirs    dirFiles // the objects'
	log     limiter
	opened  openTable // with passthrough

	passthrough bool        // wanted, and with a session also negotiated
	noXattrs    atomic.Bool // nothing in the image has an xattr that the view shows

	crew     crew
	stop     int // eventfd that Stop makes readable
	stopping atomic.Bool
}

// NewServer opens the image and the object directories; s.Device is not used. It doesn't look at what is in the image but
// the superblock and the root. The files of s may be closed when it has returned.
func NewServer(s mount.Serving, o Options) (*Server, error) {
	srv := &Server{o: o.fill(), view: s.View, passthrough: s.Passthrough, stop: -1, crew: crew{rested: -1}}
	srv.log.print = o.Log
	if err := errors.Join(srv.open(s), srv.openLedger()); err != nil {
		srv.Close()
		return nil, fmt.Errorf("serve image: %w", err)
	}
	return srv, nil
}

func (s *Server) open(from mount.Serving) (err error) {
	switch from.View {
	case mount.ViewPlain, mount.ViewOverlay, mount.ViewUserOverlay:
	default:
		return fmt.Errorf("unknown view %q", from.View)
	}
	if s.img, err = s.openImage(from); err != nil {
		return err
	}
	if s.view == mount.ViewPlain {
		if s.dirs, err = duplicate(from.Objects); err != nil {
			return err
		}
		s.objects = object.NewPool(s.dirs, object.Options{Verify: from.Service.Objects == mount.ObjectsUser})
	}
	if s.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	return s.crew.open()
}

func (s *Server) openLedger() error {
	if s.o.Ledger == nil || !s.passthrough {
		return nil
	}
	return s.opened.ledger.open(s.o.Ledger)
}

// openImage maps the image, or reads it through checks.
func (s *Server) openImage(from mount.Serving) (*erofs.Image, error) {
	st, err := from.Image.Stat()
	if err != nil {
		return nil, err
	}
	if from.Service.Image == mount.ImageBlocks {
		return openBlocks(from, st.Size())
	}
	if err := s.mapped.open(from.Image, st.Size()); err != nil {
		return nil, err
	}
	var img *erofs.Image
	err = s.mapped.guard(func() (err error) {
		img, err = erofs.OpenBytes(s.mapped.b)
		return err
	})
	return img, err
}

// Close frees what the server has. It must not be called while Serve runs.
func (s *Server) Close() error {
	var errs []error
	if s.objects != nil {
		errs = append(errs, s.objects.Close())
	}
	errs = append(errs, s.dirs.close(), s.mapped.close(), s.opened.ledger.close(), s.crew.close())
	if s.stop >= 0 {
		errs = append(errs, unix.Close(s.stop))
		s.stop = -1
	}
	return errors.Join(errs...)
}

// dirFiles are directories of the server's own.
type dirFiles []*os.File

// duplicate opens the same directories once more.
func duplicate(dirs []*os.File) (dup dirFiles, err error) {
	for _, d := range dirs {
		fd, err := unix.FcntlInt(d.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return dup, fmt.Errorf("duplicate %s: %w", d.Name(), err)
		}
		dup = append(dup, os.NewFile(uintptr(fd), d.Name()))
	}
	return dup, nil
}

func (d dirFiles) close() error {
	var errs []error
	for _, f := range d {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
