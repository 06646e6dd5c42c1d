package fsck

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// Tracers tell what streams and images refer to. A collection of garbage goes by them, and a check by the same functions,
// so that both agree on what is needed.
func Tracers() map[store.Kind]store.Tracer {
	return map[store.Kind]store.Tracer{store.Streams: traceStream, store.Images: traceImage}
}

// untraceable says of an error that it is about the content, unless the content could not be read.
func untraceable(err error) error {
	if errors.As(err, new(syscall.Errno)) {
		return err
	}
	return fmt.Errorf("%w: %w", store.ErrUntraceable, err)
}

// traceStream visits the names in a stream, then whatever else it refers to.
func traceStream(f io.ReaderAt, size int64, visit func(store.Edge, fsverity.Digest) error) error {
	st, err := stream.Open(f, size)
	if err != nil {
		return untraceable(err)
	}
	named, err := st.NamedRefs()
	if err != nil {
		return untraceable(err)
	}
	has := map[fsverity.Digest]bool{}
	for _, r := range named {
		has[r.ID] = true
		if err := visit(edgeOf(r.Name), r.ID); err != nil {
			return err
		}
	}
	for _, id := range st.StreamRefs() {
		if !has[id] {
			if err := visit(store.ToAny, id); err != nil {
				return err
			}
		}
	}
	for i := range st.NumObjects() {
		if err := visit(store.ToObject, st.Object(i)); err != nil {
			return err
		}
	}
	return nil
}

// edgeOf says what a named ref leads to.
func edgeOf(name string) store.Edge {
	switch {
	case index.IsImageName(name):
		return store.ToImage
	case isStreamName(name):
		return store.ToStream
	}
	return store.ToAny
}

func traceImage(f io.ReaderAt, size int64, visit func(store.Edge, fsverity.Digest) error) error {
	img, err := erofs.Open(f, size)
	if err != nil {
		return untraceable(err)
	}
	for o, err := range img.Objects() {
		if err != nil {
			return untraceable(err)
		}
		if err := visit(store.ToObject, o.Digest); err != nil {
			return err
		}
	}
	return nil
}
