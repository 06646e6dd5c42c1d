//go:build amd64

package inject

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Call is a changing system call.
type Call struct {
	Number int
	Name   string // "linkat"
	Path   string // of what it touches: of the first place below a root
	Detail string // what of several kinds it is, such as "O_CREAT"

	canCut bool // it has a length that Short can make less
}

// String is "12 linkat /path".
func (c Call) String() string {
	s := fmt.Sprintf("%d %s %s", c.Number, c.Name, c.Path)
	if c.Detail != "" {
		s += " (" + c.Detail + ")"
	}
	return s
}

// sameAs tells whether a call is another one's second try.
func (c Call) sameAs(o Call) bool {
	return c.Name == o.Name && c.Path == o.Path && c.Detail == o.Detail
}

// place is where a call's arguments say what it touches: the numbers of those that are a directory's descriptor and a path.
type place struct{ dir, path int }

// none is the number of an argument that there is not.
const none = -1

func fd(n int) place      { return place{n, none} }
func path(n int) place    { return place{none, n} }
func at(dir, p int) place { return place{dir, p} }

// shape is what the table knows of a call.
type shape struct {
	name   string
	places []place // empty: it touches everything
	// length is the argument that Short makes less, if it is not 0, in units of at least two.
	length int
	// counts tells of a call that changes something only with certain arguments whether it does, and what.
	counts func(args [6]uint64) (bool, string)
}

// calls are the system calls that change something, by number.
var calls = map[uint32]shape{
	unix.SYS_WRITE:           {name: "write", places: []place{fd(0)}, length: 2},
	unix.SYS_PWRITE64:        {name: "pwrite64", places: []place{fd(0)}, length: 2},
	unix.SYS_WRITEV:          {name: "writev", places: []place{fd(0)}, length: 2},
	unix.SYS_PWRITEV:         {name: "pwritev", places: []place{fd(0)}, length: 2},
	unix.SYS_PWRITEV2:        {name: "pwritev2", places: []place{fd(0)}, length: 2},
	unix.SYS_SENDFILE:        {name: "sendfile", places: []place{fd(0)}, length: 3},
	unix.SYS_SPLICE:          {name: "splice", places: []place{fd(2)}, length: 4},
	unix.SYS_COPY_FILE_RANGE: {name: "copy_file_range", places: []place{fd(2)}, length: 4},

	unix.SYS_FSYNC:           {name: "fsync", places: []place{fd(0)}},
	unix.SYS_FDATASYNC:       {name: "fdatasync", places: []place{fd(0)}},
	unix.SYS_SYNC_FILE_RANGE: {name: "sync_file_range", places: []place{fd(0)}},
	unix.SYS_SYNCFS:          {name: "syncfs", places: []place{fd(0)}},
	unix.SYS_SYNC:            {name: "sync"},

	unix.SYS_OPEN:    {name: "open", places: []place{path(0)}, counts: func(a [6]uint64) (bool, string) { return opens(a[1]) }},
	unix.SYS_OPENAT:  {name: "openat", places: []place{at(0, 1)}, counts: func(a [6]uint64) (bool, string) { return opens(a[2]) }},
	unix.SYS_OPENAT2: {name: "openat2", places: []place{at(0, 1)}, counts: func(a [6]uint64) (bool, string) { return opens(a[2]) }},
	unix.SYS_CREAT:   {name: "creat", places: []place{path(0)}},

	unix.SYS_MKDIR:     {name: "mkdir", places: []place{path(0)}},
	unix.SYS_MKDIRAT:   {name: "mkdirat", places: []place{at(0, 1)}},
	unix.SYS_MKNOD:     {name: "mknod", places: []place{path(0)}},
	unix.SYS_MKNODAT:   {name: "mknodat", places: []place{at(0, 1)}},
	unix.SYS_RENAME:    {name: "rename", places: []place{path(1), path(0)}},
	unix.SYS_RENAMEAT:  {name: "renameat", places: []place{at(2, 3), at(0, 1)}},
	unix.SYS_RENAMEAT2: {name: "renameat2", places: []place{at(2, 3), at(0, 1)}},
	unix.SYS_LINK:      {name: "link", places: []place{path(1)}},
	unix.SYS_LINKAT:    {name: "linkat", places: []place{at(2, 3)}},
	unix.SYS_SYMLINK:   {name: "symlink", places: []place{path(1)}},
	unix.SYS_SYMLINKAT: {name: "symlinkat", places: []place{at(1, 2)}},
	unix.SYS_UNLINK:    {name: "unlink", places: []place{path(0)}},
	unix.SYS_UNLINKAT:  {name: "unlinkat", places: []place{at(0, 1)}},
	unix.SYS_RMDIR:     {name: "rmdir", places: []place{path(0)}},

	unix.SYS_TRUNCATE:  {name: "truncate", places: []place{path(0)}},
	unix.SYS_FTRUNCATE: {name: "ftruncate", places: []place{fd(0)}},
	unix.SYS_FALLOCATE: {name: "fallocate", places: []place{fd(0)}},
	unix.SYS_IOCTL:     {name: "ioctl", places: []place{fd(0)}, counts: controls},
	unix.SYS_FLOCK:     {name: "flock", places: []place{fd(0)}, counts: func(a [6]uint64) (bool, string) { return true, lockName(a[1]) }},

	unix.SYS_CHMOD:     {name: "chmod", places: []place{path(0)}},
	unix.SYS_FCHMOD:    {name: "fchmod", places: []place{fd(0)}},
	unix.SYS_FCHMODAT:  {name: "fchmodat", places: []place{at(0, 1)}},
	unix.SYS_FCHMODAT2: {name: "fchmodat2", places: []place{at(0, 1)}},
	unix.SYS_CHOWN:     {name: "chown", places: []place{path(0)}},
	unix.SYS_LCHOWN:    {name: "lchown", places: []place{path(0)}},
	unix.SYS_FCHOWN:    {name: "fchown", places: []place{fd(0)}},
	unix.SYS_FCHOWNAT:  {name: "fchownat", places: []place{at(0, 1)}},
	unix.SYS_UTIME:     {name: "utime", places: []place{path(0)}},
	unix.SYS_UTIMES:    {name: "utimes", places: []place{path(0)}},
	unix.SYS_FUTIMESAT: {name: "futimesat", places: []place{at(0, 1)}},
	unix.SYS_UTIMENSAT: {name: "utimensat", places: []place{at(0, 1)}},

	unix.SYS_SETXATTR:      {name: "setxattr", places: []place{path(0)}},
	unix.SYS_LSETXATTR:     {name: "lsetxattr", places: []place{path(0)}},
	unix.SYS_FSETXATTR:     {name: "fsetxattr", places: []place{fd(0)}},
	unix.SYS_SETXATTRAT:    {name: "setxattrat", places: []place{at(0, 1)}},
	unix.SYS_REMOVEXATTR:   {name: "removexattr", places: []place{path(0)}},
	unix.SYS_LREMOVEXATTR:  {name: "lremovexattr", places: []place{path(0)}},
	unix.SYS_FREMOVEXATTR:  {name: "fremovexattr", places: []place{fd(0)}},
	unix.SYS_REMOVEXATTRAT: {name: "removexattrat", places: []place{at(0, 1)}},

	unix.SYS_MOUNT:         {name: "mount", places: []place{path(1)}},
	unix.SYS_UMOUNT2:       {name: "umount2", places: []place{path(0)}},
	unix.SYS_MOVE_MOUNT:    {name: "move_mount", places: []place{at(2, 3)}},
	unix.SYS_MOUNT_SETATTR: {name: "mount_setattr", places: []place{at(0, 1)}},
	unix.SYS_FSMOUNT:       {name: "fsmount"},
	unix.SYS_FSCONFIG:      {name: "fsconfig"},
}

