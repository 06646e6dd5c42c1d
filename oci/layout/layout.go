// Package layout reads and writes images in an OCI image layout: a directory
// with the files oci-layout and index.json, and blobs/sha256/HEX. It also reads
// layouts whose files are elsewhere, such as in an archive.
//
// An entry is a descriptor in index.json. Its name is the annotation
// org.opencontainers.image.ref.name; names need not be unique, nor given.
//
// Invariants:
//
//   - Paths are made from digests that oci.CheckDigest let through, below a
//     directory that was opened once; package files has what is read there.
//   - What is written appears under its name whole and on disk: blobs, then
//     index.json, which is exchanged under a lock on the directory. Other
//     entries, and fields that we don't know, stay as they are.
//   - A layout that was made for an image which did not come is taken away
//     again, unless others are at work in it: each holds a shared lock on
//     blobs/sha256.
package layout

import (
	"errors"
	"fmt"
	"path"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/files"
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

// checkVersion makes sure that a directory is a layout of the one version
// that there is. An absent oci-layout is fs.ErrNotExist.
func checkVersion(fsys files.FS) error {
	// The file has some 30 bytes.
	raw, err := files.Read(fsys, ocispec.ImageLayoutFile, 4096)
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
func readIndex(fsys files.FS) ([]byte, *oci.Document, error) {
	raw, err := files.Read(fsys, ocispec.ImageIndexFile, oci.MaxManifestSize)
	if err != nil {
		return nil, nil, err
	}
	doc, err := oci.ParseDocument(raw, ocispec.MediaTypeImageIndex)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	return raw, doc, nil
}
