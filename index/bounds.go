package index

import (
	"cmp"
	"context"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/semaphore"
)

// bounds is what the layers of an image share, several of which are read at once.
type bounds struct {
	window   *semaphore.Weighted // for zstd windows over smallWindow
	metadata atomic.Int64        // bytes kept of entries
	limit    int64
}

// defaultImageMetadata is enough for more than a million files of ordinary names. The tree may need as much again.
const defaultImageMetadata = 192 << 20

func newBounds(l Limits) *bounds {
	return &bounds{window: semaphore.NewWeighted(1), limit: cmp.Or(l.MaxImageMetadata, defaultImageMetadata)}
}

// keep counts bytes that are kept until the image is made.
func (b *bounds) keep(n int) error {
	return checkLimit("bytes of names, targets, extended attributes and small files of the image", b.metadata.Add(int64(n)), b.limit,
		"--max-image-metadata")
}

// drop takes back what was counted.
func (b *bounds) drop(n int) { b.metadata.Add(-int64(n)) }

const (
	// smallWindow is the largest zstd window, in bytes, that every layer may have: all of the levels that need no --ultra
	// have it, and RFC 8878, 3.1.1.1.2, recommends that decoders support it.
	smallWindow = 8 << 20
	// largeWindow is the largest one at all: what the zstd tool's decoder takes by default. One layer at a time gets it.
	largeWindow = 128 << 20
)

// zstdWindow says how large a window a blob may have, by its first frame, and waits until there is memory for it. The
// function that it returns gives that back.
func (b *bounds) zstdWindow(ctx context.Context, first []byte) (size uint64, done func(), err error) {
	if frameWindow(first) <= smallWindow {
		return smallWindow, func() {}, nil
	}
	if err := b.window.Acquire(ctx, 1); err != nil {
		return 0, nil, context.Cause(ctx)
	}
	return largeWindow, func() { b.window.Release(1) }, nil
}

// frameWindow is what a frame's header asks for. Of a skippable frame it is not known what comes behind it.
func frameWindow(first []byte) uint64 {
	var h zstd.Header
	switch err := h.Decode(first); {
	case err != nil:
		return 0 // the decoder says what is wrong
	case h.Skippable:
		return largeWindow
	case h.SingleSegment:
		return h.FrameContentSize
	}
	return h.WindowSize
}
