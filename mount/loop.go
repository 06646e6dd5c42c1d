package mount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNoLoop: no loop device could be had.
var ErrNoLoop = errors.New("no loop device")

const loopControl = "/dev/loop-control"

// loopBlockSize is the block size of composefs images and so the least unit in
// which EROFS reads them, bytes.
const loopBlockSize = 4096

// loopTries bounds the race for a free device between LOOP_CTL_GET_FREE and
// LOOP_CONFIGURE, which other programs run as well.
const loopTries = 64

func canLoop() bool {
	c, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// attachLoop returns an open loop device that shows f, read-only. The device
// frees itself when the file returned and all mounts of it are gone.
//
// Direct I/O is left off: a sealed copy already is page cache, and reads of a
// file with fs-verity must go through the page cache, where they are checked.
func attachLoop(f *os.File) (*os.File, error) {
	c, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoLoop, err)
	}
	defer c.Close()
	for range loopTries {
		l, err := tryLoop(c, f)
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("%w: %w", ErrNoLoop, err)
		}
	}
	return nil, fmt.Errorf("%w: lost the race for one %d times", ErrNoLoop, loopTries)
}

func tryLoop(control, f *os.File) (*os.File, error) {
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("find free loop device: %w", err)
	}
	l, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	c := unix.LoopConfig{Fd: uint32(f.Fd()), Size: loopBlockSize}
	c.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
	copy(c.Info.File_name[:len(c.Info.File_name)-1], f.Name())
	if err := unix.IoctlLoopConfigure(int(l.Fd()), &c); err != nil {
		l.Close()
		return nil, fmt.Errorf("configure %s: %w", l.Name(), err)
	}
	return l, nil
}
