package mount

import (
	"strings"

	"github.com/flatroot/flatroot/fsverity"
)

// sourcePrefix begins the source of each of our mounts, as mountinfo shows it:
// flatroot:DIGEST:MODE:IMAGE-CHECK:OBJECT-CHECK, where DIGEST is "-" if it isn't
// known. It is all that List has to tell our mounts and what they check.
const sourcePrefix = "flatroot:"

// lowerSource is the source of a FUSE mount that only an overlay shows: not one
// of our mounts to List, though it can be seen while the overlay is made.
const lowerSource = "flatroot"

func formatSource(d fsverity.Digest, m Mode, v Verification) string {
	hex := "-"
	if !d.IsZero() {
		hex = d.String()
	}
	return sourcePrefix + strings.Join([]string{hex, string(m), string(v.Image), string(v.Objects)}, ":")
}

// parseSource is formatSource's inverse; ok is false for what isn't ours.
func parseSource(s string) (d fsverity.Digest, m Mode, v Verification, ok bool) {
	var none fsverity.Digest
	rest, ok := strings.CutPrefix(s, sourcePrefix)
	f := strings.Split(rest, ":")
	if !ok || len(f) != 4 {
		return none, "", v, false
	}
	if f[0] != "-" {
		var err error
		if d, err = fsverity.ParseDigest(f[0]); err != nil {
			return none, "", v, false
		}
	}
	m, err := ParseMode(f[1])
	got := Verification{Image: ImageCheck(f[2]), Objects: ObjectCheck(f[3])}
	if err != nil || m == ModeAuto || !got.Image.valid() || !got.Objects.valid() {
		return none, "", v, false
	}
	return d, m, got, true
}
