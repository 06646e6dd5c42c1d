package mounts

import (
	"bytes"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// withFile does something with a file that is open for reading.
func withFile(name, path string, f func(g ground, fd int) string) call {
	return call{name, "", func(g ground) string {
		fd, err := unix.Open(g.at(path), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "open: " + came(err)
		}
		defer unix.Close(fd)
		return f(g, fd)
	}}
}

// part tells of bytes that were read from an offset of the ground's file.
func part(b []byte, off int, err error) string {
	right := off <= len(groundData) && bytes.HasPrefix(groundData[off:], b) || len(b) == 0
	return describe(err, "%d bytes, right %t", len(b), right)
}

func readCalls() (list []call) {
	size := len(groundData)
	for _, off := range []int{0, 1, 4095, 4096, 65537, 131072, size - 4096, size - 1, size, size + 1, size + 1<<20, 1 << 40} {
		for _, n := range []int{0, 1, 4096, 200_000} {
			list = append(list, withFile(fmt.Sprintf("read: pread of %d at %d", n, off), "file", func(_ ground, fd int) string {
				b := make([]byte, n)
				k, err := unix.Pread(fd, b, int64(off))
				return part(b[:max(k, 0)], off, err)
			}))
		}
	}
	pread := func(path string, off int64) func(ground, int) string {
		return func(_ ground, fd int) string {
			n, err := unix.Pread(fd, make([]byte, 100), off)
			return describe(err, "%d", n)
		}
	}
	return append(append(list, seekCalls()...),
		withFile("read: pread at a negative offset", "file", pread("file", -1)),
		withFile("read: pread at the largest offset", "file", pread("file", 1<<63-1)),
		withFile("read: pread of an inline file", "inline", pread("inline", 2)),
		withFile("read: pread of an inline file at its end", "inline", pread("inline", 5)),
		withFile("read: pread of an empty file", "nothing", pread("nothing", 0)),
		withFile("read: readv", "file", readVector),
		withFile("read: preadv2 that must not wait, once read", "file", func(_ ground, fd int) string {
			b := make([]byte, 4096)
			unix.Pread(fd, b, 0)
			n, err := unix.Preadv2(fd, [][]byte{b}, 0, unix.RWF_NOWAIT)
			return part(b[:max(n, 0)], 0, err)
		}),
		withFile("read: to where nothing is mapped", "file", func(_ ground, fd int) string {
			_, _, errno := unix.Syscall(unix.SYS_READ, uintptr(fd), 8, 4096)
			return unix.ErrnoName(errno)
		}),
		withFile("read: readahead", "file", func(_ ground, fd int) string {
			_, _, errno := unix.Syscall(unix.SYS_READAHEAD, uintptr(fd), 0, 1<<20)
			return fmt.Sprint(errno == 0)
		}),
		withFile("read: posix_fadvise", "file", func(_ ground, fd int) string { return came(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)) }),
		call{"read: a directory", "", func(g ground) string { _, err := os.ReadFile(g.at("dir")); return came(err) }},
		call{"read: a device", "", func(g ground) string { b, err := os.ReadFile(g.at("null")); return describe(err, "%d", len(b)) }},
		call{"read: O_DIRECT", "", readDirect},
	)
}

func readVector(_ ground, fd int) string {
	parts := [][]byte{make([]byte, 3), make([]byte, 5000), make([]byte, 1<<20)}
	n, err := unix.Readv(fd, parts)
	all := slices.Concat(parts...)
	return part(all[:max(n, 0)], 0, err)
}

func readDirect(g ground) string {
	fd, err := unix.Open(g.at("file"), unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return "open: " + came(err)
	}
	defer unix.Close(fd)
	b, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON) // aligned
	if err != nil {
		return came(err)
	}
	defer unix.Munmap(b)
	n, err := unix.Pread(fd, b, 4096)
	return part(b[:max(n, 0)], 4096, err)
}

// seekCalls ask where data is, and move in the file.
func seekCalls() (list []call) {
	for _, off := range []int64{-1, 0, 5000, 100_000, int64(len(holeData)) - 1, int64(len(holeData))} {
		for name, whence := range map[string]int{"SEEK_DATA": unix.SEEK_DATA, "SEEK_HOLE": unix.SEEK_HOLE} {
			for _, path := range []string{"hole", "file", "inline"} {
				list = append(list, withFile(fmt.Sprintf("seek: %s from %d of %s", name, off, path), path, func(_ ground, fd int) string {
					at, err := unix.Seek(fd, off, whence)
					return describe(err, "%d", at)
				}))
			}
		}
	}
	return append(list,
		withFile("seek: read behind the end", "file", func(_ ground, fd int) string {
			at, err := unix.Seek(fd, 10, unix.SEEK_END)
			if err != nil || at != int64(len(groundData))+10 {
				return describe(err, "%d", at)
			}
			n, err := unix.Read(fd, make([]byte, 10))
			return describe(err, "%d", n)
		}),
		withFile("seek: before the beginning", "file", func(_ ground, fd int) string { _, err := unix.Seek(fd, -1, unix.SEEK_SET); return came(err) }),
		withFile("seek: unknown whence", "file", func(_ ground, fd int) string { _, err := unix.Seek(fd, 0, 99); return came(err) }),
	)
}

