// Package cstoragetest writes images into stores of containers-storage, for tests where none of the tools is that do this.
// It has its own lines for the formats, so that a mistake in package cstorage can't hide itself here.
package cstoragetest

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
)

// Image is an image to be put into a store.
type Image struct {
	*ocitest.Built
	Names []string
	// Manifest that counts, of several. Zero is the first.
	Manifest digest.Digest
}

// ImageRecord is an image in images.json.
type ImageRecord struct {
	ID       string        `json:"id"`
	Digest   digest.Digest `json:"digest,omitempty"`
	Names    []string      `json:"names,omitempty"`
	TopLayer string        `json:"layer,omitempty"`
	BigData  []string      `json:"big-data-names,omitempty"`
}

// LayerRecord is a layer in layers.json.
type LayerRecord struct {
	ID               string         `json:"id"`
	Parent           string         `json:"parent,omitempty"`
	CompressedDigest digest.Digest  `json:"compressed-diff-digest,omitempty"`
	DiffID           digest.Digest  `json:"diff-digest,omitempty"`
	Size             int64          `json:"diff-size,omitempty"`
	Flags            map[string]any `json:"flags,omitempty"`
}

// Write adds an image to the store in a directory, which is made if need be, and returns its record. Blobs that are missing
// are left out; documents are written as they are.
func Write(graphRoot, driver string, m Image) (ImageRecord, error) {
	s := store{graphRoot, driver}
	manifest := m.manifest()
	record := ImageRecord{ID: manifest.Descriptor.Digest.Encoded(), Digest: manifest.Descriptor.Digest, Names: m.Names}
	for _, dir := range []string{s.images(record.ID), s.layers()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return record, err
		}
	}
	for _, lock := range []string{s.images("images.lock"), s.layers("layers.lock")} {
		if err := os.WriteFile(lock, nil, 0o644); err != nil {
			return record, err
		}
	}
	for _, b := range m.Blobs {
		key := b.Descriptor.Digest.String()
		switch t := b.Descriptor.MediaType; {
		case oci.IsLayer(t):
			continue
		case oci.IsManifest(t) || oci.IsIndex(t):
			key = "manifest-" + key
		}
		if err := s.bigData(&record, key, b.Data); err != nil {
			return record, err
		}
	}
	if err := s.bigData(&record, "manifest", manifest.Data); err != nil {
		return record, err
	}
	var doc ocispec.Manifest
	_ = json.Unmarshal(manifest.Data, &doc) // it may be damaged: then there are no layers
	for _, l := range doc.Layers {
		if err := s.layer(&record, m.blob(l.Digest), l.Digest); err != nil {
			return record, err
		}
	}
	return record, Append(s.images("images.json"), record)
}

func (m Image) manifest() *ocitest.Blob {
	if m.Manifest != "" {
		return m.blob(m.Manifest)
	}
	return m.Find("manifest")
}

// blob finds a blob; nil: there is none.
func (m Image) blob(d digest.Digest) *ocitest.Blob {
	for i := range m.Blobs {
		if m.Blobs[i].Descriptor.Digest == d {
			return &m.Blobs[i]
		}
	}
	return nil
}

type store struct{ root, driver string }

func (s store) images(path ...string) string {
	return filepath.Join(append([]string{s.root, s.driver + "-images"}, path...)...)
}

func (s store) layers(path ...string) string {
	return filepath.Join(append([]string{s.root, s.driver + "-layers"}, path...)...)
}

// Files is where a layer is unpacked.
func Files(graphRoot, driver, id string) string {
	if driver == "vfs" {
		return filepath.Join(graphRoot, "vfs/dir", id)
	}
	return filepath.Join(graphRoot, driver, id, "diff")
}

// bigData writes big data of an image. All keys here have a colon, or only letters.
func (s store) bigData(record *ImageRecord, key string, data []byte) error {
	name := key
	if key != "manifest" {
		name = "=" + base64.StdEncoding.EncodeToString([]byte(key))
	}
	record.BigData = append(record.BigData, key)
	return os.WriteFile(s.images(record.ID, name), data, 0o600)
}

// layer puts a layer on top of the image. Of a blob that is missing there is only the record.
func (s store) layer(m *ImageRecord, blob *ocitest.Blob, compressed digest.Digest) error {
	record := LayerRecord{Parent: m.TopLayer, CompressedDigest: compressed}
	record.ID = digest.FromString(m.TopLayer + "+" + compressed.String()).Encoded()
	m.TopLayer = record.ID
	if blob != nil {
		tar, err := plain(blob.Data)
		if err != nil {
			return err
		}
		record.DiffID, record.Size = digest.FromBytes(tar), int64(len(tar))
		if err := Unpack(tar, Files(s.root, s.driver, record.ID), s.layers(record.ID+".tar-split.gz")); err != nil {
			return fmt.Errorf("unpack layer %s: %w", compressed, err)
		}
	}
	return Append(s.layers("layers.json"), record)
}

// plain uncompresses a blob.
func plain(b []byte) ([]byte, error) {
	if r, err := gzip.NewReader(bytes.NewReader(b)); err == nil {
		return io.ReadAll(r)
	}
	if bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		d, err := zstd.NewReader(nil)
		if err != nil {
			return nil, err
		}
		defer d.Close()
		return d.DecodeAll(b, nil)
	}
	return b, nil
}

// Append adds a record to an array in a file, which may not be there.
func Append(path string, record any) error {
	var all []json.RawMessage
	raw, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(raw, &all)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if raw, err = json.Marshal(record); err != nil {
		return err
	}
	if raw, err = json.Marshal(append(all, raw)); err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o600)
}

// Unpack writes the contents of a tar's files below a directory, and the rest as tar-split. What has no content is not made:
// nobody looks for it.
func Unpack(tar []byte, dir, split string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	r, done, err := asm.NewInputTarStreamWithDone(bytes.NewReader(tar), storage.NewJSONPacker(z), putter(dir))
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	if err := <-done; err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(split, out.Bytes(), 0o600)
}

// putter writes files below a directory.
type putter string

func (p putter) Put(name string, r io.Reader) (int64, []byte, error) {
	path := filepath.Join(string(p), filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return 0, nil, err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return 0, nil, err
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return 0, nil, err
	}
	return storage.NewDiscardFilePutter().Put(name, bytes.NewReader(data))
}
