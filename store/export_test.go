package store

import (
	"io"
	"os"

	"github.com/flatroot/flatroot/fsverity"
	"golang.org/x/sys/unix"
)

// Kernel stands in for the kernel's fs-verity.
type Kernel interface {
	Enable(*os.File, fsverity.Algorithm) error
	Measure(*os.File) (fsverity.Digest, error)
}

func InitWith(path string, o InitOptions, k Kernel) error {
	return initWith(path, o, verityOps{k.Enable, k.Measure})
}

func OpenWith(path string, o OpenOptions, k Kernel) (*Store, error) {
	return open(path, o, verityOps{k.Enable, k.Measure})
}

// Pretend makes s believe that the file system or the caller can do less.
func (s *Store) Pretend(noTmpfile, noEmptyPath bool) {
	s.files.noTmpfile.Store(noTmpfile)
	s.files.noEmptyPath.Store(noEmptyPath)
}

func EncodeMeta(a fsverity.Algorithm) []byte { return encodeMeta(a) }

// ParseMeta returns what can be seen of a parsed meta.json.
func ParseMeta(b []byte) (a fsverity.Algorithm, formats []int, readOnly, writable error, err error) {
	m, err := parseMeta(b)
	return m.algorithm, m.formats, m.checkFeatures(true), m.checkFeatures(false), err
}

func ParseEntry(text string, a fsverity.Algorithm) (fsverity.Digest, error) {
	return parseEntry(text, a)
}

func IsUUID(s string) bool { return isUUID(s) }

func ReadBootID(path string) (string, error) { return readBootID(path) }

func (s *Store) UncleanMarks() ([]string, error) { return s.uncleanMarks() }

func Lockers(r io.Reader, major, minor uint32, inode uint64, self int) []int {
	return lockers(r, unix.Mkdev(major, minor), inode, self)
}

func DescribeProcess(pid int, command []byte) string { return describe(pid, command) }
