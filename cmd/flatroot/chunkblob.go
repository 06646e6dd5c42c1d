package main

import (
	"context"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/files"
)

// chunkBlob is a blob that is being written. Nobody finds it before it is published.
type chunkBlob interface {
	io.Writer
	Descriptor() ocispec.Descriptor // without a media type
	Close() error
}

// newBlob begins a blob: in DEST, if that takes it in before its digest is known, else in a file without a name.
func newBlob(sink oci.Sink) (chunkBlob, error) {
	if s, ok := sink.(oci.StagingSink); ok {
		return s.Stage()
	}
	f, err := files.NewUnnamed(files.TempDir())
	if err != nil {
		return nil, err
	}
	return &fileBlob{file: f, hash: digest.SHA256.Digester()}, nil
}

// bringBlob says how DEST gets a blob.
func bringBlob(to *index.Blob, from chunkBlob) {
	switch from := from.(type) {
	case oci.StagedBlob:
		to.Staged = from
	case *fileBlob:
		to.Open = from.open
	}
}

// fileBlob is a blob in a file.
type fileBlob struct {
	file *os.File
	hash digest.Digester
	size int64
}

func (b *fileBlob) Write(p []byte) (int, error) {
	n, err := b.file.Write(p)
	b.hash.Hash().Write(p[:n])
	b.size += int64(n)
	return n, err
}

func (b *fileBlob) Descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{Digest: b.hash.Digest(), Size: b.size}
}

func (b *fileBlob) Close() error { return b.file.Close() }

// open gives what was written. The file stays open.
func (b *fileBlob) open(context.Context) (io.ReadSeekCloser, error) {
	_, err := b.file.Seek(0, io.SeekStart)
	return openBlob{b.file}, err
}

type openBlob struct{ io.ReadSeeker }

func (openBlob) Close() error { return nil }
