//go:build amd64

package crash

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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
