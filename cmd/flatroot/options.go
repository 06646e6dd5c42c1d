package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
)

// amount is the value of a flag that limits something: a number, or a number of bytes with the suffix K, M, G or T, which
// stand for powers of 1024.
type amount int64

// Set reads the flag's value.
func (a *amount) Set(s string) error {
	digits := strings.TrimRight(s, "KMGT")
	n, err := strconv.ParseInt(digits, 10, 64)
	shift := 0
	if suffix := s[len(digits):]; suffix != "" {
		shift = 10 * (1 + strings.Index("KMGT", suffix))
	}
	if err != nil || n < 1 || shift == 0 && digits != s || n<<shift>>shift != n {
		return errors.New("want a number above 0; K, M, G and T may follow it")
	}
	*a = amount(n << shift)
	return nil
}

func (a *amount) String() string { return strconv.FormatInt(int64(*a), 10) }

// limit is a flag for one of index.Limits. The names of the flags stand in that package's errors.
type limit struct {
	name, usage, byDefault string
	field                  func(l *index.Limits) *int64
}

func limits() []limit {
	return []limit{
		{"max-entries", "more than `N` entries of a layer", "2M", func(l *index.Limits) *int64 { return &l.MaxEntries }},
		{"max-image-entries", "more than `N` entries of all layers of an image", "4M", func(l *index.Limits) *int64 { return &l.MaxImageEntries }},
		{"max-image-metadata", "more than `N` bytes of names, targets, extended attributes and small files of an image", "192M",
			func(l *index.Limits) *int64 { return &l.MaxImageMetadata }},
		{"max-file-size", "more than `N` bytes of a file, holes counted", "64G", func(l *index.Limits) *int64 { return &l.MaxFileSize }},
		{"max-layer-size", "more than `N` bytes of a layer, uncompressed", "256G", func(l *index.Limits) *int64 { return &l.MaxLayerSize }},
		{"max-xattrs", "more than `N` extended attributes of an entry", "256", func(l *index.Limits) *int64 { return &l.MaxXattrs }},
		{"max-xattr-bytes", "more than `N` bytes of an entry's extended attributes", "256K", func(l *index.Limits) *int64 { return &l.MaxXattrBytes }},
		{"max-layer-xattr-bytes", "more than `N` bytes of a layer's extended attributes", "256M",
			func(l *index.Limits) *int64 { return &l.MaxLayerXattrBytes }},
		{"max-pax-bytes", "more than `N` bytes of an extension header", "1M", func(l *index.Limits) *int64 { return &l.MaxPAXBytes }},
		{"max-ratio", "a layer over 1 GiB that is more than `N` times as large as its blob", "500", func(l *index.Limits) *int64 { return &l.MaxRatio }},
	}
}

// limitFlags are the flags of every command that reads layers.
func limitFlags() []cli.Flag {
	var flags []cli.Flag
	for _, l := range limits() {
		flags = append(flags, &cli.GenericFlag{
			Name: l.name, Value: new(amount), Category: limitsCategory, DefaultText: l.byDefault,
			Usage: "refuse " + l.usage,
		})
	}
	return flags
}

func (v *invocation) limits() index.Limits {
	var set index.Limits
	for _, l := range limits() {
		if a, ok := v.Generic(l.name).(*amount); ok {
			*l.field(&set) = int64(*a)
		}
	}
	return set
}

func rulesFlag() cli.Flag {
	return &cli.StringFlag{Name: "rules", Value: string(index.OCI1), Usage: "make the tree of the layers by `RULES`: oci-1 or faithful-1"}
}

func platformFlag() cli.Flag {
	return &cli.StringFlag{Name: "platform",
		Usage: "of an image for several platforms take the one for `OS/ARCH[/VARIANT]`; default: this machine's"}
}

func hashFlag() cli.Flag {
	return &cli.StringFlag{Name: "hash", Value: fsverity.SHA256.String(), Usage: "compute digests with `ALGORITHM`, sha256 or sha512"}
}

func formatFlag() cli.Flag {
	return &cli.StringFlag{Name: "format", Value: "1",
		Usage: "make an image of composefs format `VERSION` 0, 1 or auto, which is 1 only for a tree with whiteouts"}
}

// parsed is a flag's value that has a form.
func parsed[T any](v *invocation, name string, parse func(string) (T, error)) (T, error) {
	t, err := parse(v.String(name))
	if err != nil {
		err = v.usagef("%v", err)
	}
	return t, err
}

func (v *invocation) rules() (index.Rules, error) { return parsed(v, "rules", index.ParseRules) }

func (v *invocation) hash() (fsverity.Algorithm, error) {
	return parsed(v, "hash", fsverity.ParseAlgorithm)
}

func (v *invocation) format() (erofs.Format, error) { return parsed(v, "format", erofs.ParseFormat) }

func (v *invocation) platform() (oci.Platform, error) {
	if v.String("platform") == "" {
		return oci.Platform{}, nil
	}
	return parsed(v, "platform", oci.ParsePlatform)
}

// ofIndexFlag is the flag of commands that want one image of the store.
func ofIndexFlag() cli.Flag {
	return &cli.StringFlag{Name: "platform",
		Usage: "of an image index, which pull --platform all has stored, take the image for `OS/ARCH[/VARIANT]`"}
}

// reading is what commands that read layers or trees have in common.
type reading struct {
	platform oci.Platform
	rules    index.Rules
	limits   index.Limits
}

func readingFlags() []cli.Flag { return readingFlagsWith(platformFlag()) }

func readingFlagsWith(platform cli.Flag) []cli.Flag {
	return append([]cli.Flag{rulesFlag(), platform}, limitFlags()...)
}

func (v *invocation) reading() (r reading, err error) {
	if r, err = v.readingAny(); err == nil {
		r.platform, err = v.platform()
	}
	return r, err
}

// readingAny leaves the platform out.
func (v *invocation) readingAny() (r reading, err error) {
	r.limits = v.limits()
	r.rules, err = v.rules()
	return r, err
}

// options are those of an import by which no name is given.
func (r reading) options() index.ImportOptions {
	return index.ImportOptions{Rules: r.rules, Platform: r.platform, Limits: r.limits, Image: writeImage(erofs.Format1, nil)}
}

// expectDigest reads the value of --expect.
func expectDigest(s string) (d fsverity.Digest, err error) {
	if s == "" {
		return d, nil
	}
	if d, err = fsverity.ParseDigest(s); err != nil {
		err = fmt.Errorf("--expect: %w", err)
	}
	return d, err
}
