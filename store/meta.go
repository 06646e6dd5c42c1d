package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/fsverity"
	"golang.org/x/sys/unix"
)

const (
	metaName    = "meta.json"
	metaVersion = 1
	maxMeta     = 64 << 10 // bytes; ours has 219

	algorithmPrefix = "fsverity-"
	algorithmSuffix = "-12" // log2 of the block size

	// v1Feature: the default image format is version 1, which readers of version 2
	// alone can't make, but mount.
	v1Feature = "v1_erofs"
)

// meta is what meta.json says.
type meta struct {
	algorithm fsverity.Algorithm
	formats   []int // the default first, the others ascending
	roCompat  []string
	incompat  []string
}

// metaFile is the file that we write; the order of the fields is that of the keys.
type metaFile struct {
	Version   int          `json:"version"`
	Algorithm string       `json:"algorithm"`
	Features  featureFlags `json:"features"`
	Formats   formatSet    `json:"erofs_formats"`
}

type featureFlags struct {
	Compatible []string `json:"compatible"`
	ReadOnly   []string `json:"read-only-compatible"`
	Incompat   []string `json:"incompatible"`
}

type formatSet struct {
	Default int `json:"default"`
}

// encodeMeta is meta.json of a new store: byte for byte what other tools write for
// this hash and format version 1.
func encodeMeta(a fsverity.Algorithm) []byte {
	b, err := json.MarshalIndent(metaFile{
		Version:   metaVersion,
		Algorithm: algorithmPrefix + a.String() + algorithmSuffix,
		Features:  featureFlags{[]string{}, []string{v1Feature}, []string{}},
		Formats:   formatSet{Default: 1},
	}, "", "  ")
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return append(b, '\n')
}

// object is a JSON object by exact keys: encoding/json alone takes "Version" for
// "version", which other readers don't.
type object map[string]json.RawMessage

// field decodes o[key] into v and tells whether it was there.
func (o object) field(key string, v any) (bool, error) {
	raw, ok := o[key]
	if !ok || string(raw) == "null" {
		return false, nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return true, fmt.Errorf("%s: %w", key, err)
	}
	return true, nil
}

func (o object) required(key string, v any) error {
	ok, err := o.field(key, v)
	if err == nil && !ok {
		err = fmt.Errorf("%s is missing", key)
	}
	return err
}

// parseMeta reads meta.json of any tool. Unknown fields don't matter, unknown
// values do.
func parseMeta(b []byte) (meta, error) {
	var m meta
	var o object
	if err := json.Unmarshal(b, &o); err != nil {
		return m, err
	}
	if err := o.checkVersion(); err != nil {
		return m, err
	}
	var name string
	if err := o.required("algorithm", &name); err != nil {
		return m, err
	}
	var err error
	if m.algorithm, err = parseAlgorithm(name); err != nil {
		return m, err
	}
	var features object
	if _, err := o.field("features", &features); err != nil {
		return m, err
	}
	if _, err := features.field("read-only-compatible", &m.roCompat); err != nil {
		return m, err
	}
	if _, err := features.field("incompatible", &m.incompat); err != nil {
		return m, err
	}
	if _, err := features.field("compatible", new([]string)); err != nil {
		return m, err
	}
	m.formats, err = o.parseFormats(slices.Contains(m.roCompat, v1Feature))
	return m, err
}

func (o object) checkVersion() error {
	var version uint32
	if err := o.required("version", &version); err != nil {
		return err
	}
	if version > metaVersion {
		return fmt.Errorf("%w: version is %d, the last known one is %d", ErrFeature, version, metaVersion)
	}
	return nil
}

func parseAlgorithm(s string) (fsverity.Algorithm, error) {
	name, ok := strings.CutPrefix(s, algorithmPrefix)
	name, ok2 := strings.CutSuffix(name, algorithmSuffix)
	if ok && ok2 {
		for _, a := range []fsverity.Algorithm{fsverity.SHA256, fsverity.SHA512} {
			if name == a.String() {
				return a, nil
			}
		}
	}
	return 0, fmt.Errorf("algorithm %.80q is not known", s)
}

