// Package layout reads and writes images in an OCI image layout: a directory
// with the files oci-layout and index.json, and blobs/sha256/HEX.
//
// An entry is a descriptor in index.json. Its name is the annotation
// org.opencontainers.image.ref.name; names need not be unique, nor given.
//
// Invariants:
//
//   - Paths are made from digests that oci.CheckDigest let through, below a
//     directory that was opened once. Symbolic links, pipes and devices are
//     not followed or read, whoever put them there: a layout is often
//     somebody else's download, read by root.
//   - A blob is opened only if its size is what its descriptor says.
//   - What is written appears under its name whole and on disk: blobs, then
//     index.json, which is exchanged under a lock on the directory. Other
//     entries, and fields that we don't know, stay as they are.
package layout

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// blobsDir is where blobs of our one algorithm are.
const blobsDir = ocispec.ImageBlobsDir + "/sha256"

// ErrNoLayout is what is wrapped when a directory is no layout.
var ErrNoLayout = errors.New("not an OCI image layout")

// blobPath returns where a blob is. Its digest is the only part of a path
// that comes from outside.
func blobPath(d digest.Digest) (string, error) {
	if err := oci.CheckDigest(d); err != nil {
		return "", err
	}
	return path.Join(blobsDir, d.Encoded()), nil
}

// openRegular opens a regular file and returns its size. What is not regular
// is refused before it is opened, because opening a device may do something,
// and compared with what was opened afterwards.
func openRegular(root *os.Root, name string) (*os.File, int64, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, 0, err
	}
	if !before.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: is %s, not a regular file", name, kind(before.Mode()))
	}
	// Without O_NONBLOCK a pipe that took the file's place would hang us.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	after, err := f.Stat()
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%s: changed while it was opened", name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, after.Size(), nil
}

// kind says what a file is that is not regular.
func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m.IsDir():
		return "a directory"
	case m&fs.ModeNamedPipe != 0:
		return "a pipe"
	}
	return "a device or socket"
}

// readSmall reads a file of at most limit bytes.
func readSmall(root *os.Root, name string, limit int64) (b []byte, err error) {
	f, size, err := openRegular(root, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size > limit {
		return nil, fmt.Errorf("%s: has %d bytes, more than %d", name, size, limit)
	}
	b = make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// openBlob opens a blob whose file is as long as its descriptor says.
func openBlob(root *os.Root, desc ocispec.Descriptor) (*os.File, error) {
	name, err := blobPath(desc.Digest)
	if err != nil {
		return nil, err
	}
	f, size, err := openRegular(root, name)
	if err != nil {
		return nil, err
	}
	if size != desc.Size {
		err := &oci.SizeError{What: "blob " + desc.Digest.String(), Want: desc.Size, Got: size}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// checkVersion makes sure that a directory is a layout of the one version
// that there is. An absent oci-layout is fs.ErrNotExist.
func checkVersion(root *os.Root) error {
	// The file has some 30 bytes.
	raw, err := readSmall(root, ocispec.ImageLayoutFile, 4096)
	if err != nil {
		return err
	}
	version, err := oci.ParseLayout(raw)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", ocispec.ImageLayoutFile, ErrNoLayout, err)
	}
	if version != ocispec.ImageLayoutVersion {
		return fmt.Errorf("%s: version is %q, want %s", ocispec.ImageLayoutFile, version, ocispec.ImageLayoutVersion)
	}
	return nil
}

// readIndex reads index.json, raw and parsed. Absent, it is fs.ErrNotExist.
func readIndex(root *os.Root) ([]byte, *oci.Document, error) {
	raw, err := readSmall(root, ocispec.ImageIndexFile, oci.MaxManifestSize)
	if err != nil {
		return nil, nil, err
	}
	doc, err := oci.ParseDocument(raw, ocispec.MediaTypeImageIndex)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	return raw, doc, nil
}

// isAbsent tells whether a file wasn't there.
func isAbsent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