// mapCalls map files into memory.
func mapCalls() []call {
	mapped := func(name string, prot, flags int, check func(b []byte) string) call {
		return withFile("mmap: "+name, "file", func(_ ground, fd int) string {
			b, err := unix.Mmap(fd, 0, len(groundData), prot, flags)
			if err != nil {
				return came(err)
			}
			defer unix.Munmap(b)
			return check(b)
		})
	}
	same := func(b []byte) string { return fmt.Sprintf("right %t", bytes.Equal(b, groundData)) }
	// What is behind the end in the last page is zero.
	const rw = unix.PROT_READ | unix.PROT_WRITE
	return []call{
		mapped("shared for reading", unix.PROT_READ, unix.MAP_SHARED, same),
		mapped("shared and populated", unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE, same),
		mapped("private for reading", unix.PROT_READ, unix.MAP_PRIVATE, same),
		mapped("executable", unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE, same),
		mapped("private for writing", rw, unix.MAP_PRIVATE, func(b []byte) string {
			b[0]++
			return fmt.Sprintf("changed %t, the rest %s", b[0] == groundData[0]+1, same(append([]byte{groundData[0]}, b[1:]...)))
		}),
		mapped("shared for writing", rw, unix.MAP_SHARED, same),
		mapped("made writable later", unix.PROT_READ, unix.MAP_SHARED, func(b []byte) string { return came(unix.Mprotect(b, rw)) }),
		mapped("advised and synced", unix.PROT_READ, unix.MAP_SHARED, func(b []byte) string {
			return came(unix.Madvise(b, unix.MADV_DONTNEED)) + came(unix.Msync(b, unix.MS_SYNC)) + same(b)
		}),
		mapped("locked", unix.PROT_READ, unix.MAP_SHARED, func(b []byte) string { return came(unix.Mlock(b)) }),
		mapped("tail is zero", unix.PROT_READ, unix.MAP_SHARED, func(b []byte) string {
			whole := b[:cap(b)]
			if page := (len(b) + 4095) &^ 4095; cap(b) >= page {
				whole = b[:page]
			}
			return fmt.Sprint(len(bytes.Trim(whole[len(b):], "\x00")))
		}),
		withFile("mmap: empty file", "nothing", func(_ ground, fd int) string {
			b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
			if err == nil {
				unix.Munmap(b)
			}
			return came(err)
		}),
		withFile("mmap: directory", "dir", func(_ ground, fd int) string {
			b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
			if err == nil {
				unix.Munmap(b)
			}
			return came(err)
		}),
		withFile("mmap: shared while it is read", "dir/file", func(_ ground, fd int) string {
			b, err := unix.Mmap(fd, 0, 5000, unix.PROT_READ, unix.MAP_SHARED)
			if err != nil {
				return came(err)
			}
			defer unix.Munmap(b)
			c := make([]byte, 5000)
			n, err := unix.Read(fd, c)
			return describe(err, "%d %t", n, bytes.Equal(b, c) && bytes.Equal(c, groundData[:5000]))
		}),
	}
}

// copyCalls have the kernel copy.
func copyCalls() []call {
	into := func(name string, f func(out *os.File, fd int) (int, error)) call {
		return withFile("copy: "+name, "file", func(g ground, fd int) string {
			out, err := os.CreateTemp(g.tmp, "copy")
			if err != nil {
				return came(err)
			}
			defer out.Close()
			n, err := f(out, fd)
			b, rerr := os.ReadFile(out.Name())
			if rerr != nil {
				return came(rerr)
			}
			return fmt.Sprint(n, " ", part(b, 0, err))
		})
	}
	return []call{
		into("sendfile", func(out *os.File, fd int) (int, error) { return unix.Sendfile(int(out.Fd()), fd, nil, 1<<20) }),
		into("sendfile from an offset of nothing", func(out *os.File, fd int) (int, error) {
			off := int64(len(groundData))
			return unix.Sendfile(int(out.Fd()), fd, &off, 100)
		}),
		into("copy_file_range", func(out *os.File, fd int) (int, error) {
			return unix.CopyFileRange(fd, nil, int(out.Fd()), nil, 1<<20, 0)
		}),
		into("clone", func(out *os.File, fd int) (int, error) { return 0, unix.IoctlFileClone(int(out.Fd()), fd) }),
		into("splice through a pipe", spliceAll),
		withFile("copy: copy_file_range into it", "file", func(_ ground, fd int) string {
			var off int64 = 10
			_, err := unix.CopyFileRange(fd, nil, fd, &off, 10, 0)
			return came(err)
		}),
	}
}

func spliceAll(out *os.File, fd int) (total int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	for {
		n, err := unix.Splice(fd, nil, p[1], nil, 30_000, 0)
		if err != nil || n == 0 {
			return total, err
		}
		for n > 0 {
			k, err := unix.Splice(p[0], nil, int(out.Fd()), nil, int(n), 0)
			if err != nil {
				return total, err
			}
			n -= k
			total += int(k)
		}
	}
}
