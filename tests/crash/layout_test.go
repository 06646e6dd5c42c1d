//go:build amd64

package crash

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// readLayout gives the manifests of a layout's names, after a look at all that they need; one that is not there, or has no
// index yet, has none.
func readLayout(dir string) (map[string]string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var index ocispec.Index
	if err == nil {
		err = json.Unmarshal(raw, &index)
	}
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, d := range index.Manifests {
		if err := checkManifest(dir, d); err != nil {
			return nil, fmt.Errorf("layout %s: %w", dir, err)
		}
		names[d.Annotations[ocispec.AnnotationRefName]] = d.Digest.String()
	}
	return names, nil
}

// readArchive is readLayout for a tar of a layout. One that is there is whole.
func readArchive(path string) (names map[string]string, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dir, err := os.MkdirTemp("", "archive")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			if names, err = readLayout(dir); err == nil && len(names) != 1 {
				err = fmt.Errorf("archive %s has %d images", path, len(names))
			}
			return names, err
		case err == nil && h.Typeflag == tar.TypeDir:
			err = os.Mkdir(filepath.Join(dir, h.Name), 0o700)
		case err == nil:
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(filepath.Join(dir, h.Name), b, 0o600)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("archive %s: %w", path, err)
		}
	}
}

func checkManifest(dir string, d ocispec.Descriptor) error {
	raw, err := readBlob(dir, d)
	if err != nil {
		return err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	for _, d := range append(m.Layers, m.Config) {
		if _, err := readBlob(dir, d); err != nil {
			return err
		}
	}
	return nil
}

func readBlob(dir string, d ocispec.Descriptor) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, ocispec.ImageBlobsDir, "sha256", d.Digest.Encoded()))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	if got := hex.EncodeToString(sum[:]); got != d.Digest.Encoded() || int64(len(b)) != d.Size {
		return nil, fmt.Errorf("blob %s: %d bytes with SHA-256 %s", strings.TrimPrefix(d.Digest.String(), "sha256:"), len(b), got)
	}
	return b, nil
}
