package registry

import (
	"bytes"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// smallBlob is the size in bytes up to which a blob is read before it is sent,
// and then sent in one request: configs, and layers of a few files.
const smallBlob = 1 << 20

// content is a blob that is being sent. It is hashed as it is read, and knows
// where it is, so that a part can be read once more if who gives it can seek.
type content struct {
	desc ocispec.Descriptor

	mu     sync.Mutex
	r      io.Reader
	seeker io.Seeker // nil: it can't be read again
	start  int64     // where the blob begins for the seeker
	at     int64     // bytes of the blob before what r gives next
	hashed int64     // bytes that were hashed
	hash   hash.Hash
	part   *part // the one that may read
	err    error // for good: what is read is at fault, not the registry
}

// newContent takes a blob. A small one is read and verified.
func newContent(desc ocispec.Descriptor, r io.Reader) (*content, error) {
	c := &content{desc: desc, r: r, hash: digest.SHA256.Digester().Hash()}
	if desc.Size <= smallBlob {
		raw, err := io.ReadAll(io.LimitReader(r, desc.Size+1))
		if err == nil {
			err = oci.Verify("blob "+desc.Digest.String(), raw, desc)
		}
		b := bytes.NewReader(raw)
		c.r, c.seeker = b, b
		return c, err
	}
	if s, ok := r.(io.Seeker); ok {
		if start, err := s.Seek(0, io.SeekCurrent); err == nil {
			c.seeker, c.start = s, start
		}
	}
	return c, nil
}

// errOnce is why a blob can't be sent again.
var errOnce = errors.New("it can't be read a second time to go on with")

// open returns n bytes from off on, and ends what was opened before: it may be
// a request's whose connection is gone, though nobody has told its body yet.
// stall is how long may pass from one read to the next; then stalled is told.
func (c *content) open(off, n int64, stall time.Duration, stalled func(error)) io.ReadCloser {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.part != nil {
		c.part.timer.Stop()
	}
	c.part = &part{c: c, left: n, stall: stall, stalled: stalled}
	if err := c.seek(off); err != nil && c.err == nil {
		c.err = err
	}
	c.part.wait()
	return c.part
}

func (c *content) seek(off int64) error {
	if off == c.at {
		return nil
	}
	if c.seeker == nil {
		return errOnce
	}
	if _, err := c.seeker.Seek(c.start+off, io.SeekStart); err != nil {
		return err
	}
	c.at = off
	return nil
}

// read reads on, and hashes what is new. A blob that ends early, and one that
// does not end, are errors.
func (c *content) read(b []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.r.Read(b)
	if c.at <= c.hashed && c.at+int64(n) > c.hashed {
		c.hash.Write(b[c.hashed-c.at : n])
		c.hashed = c.at + int64(n)
	}
	c.at += int64(n)
	if err == io.EOF {
		err = nil
		if n == 0 {
			err = &oci.SizeError{What: c.what(), Want: c.desc.Size, Got: c.at}
		}
	}
	c.err = err
	return n, err
}

func (c *content) what() string { return "blob " + c.desc.Digest.String() }

// failure is why the blob can't be read; nil: it can.
func (c *content) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// sent is how many bytes have been read at most: more the registry can't have.
func (c *content) sent() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hashed
}

// verify compares what was read with the descriptor, once all was.
func (c *content) verify() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if c.hashed != c.desc.Size {
		return fmt.Errorf("the registry has all of it, and %d of %d bytes were sent", c.hashed, c.desc.Size)
	}
	if c.at == c.desc.Size {
		n, err := io.ReadFull(c.r, make([]byte, 1))
		if n > 0 {
			return &oci.SizeError{What: c.what(), Want: c.desc.Size, Got: c.desc.Size + 1}
		}
		if err != io.EOF {
			return err
		}
	}
	if got := digest.NewDigest(digest.SHA256, c.hash); got != c.desc.Digest {
		return &oci.DigestError{What: c.what(), Want: c.desc.Digest, Got: got}
	}
	return nil
}

// part is the body of one request.
type part struct {
	c       *content
	left    int64
	stall   time.Duration
	stalled func(error)
	timer   *time.Timer
}

// errSuperseded ends the body of a request that nobody waits for any more.
var errSuperseded = errors.New("another request sends this part now")

// Read gives what is left of the part.
func (p *part) Read(b []byte) (int, error) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	switch {
	case p.c.part != p:
		return 0, errSuperseded
	case p.left == 0:
		p.timer.Stop()
		return 0, io.EOF
	}
	p.timer.Stop() // how fast the blob can be read is not the registry's business
	n, err := p.c.read(b[:min(p.left, int64(len(b)))])
	if p.left -= int64(n); p.left > 0 {
		p.wait()
	}
	return n, err
}

// wait ends the request if nobody reads on: the registry takes no more.
func (p *part) wait() {
	if p.timer == nil {
		p.timer = time.AfterFunc(p.stall, func() { p.stalled(fmt.Errorf("%w (%v)", errStalled, p.stall)) })
		return
	}
	p.timer.Reset(p.stall)
}

// Close ends the part. What is behind it stays open.
func (p *part) Close() error {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.timer.Stop()
	if p.c.part == p {
		p.c.part = nil
	}
	return nil
}
