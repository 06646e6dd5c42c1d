package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// changedFile is the file that is edited, of a component of a package.
const changedFile = "usr/bin/dpkg"

// edited measures what the change of one file has fetched.
func (s *settings) edited(image, version string) error {
	if !s.only.MatchString("one file edited") || !exists(s.layout(image)) {
		return nil
	}
	before, after := s.path("before.tar"), s.path("after.tar")
	blob, err := onlyLayer(s.layout(image), version)
	if err != nil {
		return err
	}
	if err := errors.Join(rewrite(blob, before, ""), rewrite(blob, after, changedFile)); err != nil {
		return err
	}
	ours, again, err := s.chunked(before, after, nil)
	if err != nil {
		return err
	}
	fmt.Printf("| %s %s, one file edited | 64 layers | | %.1f | | %d of %d | %d |\n", image, version, float64(ours.bytes)/1e6, ours.layers, ours.total, again.bytes)
	return nil
}

// onlyLayer is the blob of an image that has one layer.
func onlyLayer(layout, tag string) (string, error) {
	var index ocispec.Index
	if err := readJSON(filepath.Join(layout, ocispec.ImageIndexFile), &index); err != nil {
		return "", err
	}
	for _, d := range index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] != tag {
			continue
		}
		var m ocispec.Manifest
		if err := readJSON(blob(layout, d), &m); err != nil {
			return "", err
		}
		if len(m.Layers) != 1 {
			return "", fmt.Errorf("%s has %d layers, want one", tag, len(m.Layers))
		}
		return blob(layout, m.Layers[0]), nil
	}
	return "", fmt.Errorf("no tag %s", tag)
}

func blob(layout string, d ocispec.Descriptor) string {
	return filepath.Join(layout, "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// rewrite inflates a blob of zstd into a tar, in which the last byte of one file is another.
func rewrite(blob, to, edit string) (err error) {
	in, err := os.Open(blob)
	if err != nil {
		return err
	}
	defer in.Close()
	z, err := zstd.NewReader(in)
	if err != nil {
		return err
	}
	defer z.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := tar.NewWriter(out)
	if err := copyTar(w, tar.NewReader(z), edit); err != nil {
		return err
	}
	return w.Close()
}

func copyTar(w *tar.Writer, r *tar.Reader, edit string) error {
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if edit == "" || filepath.Clean(h.Name) != edit {
			if _, err := io.Copy(w, r); err != nil {
				return err
			}
			continue
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		content[len(content)-1]++
		if _, err := w.Write(content); err != nil {
			return err
		}
	}
}
