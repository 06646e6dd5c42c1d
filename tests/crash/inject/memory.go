//go:build amd64

package inject

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// stopped is a thread that is about to make a call.
type stopped struct {
	tid  int
	args [6]uint64
}

func (s stopped) proc(name string) string { return "/proc/" + strconv.Itoa(s.tid) + "/" + name }

// descriptor is the path of an open file, also of one without a name: the kernel gives such a one a number in its directory.
func (s stopped) descriptor(fd int32) string {
	name := "cwd"
	if fd != unix.AT_FDCWD {
		name = "fd/" + strconv.Itoa(int(fd))
	}
	path, err := os.Readlink(s.proc(name))
	if err != nil {
		return "" // no open file: the call is going to fail
	}
	return strings.TrimSuffix(path, " (deleted)")
}

// resolve finds what a place names. Symbolic links in paths are not followed; the programs that are tested make none but
// those of /proc.
func (s stopped) resolve(p place) string {
	dir := int32(unix.AT_FDCWD)
	if p.dir != none {
		dir = int32(s.args[p.dir])
	}
	if p.path == none || s.args[p.path] == 0 {
		return s.descriptor(dir)
	}
	name := s.text(s.args[p.path])
	if number, ok := strings.CutPrefix(name, "/proc/self/fd/"); ok {
		if n, err := strconv.Atoi(number); err == nil {
			return s.descriptor(int32(n))
		}
	}
	switch {
	case name == "":
		return s.descriptor(dir)
	case name[0] == '/':
		return filepath.Clean(name)
	}
	return filepath.Join(s.descriptor(dir), name)
}

const (
	pageSize = 4096
	maxPath  = 4096 // PATH_MAX
)

// text reads a string from the thread's memory, page by page: the one behind its end need not be there.
func (s stopped) text(at uint64) string {
	var text []byte
	for len(text) < maxPath {
		b := make([]byte, pageSize-at%pageSize)
		n := s.memory(at, b)
		if n == 0 {
			break
		}
		if end := bytes.IndexByte(b[:n], 0); end >= 0 {
			return string(append(text, b[:end]...))
		}
		text, at = append(text, b[:n]...), at+uint64(n)
	}
	return string(text)
}

// memory reads as much as there is and returns the number of bytes.
func (s stopped) memory(at uint64, b []byte) int {
	local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	remote := []unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}
	n, err := unix.ProcessVMReadv(s.tid, local, remote, 0)
	if err != nil {
		return 0
	}
	return n
}

// openFlags reads the flags of openat2, the first field of struct open_how.
func (s stopped) openFlags(at uint64) uint64 {
	var b [8]byte
	s.memory(at, b[:])
	flags := uint64(0)
	for i, v := range b {
		flags |= uint64(v) << (8 * i)
	}
	return flags
}
