package mounts

import (
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// user is who tries a call.
type user struct {
	name     string
	uid, gid uint32
	groups   []uint32
}

// users are those that permissions are tried with, besides the superuser.
var users = []user{
	{"alice", alice, 100, []uint32{staff}},
	{"bob", bob, helpers, nil},
	{"carol", 1002, 100, []uint32{staff, helpers}},
	{"nobody", 65534, 65534, nil},
}

// as does something with a user's rights and nothing more, in a thread that ends with it.
func (u user) as(f func()) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked
		if err = u.become(); err == nil {
			f()
		}
	}()
	<-done
	return err
}

// become changes the thread; package syscall's functions would change all of them.
func (u user) become() error {
	groups := append([]uint32{}, u.groups...)
	var list uintptr
	if len(groups) > 0 {
		list = uintptr(unsafe.Pointer(&groups[0]))
	}
	for _, c := range [][4]uintptr{
		{unix.SYS_SETGROUPS, uintptr(len(groups)), list, 0},
		{unix.SYS_SETRESGID, uintptr(u.gid), uintptr(u.gid), uintptr(u.gid)},
		{unix.SYS_SETRESUID, uintptr(u.uid), uintptr(u.uid), uintptr(u.uid)},
	} {
		if _, _, errno := unix.RawSyscall(c[0], c[1], c[2], c[3]); errno != 0 {
			return fmt.Errorf("become %s: %w", u.name, errno)
		}
	}
	runtime.KeepAlive(groups)
	return nil
}

// userCalls try what permissions forbid and allow.
func userCalls() (list []call) {
	paths := []string{"file", "dir", "bin/plain", "bin/none", "xattrs", "xattrs-private", "xattrs.d", "null", "fifo"}
	for _, perm := range groundPerms {
		for _, who := range groundOwners {
			name := fmt.Sprintf("owned/%04o-%d-%d", perm, who[0], who[1])
			paths = append(paths, name, name+".d", name+".d/file")
		}
	}
	for name := range groundACLs() {
		paths = append(paths, "acl/"+name, "acl/"+name+".d", "acl/"+name+".d/file")
	}
	for _, u := range users {
		for _, path := range paths {
			by := func(name string, f func(path string) string) call {
				return call{fmt.Sprintf("%s: %s of %s", name, path, u.name), "", func(g ground) (text string) {
					if err := u.as(func() { text = f(g.at(path)) }); err != nil {
						return came(err)
					}
					return text
				}}
			}
			list = append(list, by("rights", rights), by("names", namesOf))
		}
	}
	return list
}

// rights tries all that a user may do with a path.
func rights(path string) string {
	var b strings.Builder
	add := func(name string, err error) { fmt.Fprintf(&b, "%s=%s ", name, came(err)) }
	add("stat", unix.Lstat(path, new(unix.Stat_t)))
	add("read", readable(path))
	add("write", open(path, unix.O_WRONLY|unix.O_NONBLOCK))
	add("noatime", open(path, unix.O_RDONLY|unix.O_NOATIME|unix.O_NONBLOCK))
	add("enter", searchable(path))
	for name, mode := range map[string]uint32{"F": unix.F_OK, "R": unix.R_OK, "W": unix.W_OK, "X": unix.X_OK, "RX": unix.R_OK | unix.X_OK} {
		add(name, unix.Faccessat(unix.AT_FDCWD, path, mode, 0))
		add("e"+name, unix.Faccessat(unix.AT_FDCWD, path, mode, unix.AT_EACCESS))
	}
	value := make([]byte, 8192)
	for _, name := range []string{"user.colour", "trusted.mine", "security.mine", "security.capability", aclAccess} {
		_, err := unix.Lgetxattr(path, name, value)
		add(name, err)
	}
	add("chmod", unix.Chmod(path, 0o777))
	add("utimes", unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{}, {}}, 0))
	add("setxattr", unix.Setxattr(path, "user.new", []byte("v"), 0))
	names := strings.Fields(b.String())
	slices.Sort(names)
	return strings.Join(names, " ")
}

// readable opens and reads a file, or lists a directory.
func readable(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b := make([]byte, 4096)
	if _, err = unix.Read(fd, b); err == unix.EISDIR {
		_, err = unix.Getdents(fd, b)
	}
	return err
}

// searchable looks up a name in a directory, without changing the process's.
func searchable(path string) error { return unix.Stat(path+"/file", new(unix.Stat_t)) }

// runCalls execute the ground's programs.
func runCalls() (list []call) {
	for _, u := range append([]user{{"root", 0, 0, nil}}, users[1]) {
		for _, program := range []string{"plain", "setuid", "setgid", "capable", "none", "script"} {
			list = append(list, call{fmt.Sprintf("run: %s by %s", program, u.name), "", func(g ground) string {
				return u.run(g.at("bin/" + program))
			}})
		}
	}
	return append(list, call{"run: a directory", "", func(g ground) string { return came(exec.Command(g.at("dir")).Run()) }})
}

// run has a program of the ground print with which rights it runs; all of them are cat(1).
func (u user) run(path string) string {
	cmd := exec.Command(path, "/proc/self/status")
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.uid, Gid: u.gid, Groups: u.groups}}
	out, err := cmd.Output()
	var rights []string
	for line := range strings.Lines(string(out)) {
		for _, field := range []string{"Uid:", "Gid:", "CapPrm:", "CapEff:"} {
			if strings.HasPrefix(line, field) {
				rights = append(rights, strings.Join(strings.Fields(line), " "))
			}
		}
	}
	return describe(err, "%s", strings.Join(rights, "; "))
}
