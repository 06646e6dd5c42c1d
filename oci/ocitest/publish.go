package ocitest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// WriteLayout builds the image and adds it to the layout in dir, which is
// made if need be, under a name that may be empty.
func (m Image) WriteLayout(dir, name string) (ocispec.Descriptor, error) {
	b, err := m.Build()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return b.Root(), b.WriteLayout(dir, name)
}

// WriteLayout is as that of Image.
func (x Index) WriteLayout(dir, name string) (ocispec.Descriptor, error) {
	b, err := x.Build()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return b.Root(), b.WriteLayout(dir, name)
}

// Push builds the image and pushes it to a registry, such as
// http://127.0.0.1:5000.
func (m Image) Push(registryURL, repository, tag string) (ocispec.Descriptor, error) {
	b, err := m.Build()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return b.Root(), b.Push(registryURL, repository, tag)
}

// Push is as that of Image.
func (x Index) Push(registryURL, repository, tag string) (ocispec.Descriptor, error) {
	b, err := x.Build()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return b.Root(), b.Push(registryURL, repository, tag)
}

// WriteLayout adds the blobs to the layout in dir and the last one to its
// index. Blobs are named as their descriptors say, be that true or not.
func (b *Built) WriteLayout(dir, name string) error {
	blobs := filepath.Join(dir, ocispec.ImageBlobsDir, "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	for _, blob := range b.Blobs {
		if err := os.WriteFile(filepath.Join(blobs, blob.Descriptor.Digest.Encoded()), blob.Data, 0o644); err != nil {
			return err
		}
	}
	header, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, ocispec.ImageLayoutFile), header, 0o644); err != nil {
		return err
	}
	return addToIndex(filepath.Join(dir, ocispec.ImageIndexFile), b.Root(), name)
}

// addToIndex appends a descriptor to a layout's index.
func addToIndex(path string, d ocispec.Descriptor, name string) error {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}}
	raw, err := os.ReadFile(path)
	switch {
	case err == nil:
		err = json.Unmarshal(raw, &index)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		return err
	}
	if name != "" {
		d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	}
	index.Manifests = append(index.Manifests, d)
	if raw, err = json.Marshal(index); err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o644)
}

// Push uploads the blobs, manifests by digest and the last one by tag.
func (b *Built) Push(registryURL, repository, tag string) error {
	base := strings.TrimSuffix(registryURL, "/") + "/v2/" + repository
	for i, blob := range b.Blobs {
		d := blob.Descriptor
		put := base + "/manifests/" + d.Digest.String()
		switch {
		case i == len(b.Blobs)-1:
			put = base + "/manifests/" + tag
		case !oci.IsManifest(d.MediaType) && !oci.IsIndex(d.MediaType):
			var err error
			if put, err = startUpload(base, d); err != nil {
				return err
			}
		}
		if _, err := send(http.MethodPut, put, d.MediaType, blob.Data); err != nil {
			return err
		}
	}
	return nil
}

// startUpload asks for a place to put a blob.
func startUpload(base string, d ocispec.Descriptor) (string, error) {
	resp, err := send(http.MethodPost, base+"/blobs/uploads/", "", nil)
	if err != nil {
		return "", err
	}
	at, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil {
		return "", err
	}
	q := at.Query()
	q.Set("digest", d.Digest.String())
	at.RawQuery = q.Encode()
	return at.String(), nil
}

// send makes one request of a push; all of them answer with 201 or 202.
func send(method, to, mediaType string, body []byte) (*http.Response, error) {
	u, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	req := &http.Request{Method: method, URL: u, Header: make(http.Header), Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body))}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusAccepted {
		return nil, fmt.Errorf("%s %s: %s: %s", method, to, resp.Status, text)
	}
	return resp, nil
}
