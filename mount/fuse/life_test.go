package fuse_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse"
	"github.com/flatroot/flatroot/mount/fuse/fusetest"
	"github.com/flatroot/flatroot/mount/fuse/wire"
)

// filesText is the dump of a tree with directories, files and symlinks, and the content of its backed files.
func filesText(dirs, files int) (text string, content []byte) {
	content = bytes.Repeat([]byte("content\n"), 20)
	d := fsverity.Sum(fsverity.SHA256, content)
	var b strings.Builder
	b.WriteString("/ 0 40755 2 0 0 0 0.0 - - -\n")
	for k := range dirs {
		fmt.Fprintf(&b, "/d%d 0 40755 2 0 0 0 0.0 - - -\n", k)
		for f := range files {
			fmt.Fprintf(&b, "/d%d/f%d %d 100644 1 0 0 0 0.0 %s - %v\n", k, f, len(content), d.ObjectPath(), d)
		}
		fmt.Fprintf(&b, "/d%d/link 2 120777 1 0 0 0 0.0 f0 - -\n", k)
	}
	return b.String(), content
}

// walk does what find -ls does, without package os.
func walk(t testing.TB, dir string) (entries int) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		must(t, err)
		entries++
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		if d.Type()&os.ModeSymlink != 0 {
			_, err = os.Readlink(path)
		}
		return err
	}))
	return entries
}

// readAll reads the backed files of filesText.
func readAll(t testing.TB, dir string, dirs, files int, want []byte) {
	t.Helper()
	for k := range dirs {
		for f := range files {
			path := fmt.Sprintf("%s/d%d/f%d", dir, k, f)
			if got, err := fusetest.ReadFile(path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes, %v", path, len(got), err)
				return
			}
		}
	}
}

// The requests that reach the server are few, and for what was done before there are none.
func TestRequestCounts(t *testing.T) {
	fusetest.NeedMounts(t)
	const dirs, files = 20, 30
	text, content := filesText(dirs, files)
	r := newRepo(t, text, content)
	var counts fusetest.Counts
	s := fusetest.Mount(t, r.serving(t, mount.ViewPlain), fuse.Options{Count: counts.Add})
	check := func(step string, most map[wire.Opcode]int) {
		t.Helper()
		for o, n := range counts.Take() {
			if n > most[o] {
				t.Errorf("%s: %d requests %v, at most %d were expected", step, n, o, most[o])
			}
		}
	}
	if n := walk(t, s.Dir); n != 1+dirs*(files+2) {
		t.Errorf("%d entries", n)
	}
	// The root itself comes by GETATTR; nothing is listed that could give its attributes.
	check("first walk", map[wire.Opcode]int{wire.OpReaddirplus: 2 * (dirs + 1), wire.OpReadlink: dirs, wire.OpOpendir: 1, wire.OpGetattr: 1})
	idle(t, &counts, func() { walk(t, s.Dir) })
	readAll(t, s.Dir, dirs, files, content)
	check("reading", map[wire.Opcode]int{wire.OpOpen: 1, wire.OpRead: dirs * files, wire.OpFlush: 1})
	idle(t, &counts, func() { readAll(t, s.Dir, dirs, files, content) })
	for range 2 {
		var st unix.Stat_t
		if err := unix.Lstat(s.Dir+"/d0/none", &st); err != unix.ENOENT {
			t.Errorf("a name that is not there: %v", err)
		}
	}
	check("a missing name", map[wire.Opcode]int{wire.OpLookup: 1})
}

// With overlayfs above, whose files' data never comes here, regular files cost GETXATTRs.
func TestRequestCountsHybrid(t *testing.T) {
	fusetest.NeedMounts(t)
	const dirs, files = 5, 10
	text, content := filesText(dirs, files)
	r := newRepo(t, text, content)
	var counts fusetest.Counts
	lower := fusetest.Mount(t, r.serving(t, mount.ViewOverlay), fuse.Options{Count: counts.Add})
	dir := overlayOn(t, lower.Dir, r.objects, mount.ViewOverlay)
	counts.Take()
	walk(t, dir)
	got := counts.Take()
	if got[wire.OpLookup] > 0 || got[wire.OpReaddirplus] > 2*(dirs+1) || got[wire.OpReadlink] > dirs {
		t.Errorf("first walk: %v", got)
	}
	// metacopy once, redirect for its size and its value; and some for each directory.
	if most := 3*dirs*files + 10*(dirs+1); got[wire.OpGetxattr] > most {
		t.Errorf("first walk: %d GETXATTR, at most %d were expected", got[wire.OpGetxattr], most)
	}
	readAll(t, dir, dirs, files, content)
	idle(t, &counts, func() {
		walk(t, dir)
		readAll(t, dir, dirs, files, content)
	})
}

// idle checks that something that was done before needs no requests. A machine short of memory may have dropped pages since,
// so it may try a few times.
func idle(t testing.TB, counts *fusetest.Counts, again func()) {
	t.Helper()
	var got map[wire.Opcode]int
	for range 5 {
		again()
		if got = counts.Take(); len(got) == 0 {
			return
		}
	}
	t.Errorf("requests each time: %v", got)
}