// parseFormats: erofs_formats counts unless it is what a version 2 store has,
// which is also what a careless upgrade writes; the feature flag counts then.
func (o object) parseFormats(v1 bool) ([]int, error) {
	legacy := []int{2}
	if v1 {
		legacy = []int{1}
	}
	var set object
	ok, err := o.field("erofs_formats", &set)
	if err != nil || !ok {
		return legacy, err
	}
	var first int
	var extra []int
	if err := set.required("default", &first); err != nil {
		return nil, err
	}
	if _, err := set.field("extra", &extra); err != nil {
		return nil, err
	}
	for _, n := range append(extra, first) {
		if n < 0 || n > 2 {
			return nil, fmt.Errorf("erofs_formats: format version %d is not known", n)
		}
	}
	slices.Sort(extra)
	extra = slices.DeleteFunc(slices.Compact(extra), func(n int) bool { return n == first })
	if first == 2 && len(extra) == 0 {
		return legacy, nil
	}
	return append([]int{first}, extra...), nil
}

// checkFeatures refuses what a store of these features may not be used for.
func (m meta) checkFeatures(readOnly bool) error {
	if len(m.incompat) > 0 {
		return fmt.Errorf("%w: it needs the features %.200q", ErrFeature, m.incompat)
	}
	unknown := slices.DeleteFunc(slices.Clone(m.roCompat), func(f string) bool { return f == v1Feature })
	if len(unknown) > 0 && !readOnly {
		return fmt.Errorf("%w: it has the features %.200q, so this version may only read it", ErrFeature, unknown)
	}
	return nil
}

// loadSettings reads meta.json and finds how the store treats fs-verity.
func loadSettings(root dir, kernel verityOps) (meta, Verity, error) {
	f, err := openMeta(root)
	if err != nil {
		return meta{}, "", err
	}
	defer f.Close()
	m, err := readMeta(f)
	if err != nil {
		return m, "", fmt.Errorf("%s: %w", metaName, err)
	}
	mode, err := storeVerity(root, f, m.algorithm, kernel)
	return m, mode, err
}

func openMeta(root dir) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK
	fd, err := openat(root.fd, metaName, flags, 0)
	if err == unix.ENOENT {
		if err := noMeta(root); err != ErrOldStore {
			return nil, err
		}
		// Init makes objects/ after meta.json: it may have made both since the first look.
		if fd, err = openat(root.fd, metaName, flags, 0); err == unix.ENOENT {
			return nil, ErrOldStore
		}
	}
	if err != nil {
		return nil, pathError("open", root.join(metaName), err)
	}
	return os.NewFile(uintptr(fd), root.join(metaName)), nil
}

func readMeta(f *os.File) (meta, error) {
	b, err := io.ReadAll(io.LimitReader(f, maxMeta+1))
	if err != nil {
		return meta{}, err
	}
	if len(b) > maxMeta {
		return meta{}, fmt.Errorf("more than %d bytes", maxMeta)
	}
	return parseMeta(bytes.TrimSpace(b))
}

// noMeta says what a directory without meta.json is.
func noMeta(root dir) error {
	if st, err := root.lstat("objects"); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return ErrOldStore
	}
	return ErrNotStore
}

// storeVerity measures meta.json, which makes a store secure or not.
func storeVerity(root dir, f *os.File, a fsverity.Algorithm, kernel verityOps) (Verity, error) {
	d, err := kernel.measure(f)
	switch {
	case err == nil && d.Algorithm() != a:
		return "", fmt.Errorf("%s has %v fs-verity in a %v store", metaName, d.Algorithm(), a)
	case err == nil:
		return VerityRequire, nil
	case !errors.Is(err, fsverity.ErrNoVerity) && !errors.Is(err, fsverity.ErrNotSupported):
		return "", err
	}
	switch text, err := readNote(root, settingsDir, verityNote); {
	case errors.Is(err, ErrNotFound):
		return VerityAuto, nil
	case err != nil:
		return "", err
	case text == string(VerityOff):
		return VerityOff, nil
	default:
		return VerityAuto, nil
	}
}
