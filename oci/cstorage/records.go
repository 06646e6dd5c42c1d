package cstorage

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/oci"
)

const (
	// maxRecords bounds layers.json and images.json, in bytes. A layer takes some 600, an image 1,500.
	maxRecords = 64 << 20
	// maxRecordCount bounds the records of one file, and with it the memory that a file of empty records would take.
	maxRecordCount = 1 << 17
	// maxID bounds an ID, in bytes. Those that the store's own tools make up have 64.
	maxID = 128
)

// imageRecord is what we use of an image in images.json: storage.Image of go.podman.io/storage.
type imageRecord struct {
	ID           string        `json:"id"`
	Digest       digest.Digest `json:"digest"`
	Names        []string      `json:"names"`
	TopLayer     string        `json:"layer"`
	BigDataNames []string      `json:"big-data-names"`

	root *root // whose images.json it stands in
}

// layerRecord is what we use of a layer in layers.json or volatile-layers.json: storage.Layer of go.podman.io/storage.
type layerRecord struct {
	ID                 string        `json:"id"`
	Parent             string        `json:"parent"`
	UncompressedDigest digest.Digest `json:"diff-digest"` // the diffID; empty if that was never computed
	UncompressedSize   int64         `json:"diff-size"`   // bytes; not to be used without UncompressedDigest
	Flags              struct {
		Incomplete any `json:"incomplete"` // true: it was being made or removed
	} `json:"flags"`
}

// incomplete tells whether the layer was being made or removed when that was interrupted.
func (l *layerRecord) incomplete() bool { return l.Flags.Incomplete == true }

// readRecords reads one of the JSON files, which are arrays of records. There may be none.
func readRecords[T any](d dir, name string, keep func(*T)) (err error) {
	f, size, err := d.regular(name, strict)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size > maxRecords {
		return fmt.Errorf("%s: has %d bytes, more than %d", f.Name(), size, int64(maxRecords))
	}
	if err := parseRecords(io.LimitReader(f, maxRecords), keep); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return nil
}

// parseRecords reads an array of records. Nothing at all is an array without records, as it is for the store's own tools.
func parseRecords[T any](r io.Reader, keep func(*T)) error {
	d := json.NewDecoder(r)
	switch t, err := d.Token(); {
	case err == io.EOF || err == nil && t == nil:
		return nil
	case err != nil:
		return err
	case t != json.Delim('['):
		return errors.New("is no JSON array")
	}
	for n := 0; d.More(); n++ {
		if n == maxRecordCount {
			return fmt.Errorf("has more than %d records", maxRecordCount)
		}
		record := new(T)
		if err := d.Decode(record); err != nil {
			return err
		}
		keep(record)
	}
	_, err := d.Token()
	return err
}

// validID tells whether an ID can be a part of a path: letters, digits, and within it dots, dashes and underscores. The
// store's own tools make IDs of 64 hexadecimal digits, but take others too.
func validID(id string) bool {
	for i := range len(id) {
		switch c := id[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case i > 0 && (c == '.' || c == '-' || c == '_'):
		default:
			return false
		}
	}
	return id != "" && len(id) <= maxID
}

// fileName is the name of the file that big data of this name is in: makeBigDataBaseName of go.podman.io/storage.
func fileName(key string) string {
	for i := range len(key) {
		if c := key[i]; c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return "=" + base64.StdEncoding.EncodeToString([]byte(key))
		}
	}
	return key
}

// shown is somebody else's text in a message.
func shown(s string) string { return oci.Printable(s, 200) }