// numbers are the table's, in order.
func numbers() []uint32 { return slices.Sorted(maps.Keys(calls)) }

const (
	writing = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC
	tmpfile = unix.O_TMPFILE &^ unix.O_DIRECTORY // O_TMPFILE is two bits
)

func opens(flags uint64) (bool, string) {
	switch {
	case flags&tmpfile != 0:
		return true, "O_TMPFILE"
	case flags&unix.O_CREAT != 0:
		return true, "O_CREAT"
	case flags&unix.O_TRUNC != 0:
		return true, "O_TRUNC"
	}
	return flags&writing != 0, "for writing"
}

// controls knows the requests that change files; all others are questions, or to terminals.
func controls(a [6]uint64) (bool, string) {
	switch a[1] {
	case unix.FICLONE:
		return true, "FICLONE"
	case unix.FICLONERANGE:
		return true, "FICLONERANGE"
	case unix.FIDEDUPERANGE:
		return true, "FIDEDUPERANGE"
	case unix.FS_IOC_ENABLE_VERITY:
		return true, "FS_IOC_ENABLE_VERITY"
	case unix.FS_IOC_SETFLAGS:
		return true, "FS_IOC_SETFLAGS"
	}
	return false, ""
}

func lockName(how uint64) string {
	names := map[uint64]string{unix.LOCK_SH: "LOCK_SH", unix.LOCK_EX: "LOCK_EX", unix.LOCK_UN: "LOCK_UN"}
	return names[how&^unix.LOCK_NB]
}

// below tells whether a path is one of the roots or in one.
func below(path string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		rest, ok := strings.CutPrefix(path, root)
		return ok && (rest == "" || rest[0] == '/')
	})
}
