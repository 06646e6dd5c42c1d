//go:build amd64

package inject

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// actVariable makes the test program one of the small programs that are traced.
const actVariable = "FLATROOT_INJECT_ACT"

func TestMain(m *testing.M) {
	if act := os.Getenv(actVariable); act != "" {
		if err := acts[act](os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// acts are the programs. Each gets a directory, in which root/ counts and other/ doesn't.
var acts = map[string]func(dir string) error{
	"all":      actAll,
	"dirs":     actDirs,
	"threads":  actThreads,
	"retry":    actRetry,
	"write":    actWrite,
	"tmpfile":  actTmpfile,
	"uring":    actUring,
	"sleep":    actSleep,
	"signals":  actSignals,
	"children": actChildren,
}

// step is one call of actAll and the line that the log has to have of it; "": none.
type step struct {
	want string
	do   func() error
}

// actAll makes calls of all kinds. What comes of them is no matter, for most.
func actAll(dir string) error {
	if err := os.Chdir(filepath.Join(dir, "root")); err != nil {
		return err
	}
	for _, s := range steps(dir) {
		if err := s.do(); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("%s: %w", s.want, err)
		}
	}
	return nil
}

func steps(dir string) []step {
	root, other := filepath.Join(dir, "root"), filepath.Join(dir, "other")
	var f, g, d, read int
	var err error
	open := func(to *int, path string, flags int) func() error {
		return func() error {
			*to, err = unix.Open(path, flags, 0o644)
			return err
		}
	}
	return append([]step{
		{"openat a (O_CREAT)", open(&f, "a", unix.O_CREAT|unix.O_RDWR)},
		{"openat b (O_TRUNC)", open(&g, root+"/b", unix.O_TRUNC|unix.O_WRONLY)},
		{"", open(&read, "b", unix.O_RDONLY)},
		{"openat b (for writing)", open(&g, "b", unix.O_RDWR)},
		{"", open(&d, ".", unix.O_RDONLY|unix.O_DIRECTORY)},
		{"", func() error { return os.WriteFile(other+"/x", []byte("elsewhere"), 0o644) }},
		{"", func() error { _, err := os.Stdout.WriteString("hello\n"); return err }},
		{"openat2 c (O_CREAT)", func() error {
			_, err := unix.Openat2(d, "c", &unix.OpenHow{Flags: unix.O_CREAT | unix.O_RDWR, Mode: 0o600})
			return err
		}},
		{"", func() error { _, err := unix.Openat2(d, "c", &unix.OpenHow{}); return err }},
		{"write a", func() error { _, err := unix.Write(f, []byte("one")); return err }},
		{"pwrite64 a", func() error { _, err := unix.Pwrite(f, []byte("two"), 3); return err }},
		{"writev a", func() error { _, err := unix.Writev(f, [][]byte{[]byte("a"), []byte("b")}); return err }},
		{"pwritev a", func() error { _, err := unix.Pwritev(f, [][]byte{[]byte("a"), []byte("b")}, 9); return err }},
		{"pwritev2 a", func() error { _, err := unix.Pwritev2(f, [][]byte{[]byte("a")}, 9, 0); return err }},
		{"copy_file_range b", func() error {
			_, err := unix.CopyFileRange(f, new(int64), g, new(int64), 4, 0)
			return err
		}},
		{"sendfile b", func() error { _, err := unix.Sendfile(g, f, new(int64), 4); return err }},
		{"splice b", func() error { return splice(g) }},
		{"fsync a", func() error { return unix.Fsync(f) }},
		{"fdatasync a", func() error { return unix.Fdatasync(f) }},
		{"sync_file_range a", func() error { return unix.SyncFileRange(f, 0, 0, unix.SYNC_FILE_RANGE_WRITE) }},
		{"syncfs .", func() error { return unix.Syncfs(d) }},
		{"ftruncate a", func() error { return unix.Ftruncate(f, 5) }},
		{"truncate a", func() error { return unix.Truncate("a", 4) }},
		{"fallocate a", func() error { return unix.Fallocate(f, 0, 0, 10) }},
		{"ioctl b (FICLONE)", func() error { return unix.IoctlFileClone(g, f) }},
		{"", func() error { _, _ = unix.IoctlGetInt(f, unix.FS_IOC_GETFLAGS); return nil }},
		{"flock . (LOCK_SH)", func() error { return unix.Flock(d, unix.LOCK_SH) }},
		{"flock . (LOCK_EX)", func() error { return unix.Flock(d, unix.LOCK_EX|unix.LOCK_NB) }},
		{"flock . (LOCK_UN)", func() error { return unix.Flock(d, unix.LOCK_UN) }},
	}, nameSteps(root, other, &d, &f)...)
}

// nameSteps are the calls on names and attributes.
func nameSteps(root, other string, d, f *int) []step {
	return []step{
		{"mkdirat dir", func() error { return unix.Mkdirat(*d, "dir", 0o755) }},
		{"mkdirat dir/sub", func() error { return os.Mkdir("dir/sub", 0o755) }},
		{"mknodat pipe", func() error { return unix.Mknod("pipe", unix.S_IFIFO|0o644, 0) }},
		{"symlinkat link", func() error { return unix.Symlinkat("/nowhere", *d, "link") }},
		{"linkat dir/a", func() error { return unix.Linkat(*d, "a", *d, "dir/a", 0) }},
		{"", func() error { return unix.Linkat(*d, "a", unix.AT_FDCWD, other+"/a", 0) }},
		{"renameat dir/b", func() error { return unix.Rename("dir/a", "dir/b") }},
		{"renameat dir/b", func() error { return unix.Rename("dir/b", other+"/b") }},
		{"renameat2 dir/x", func() error { return unix.Renameat2(*d, "../other/x", *d, "dir/x", unix.RENAME_NOREPLACE) }},
		{"fchmod a", func() error { return unix.Fchmod(*f, 0o600) }},
		{"fchmodat dir", func() error { return unix.Fchmodat(*d, "dir", 0o700, 0) }},
		{"fchmodat a", func() error { return os.Chmod("/proc/self/fd/"+strconv.Itoa(*f), 0o600) }},
		{"fchownat a", func() error { return os.Chown("a", os.Getuid(), os.Getgid()) }},
		{"lchown a", func() error { return unix.Lchown("a", os.Getuid(), os.Getgid()) }},
		{"fchown a", func() error { return unix.Fchown(*f, os.Getuid(), os.Getgid()) }},
		{"utimensat a", func() error { return os.Chtimes("a", time.Now(), time.Now()) }},
		{"setxattr a", func() error { return unix.Setxattr("a", "user.x", []byte("1"), 0) }},
		{"fsetxattr a", func() error { return unix.Fsetxattr(*f, "user.x", []byte("2"), 0) }},
		{"lremovexattr a", func() error { return unix.Lremovexattr(root+"/a", "user.x") }},
		{"unlinkat pipe", func() error { return unix.Unlink("pipe") }},
		{"unlinkat dir/sub", func() error { return unix.Unlinkat(*d, "dir/sub", unix.AT_REMOVEDIR) }},
		{"", func() error { return os.Remove(other + "/a") }},
		{"openat . (O_TMPFILE)", func() (err error) { *f, err = unix.Open(".", unix.O_TMPFILE|unix.O_RDWR, 0o644); return err }},
		{"write #", func() error { _, err := unix.Write(*f, []byte("unnamed")); return err }},
		{"linkat named", func() error {
			return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(*f), *d, "named", unix.AT_SYMLINK_FOLLOW)
		}},
		{"unlinkat named", func() error { return unix.Unlinkat(*d, "named", 0) }},
		{"write #", func() error { _, err := unix.Write(*f, []byte("deleted")); return err }},
		{"sync ", func() error { unix.Sync(); return nil }},
	}
}

// splice puts four bytes of a pipe into a file.
func splice(to int) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	if _, err := unix.Write(p[1], []byte("pipe")); err != nil {
		return err
	}
	_, err := unix.Splice(p[0], nil, to, new(int64), 4, 0)
	return err
}

