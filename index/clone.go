package index

import (
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/oci"
)

// cloneMin is the size in bytes from which on a file is cloned. Below it a clone costs more than it saves.
const cloneMin = 64 << 10

// cloner is a place for contents that can take a file's blocks instead of its bytes. The content is to be read from what it
// returns, and to be hashed by the contentWriter, once.
type cloner interface {
	clone(f *os.File) (contentWriter, *os.File, error)
}

func (c stored) clone(f *os.File) (contentWriter, *os.File, error) {
	o, content, err := c.s.CloneObject(f)
	if err != nil {
		return nil, nil, err
	}
	return o, content, nil
}

func (c doubted) clone(f *os.File) (contentWriter, *os.File, error) {
	o, content, err := c.s.CloneObject(f)
	if err != nil {
		return nil, nil, err
	}
	return doubtedWriter{o, c}, content, nil
}

// clones are the files that a blob is read from, cloned before a byte of them was read: what is hashed is then what the store
// has, whatever happens to the file meanwhile.
//
//	blob: file → through → clone → bytes → … → cutter: claim → hash → object
type clones struct {
	to    cloner          // nil: nothing is cloned
	never map[uint64]bool // devices from which files can't be cloned; whoever reads the blob has it

	mu     sync.Mutex
	list   []clone // those that nobody has claimed, in the order of the blob
	closed bool
}

// clone is a file that stands at an offset of the blob.
type clone struct {
	at, size int64
	w        contentWriter
}

// readThrough has the files of a blob cloned, if it has any and there is where to.
func readThrough(blob io.Reader, to contents) *clones {
	c := new(clones)
	files, ok := blob.(oci.FileBlob)
	if !ok {
		return c
	}
	if c.to, ok = to.(cloner); ok {
		c.never = map[uint64]bool{}
		files.Through(c.through)
	}
	return c
}

// through is the oci.CloneFunc of a blob. What can't be cloned is copied.
func (c *clones) through(f *os.File, at, size int64) *os.File {
	var st unix.Stat_t
	if size < cloneMin || unix.Fstat(int(f.Fd()), &st) != nil || c.never[st.Dev] {
		return nil
	}
	w, content, err := c.to.clone(f)
	if err != nil {
		c.never[st.Dev] = always(err)
		return nil
	}
	fi, err := content.Stat()
	if err != nil || fi.Size() != size || !c.register(clone{at, size, w}) { // it has changed, or nobody wants it any more
		w.Abort()
		content.Close()
		return nil
	}
	return content
}

// always tells whether it is no use to try other files of the same device: most errors are one file's.
func always(err error) bool {
	for _, e := range []error{unix.EXDEV, unix.EOPNOTSUPP, unix.ENOTTY, unix.ENOSYS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (c *clones) register(f clone) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.list = append(c.list, f)
	}
	return !c.closed
}

// claim takes the clone of the content at an offset; nil: there is none. Those of what lies before are given up: it was read
// as something else.
func (c *clones) claim(at, size int64) contentWriter {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.list) > 0 && c.list[0].at <= at {
		first := c.list[0]
		c.list = c.list[1:]
		if first.at == at && first.size == size {
			return first.w
		}
		first.w.Abort()
	}
	return nil
}

// close gives up what nobody has claimed, and clones no more.
func (c *clones) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.list {
		f.w.Abort()
	}
	c.list, c.closed = nil, true
}
