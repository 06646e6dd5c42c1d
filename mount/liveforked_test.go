package mount

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMountedForked: a task forks into a namespace of its own, with a copy of the mount, and unmounts, just when the search
// has listed all processes and comes to it.
func TestMountedForked(t *testing.T) {
	p := newFakeProc(t)
	p.task("50/task/50", "mnt:[2]", "/", "")
	fifo := filepath.Join(p.dir, "50/task/50/mountinfo")
	p.must(os.Remove(fifo))
	p.must(unix.Mkfifo(fifo, 0o644))
	const other = "32 1 254:0 / / rw - ext4 /dev/vda rw\n"
	go func() {
		f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		p.task("51/task/51", "mnt:[3]", "/", other+oursN(1))
		if _, err := f.WriteString(other); err != nil {
			t.Error(err)
		}
	}()
	if images, complete := p.look(); len(images) == 0 {
		t.Errorf("images %v, complete %v: the child's mount was not seen", images, complete)
	}
}