// numDirs is how many calls actDirs makes.
const numDirs = 20

// actDirs makes directories one after another, and says which ones could not be made.
func actDirs(dir string) error {
	for i := range numDirs {
		err := os.Mkdir(dirName(dir, "d", i), 0o755)
		if err != nil {
			fmt.Println(i, err)
		}
	}
	return nil
}

func dirName(dir, prefix string, i int) string {
	return filepath.Join(dir, "root", fmt.Sprintf("%s%02d", prefix, i))
}

const (
	numThreads  = 8
	numChildren = 2
)

// actThreads makes numDirs directories in each of its threads and in each of its children.
func actThreads(dir string) error {
	var wg sync.WaitGroup
	errs := make(chan error, numThreads+numChildren)
	for i := range numThreads {
		wg.Go(func() {
			runtime.LockOSThread()
			for n := range numDirs {
				errs2 := os.Mkdir(dirName(dir, fmt.Sprintf("t%d-", i), n), 0o755)
				if errs2 != nil {
					errs <- errs2
					return
				}
			}
		})
	}
	for i := range numChildren {
		wg.Go(func() {
			c := exec.Command("/proc/self/exe", dir, strconv.Itoa(i))
			c.Env = append(os.Environ(), actVariable+"=children")
			if err := c.Run(); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	return errors.Join(<-errs)
}

// actChildren is a child of actThreads.
func actChildren(dir string) error {
	for n := range numDirs {
		if err := os.Mkdir(dirName(dir, "c"+os.Args[2]+"-", n), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// actRetry makes two directories, trying again after EINTR, and says how often that was.
func actRetry(dir string) error {
	for i := range 2 {
		tries := 0
		for unix.Mkdir(dirName(dir, "d", i), 0o755) == unix.EINTR {
			tries++
		}
		fmt.Println(tries)
	}
	return nil
}

// actWrite writes 1000 bytes with one call, twice, then 1 byte, and says how much each call wrote.
func actWrite(dir string) error {
	f, err := os.Create(filepath.Join(dir, "root", "f"))
	if err != nil {
		return err
	}
	for _, n := range []int{1000, 1000, 1} {
		got, err := unix.Write(int(f.Fd()), []byte(strings.Repeat("x", n)))
		if err != nil {
			return err
		}
		fmt.Println(got)
	}
	return f.Close()
}

func actTmpfile(dir string) error {
	_, err := unix.Open(filepath.Join(dir, "root"), unix.O_TMPFILE|unix.O_RDWR, 0o644)
	fmt.Println(err)
	return os.Mkdir(filepath.Join(dir, "root", "d"), 0o755)
}

func actUring(string) error {
	_, _, err := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
	fmt.Println(err)
	return nil
}

// actSleep waits for ever, and so does its child, whose number it says.
func actSleep(dir string) error {
	if len(os.Args) == 2 {
		c := exec.Command("/proc/self/exe", dir, "child")
		if err := c.Start(); err != nil {
			return err
		}
		fmt.Println(c.Process.Pid)
	}
	time.Sleep(time.Hour)
	return nil
}

// actSignals gets one that it takes, then one that ends it.
func actSignals(string) error {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGUSR1)
	if err := unix.Kill(os.Getpid(), unix.SIGUSR1); err != nil {
		return err
	}
	fmt.Println(<-c)
	if err := unix.Kill(os.Getpid(), unix.SIGKILL); err != nil {
		return err
	}
	time.Sleep(time.Hour)
	return nil
}