// An image that is cut short while it is mounted gives errors, and the server goes on.
func TestTruncatedImage(t *testing.T) {
	fusetest.NeedMounts(t)
	text, _ := filesText(200, 20)
	r := newRepo(t, text)
	s := fusetest.Mount(t, r.serving(t, mount.ViewPlain), fuse.Options{})
	whole, err := os.ReadFile(r.image)
	must(t, err)
	must(t, os.Truncate(r.image, 4096))
	var st unix.Stat_t
	if err := unix.Lstat(s.Dir+"/d150", &st); err != unix.EIO {
		t.Errorf("after truncation: %v, want EIO", err)
	}
	if _, err := os.ReadDir(s.Dir); !errors.Is(err, unix.EIO) {
		t.Errorf("listing after truncation: %v, want EIO", err)
	}
	f, err := os.OpenFile(r.image, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	_, err = f.Write(whole)
	must(t, err)
	if n := walk(t, s.Dir); n != 1+200*22 {
		t.Errorf("%d entries when the image is whole again", n)
	}
}

// A session goes from server to server while it is used, and nobody sees an error.
func TestResume(t *testing.T) {
	fusetest.NeedMounts(t)
	const dirs, files = 40, 40
	text, content := filesText(dirs, files)
	r := newRepo(t, text, content)
	s := fusetest.Mount(t, r.serving(t, mount.ViewPlain), fuse.Options{})
	dir := throughFD(t, s.Dir)
	done := make(chan bool)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(done)
		readAll(t, dir, dirs, files, content)
	})
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(2 * time.Millisecond):
		}
		s.Server.Stop()
		must(t, s.Wait())
		next, err := fuse.NewServer(r.serving(t, mount.ViewPlain), fuse.Options{Log: t.Logf})
		must(t, err)
		must(t, next.Resume(s.Fuse))
		must(t, s.Server.Close())
		s.Server = next
		s.Serve()
	}
	reader.Wait()
}

// throughFD is a path by which goroutines that have other mount namespaces reach a directory.
func throughFD(t testing.TB, dir string) string {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fmt.Sprintf("/proc/self/fd/%d", fd)
}

// Requests that a server took and never answered are answered by the next one.
func TestResend(t *testing.T) {
	fusetest.NeedMounts(t)
	text, _ := filesText(1, 1)
	r := newRepo(t, text)
	s := fusetest.Mount(t, r.serving(t, mount.ViewPlain), fuse.Options{})
	path := throughFD(t, s.Dir) + "/d0"
	s.Server.Stop()
	must(t, s.Wait())
	result := make(chan error, 1)
	go func() {
		var st unix.Stat_t
		result <- unix.Lstat(path, &st)
	}()
	taken := make([]byte, wire.MinReadBuffer)
	n, err := unix.Read(int(s.Devices[0].Fd()), taken) // as by a server that dies now
	must(t, err)
	var h wire.InHeader
	if !h.Decode(taken[:n]) || h.Opcode != wire.OpLookup {
		t.Fatalf("took %+v", h)
	}
	must(t, s.Server.Close())
	s.Server, err = fuse.NewServer(r.serving(t, mount.ViewPlain), fuse.Options{Log: t.Logf})
	must(t, err)
	must(t, s.Server.Resume(s.Fuse))
	s.Serve()
	if err := fuse.Resend(s.Devices[0]); errors.Is(err, unix.EINVAL) {
		unix.Unmount(s.Dir, unix.MNT_FORCE)
		t.Skip("skipped: this kernel has no FUSE_NOTIFY_RESEND (6.9)")
	} else {
		must(t, err)
	}
	if err := <-result; err != nil {
		t.Errorf("the request that was taken: %v", err)
	}
}

// Passthrough reads objects without the server; an inode that is open twice has one backing file.
func TestPassthrough(t *testing.T) {
	fusetest.NeedMounts(t)
	big := bytes.Repeat([]byte("flatroot"), 100_000)
	d := fsverity.Sum(fsverity.SHA256, big)
	r := newRepo(t, "/ 0 40755 2 0 0 0 0.0 - - -\n"+
		"/big "+strconv.Itoa(len(big))+" 100644 1 0 0 0 0.0 "+d.ObjectPath()+" - "+d.String()+"\n"+
		"/inline 5 100644 1 0 0 0 0.0 - hello -\n/missing 100 100644 1 0 0 0 0.0 aa/bb - -\n", big)
	serving := r.serving(t, mount.ViewPlain)
	serving.Passthrough = true
	var counts fusetest.Counts
	s := fusetest.Mount(t, serving, fuse.Options{Count: counts.Add})
	if s.Fuse.Flags&wire.Passthrough == 0 {
		t.Skip("skipped: this kernel has no FUSE passthrough (6.9)")
	}
	first, err := unix.Open(s.Dir+"/big", unix.O_RDONLY, 0)
	must(t, err)
	defer unix.Close(first)
	for range 3 {
		for name, want := range map[string]string{"big": string(big), "inline": "hello"} {
			if got, err := fusetest.ReadFile(filepath.Join(s.Dir, name)); err != nil || string(got) != want {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		}
	}
	got := counts.Take()
	if got[wire.OpOpen] != 7 || got[wire.OpRead] > 1 {
		t.Errorf("requests %v", got)
	}
	if _, err := fusetest.ReadFile(s.Dir + "/missing"); err != unix.EIO {
		t.Errorf("missing object: %v", err)
	}
}

// One object that can't be read is EIO for its readers, and named in the log.
func TestMissingObject(t *testing.T) {
	fusetest.NeedMounts(t)
	text, content := filesText(1, 2)
	r := newRepo(t, text, content)
	must(t, os.Remove(r.object(content)))
	var mu sync.Mutex
	var log strings.Builder
	s := fusetest.Mount(t, r.serving(t, mount.ViewPlain), fuse.Options{Log: func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(&log, format+"\n", args...)
	}})
	if _, err := fusetest.ReadFile(s.Dir + "/d0/f1"); err != unix.EIO {
		t.Errorf("got %v, want EIO", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if d := fsverity.Sum(fsverity.SHA256, content); !strings.Contains(log.String(), d.ObjectPath()) || !strings.Contains(log.String(), d.String()) {
		t.Errorf("log: %s", log.String())
	}
}
