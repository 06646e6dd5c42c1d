// Command parts does what an import of a gzip image can't do without, and nothing else, so that the benchmark can say what
// an import costs beside the sum of its parts:
//
//	go run ./tests/bench/parts LAYOUT TAG DIR
//
// It inflates each layer with the library that flatroot has, computes the SHA-256 of blob and tar and the fs-verity digest of
// each file that becomes an object, and writes each of those once, as a file of DIR. Nothing is synced, and nothing is
// understood but the tar's headers.
package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/layout"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: parts LAYOUT TAG DIR")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "parts:", err)
		os.Exit(1)
	}
}

func run(dir, tag, to string) error {
	src, err := layout.Open(oci.Reference{Transport: oci.OCI, Path: dir, Tag: tag}, layout.Options{})
	if err != nil {
		return err
	}
	defer src.Close()
	img, err := src.Image(context.Background())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, l := range img.Layers {
		blob, err := src.OpenBlob(context.Background(), l.Descriptor)
		if err != nil {
			return err
		}
		if err := errors.Join(layer(blob, to), blob.Close()); err != nil {
			return err
		}
	}
	return nil
}

const bufferSize = 256 << 10

func layer(blob io.Reader, to string) error {
	z, err := gzip.NewReader(io.TeeReader(blob, sha256.New()))
	if err != nil {
		return err
	}
	defer z.Close()
	r := io.TeeReader(z, sha256.New())
	t := tar.NewReader(r)
	buf := make([]byte, bufferSize)
	for {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			_, err = io.CopyBuffer(io.Discard, r, buf)
			return err
		case err != nil:
			return err
		case h.Typeflag == tar.TypeReg && h.Size > 64: // smaller ones are inline in an image
			if err := object(t, h.Size, to, buf); err != nil {
				return err
			}
		}
	}
}

// object hashes a content while it is written, and names the file by its digest.
func object(r io.Reader, size int64, to string, buf []byte) error {
	f, err := os.CreateTemp(to, "")
	if err != nil {
		return err
	}
	h := fsverity.NewHasher(fsverity.SHA256)
	_, err = io.CopyBuffer(io.MultiWriter(h, struct{ io.Writer }{f}), io.LimitReader(r, size), buf)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(to, h.Sum().String()))
}
