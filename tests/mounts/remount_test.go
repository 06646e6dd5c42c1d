package mounts

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRemounted has the superuser declare mounts writable: nothing can be changed nevertheless.
func TestRemounted(t *testing.T) {
	needMounts(t)
	img := writeGround(t, tmpfs(t), fewEntries)
	m, tr := readImage(t, img)
	want := readerRecords(m, tr, img.objects, nil)
	for _, m := range allModes() {
		for name, flags := range map[string]uintptr{"file system": unix.MS_REMOUNT, "mount": unix.MS_REMOUNT | unix.MS_BIND} {
			t.Run(m.name+", "+name, func(t *testing.T) {
				dir, _ := m.mount(t, img)
				if err := unix.Mount("", dir, "", flags, ""); err != nil {
					t.Logf("remount: %v", err) // overlayfs without a writable layer
					return
				}
				changeAll(t, dir)
				after, err := walk(dir)
				must(t, err)
				if diff := compareRecords("image", want, "afterwards", after); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// changeAll tries all changes of a tree. Opening for writing may succeed where OPEN is no request (see FUSE_NO_OPEN_SUPPORT
// of linux/fuse.h), but not the writing.
func changeAll(t *testing.T, dir string) {
	t.Helper()
	g := ground{dir: dir, tmp: t.TempDir()}
	got := outcomes(g, changeCalls())
	for _, c := range changeCalls() {
		opens := strings.HasPrefix(c.name, "change: open ") && got[c.name] == "ok"
		if c.want != "" && got[c.name] != c.want && !opens {
			t.Errorf("%s: %s, want %s", c.name, got[c.name], c.want)
		}
	}
	fd, err := unix.Open(g.at("file"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		_, err = unix.Write(fd, []byte("x"))
	}
	if err != unix.EROFS {
		t.Errorf("write: %v, want EROFS", err)
	}
}
