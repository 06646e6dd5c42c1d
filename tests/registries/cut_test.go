package registries

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/flatroot/flatroot/oci/ocitest"
)

// cutter stands between a program and a registry, and breaks connections after some bytes.
type cutter struct {
	to string

	mu    sync.Mutex
	cuts  []int64 // after how many bytes the connections break; those that come later don't
	bytes int64   // that went to the registry
	broke int
}

// startCutter returns the address to speak to.
func startCutter(t *testing.T, c *cutter) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go c.serve(conn)
		}
	}()
	return l.Addr().String()
}

func (c *cutter) serve(from net.Conn) {
	defer from.Close()
	to, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer to.Close()
	go func() { _, _ = io.Copy(from, to) }()
	b := make([]byte, 32<<10)
	for sent := int64(0); ; {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if sent += int64(n); c.breaks(sent, n) {
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// breaks counts bytes, and tells whether a connection that has brought so many is to break now.
func (c *cutter) breaks(sent int64, n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += int64(n)
	if len(c.cuts) == 0 || sent < c.cuts[0] {
		return false
	}
	c.cuts = c.cuts[1:]
	c.broke++
	return true
}

// TestCutOff breaks the connection to a real registry in the middle of a large blob, several times. This one keeps what it has
// of a chunk, but has signed in the address of the upload how far it was before, and so refuses to go on: each time the blob is
// begun anew. That one which can go on is not sent anything twice, package registry's own tests show.
func TestCutOff(t *testing.T) {
	const size = 40 << 20
	c := &cutter{to: dockerRegistry(t), cuts: []int64{size / 10, size / 2, size / 10, size / 4}}
	host := startCutter(t, c)
	p := newPlace(t)
	want := p.image(ocitest.Image{}, size)
	p.flatroot("pull", "oci:layout:image", "--keep-blobs")
	if r := p.report("push", "layout:image", "docker://"+host+"/app:v1"); r.Manifest != want {
		t.Errorf("manifest %s, want %s", r.Manifest, want)
	}
	p.checkByCrane("docker://"+c.to+"/app:v1", want)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broke != 4 {
		t.Errorf("%d connections broke, want 4", c.broke)
	}
	if c.bytes > 2*size+size/10 {
		t.Errorf("%d bytes were sent for a blob of %d", c.bytes, size)
	}
}
