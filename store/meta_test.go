package store_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
)

const metaSHA256 = `{
  "version": 1,
  "algorithm": "fsverity-sha256-12",
  "features": {
    "compatible": [],
    "read-only-compatible": [
      "v1_erofs"
    ],
    "incompatible": []
  },
  "erofs_formats": {
    "default": 1
  }
}
`

func TestMetaBytes(t *testing.T) {
	if got := string(store.EncodeMeta(fsverity.SHA256)); got != metaSHA256 || len(got) != 219 {
		t.Errorf("sha256, %d bytes:\n%s", len(got), got)
	}
	want := strings.Replace(metaSHA256, "sha256", "sha512", 1)
	if got := string(store.EncodeMeta(fsverity.SHA512)); got != want {
		t.Errorf("sha512:\n%s", got)
	}
	s := newStore(t)
	if got, err := os.ReadFile(s.Dir() + "/meta.json"); err != nil || string(got) != metaSHA256 {
		t.Errorf("%v\n%s", err, got)
	}
}

// metaWith is a meta.json with these fields behind the required ones.
func metaWith(fields string) string {
	return `{"version": 1, "algorithm": "fsverity-sha256-12"` + fields + `}`
}

func TestParseMetaFormats(t *testing.T) {
	const v1 = `, "features": {"read-only-compatible": ["v1_erofs"]}`
	for _, tc := range []struct {
		fields string
		want   []int
	}{
		{``, []int{2}},
		{`, "features": {}`, []int{2}},
		{`, "features": null`, []int{2}},
		{v1, []int{1}},
		{v1 + `, "erofs_formats": {"default": 1}`, []int{1}},
		{v1 + `, "erofs_formats": {"default": 2}`, []int{1}},
		{v1 + `, "erofs_formats": {"default": 2, "extra": [2]}`, []int{1}},
		{v1 + `, "erofs_formats": {"default": 1, "extra": [2]}`, []int{1, 2}},
		{v1 + `, "erofs_formats": {"default": 2, "extra": [1]}`, []int{2, 1}},
		{`, "erofs_formats": {"default": 2}`, []int{2}},
		{`, "erofs_formats": {"default": 0}`, []int{0}},
		{`, "erofs_formats": {"default": 1, "extra": [2, 0, 1, 2]}`, []int{1, 0, 2}},
		{`, "erofs_version": 7, "Version": 9, "x": {}`, []int{2}},
	} {
		a, got, readOnly, writable, err := store.ParseMeta([]byte(metaWith(tc.fields)))
		if err := errors.Join(readOnly, writable, err); err != nil || a != fsverity.SHA256 || !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, %v, %v; want %v", tc.fields, a, got, err, tc.want)
		}
	}
	if a, _, _, _, err := store.ParseMeta([]byte(`{"version":0,"algorithm":"fsverity-sha512-12"}`)); a != fsverity.SHA512 || err != nil {
		t.Errorf("version 0: %v, %v", a, err)
	}
}

func TestParseMetaRefuses(t *testing.T) {
	for _, text := range []string{
		``, `[]`, `null`, `{}`, `{"version":1}`, `{"algorithm":"fsverity-sha256-12"}`, metaSHA256 + "x",
		`{"version":2,"algorithm":"fsverity-sha256-12"}`,
		`{"version":"1","algorithm":"fsverity-sha256-12"}`,
		`{"version":-1,"algorithm":"fsverity-sha256-12"}`,
		`{"Version":1,"algorithm":"fsverity-sha256-12"}`,
		`{"version":1,"algorithm":"fsverity-sha256-16"}`,
		`{"version":1,"algorithm":"fsverity-sha384-12"}`,
		`{"version":1,"algorithm":"fsverity-SHA256-12"}`,
		`{"version":1,"algorithm":"sha256"}`,
		metaWith(`, "features": []`),
		metaWith(`, "features": {"incompatible": "x"}`),
		metaWith(`, "features": {"compatible": [1]}`),
		metaWith(`, "erofs_formats": {}`),
		metaWith(`, "erofs_formats": 1`),
		metaWith(`, "erofs_formats": {"default": 3}`),
		metaWith(`, "erofs_formats": {"default": 1, "extra": [-1]}`),
		metaWith(`, "erofs_formats": {"default": 1.5}`),
	} {
		if _, _, _, _, err := store.ParseMeta([]byte(text)); err == nil {
			t.Errorf("accepted: %s", text)
		}
	}
}

func TestFeatureFlags(t *testing.T) {
	for _, tc := range []struct {
		features           string
		readable, writable bool
	}{
		{`"compatible": ["new"]`, true, true},
		{`"read-only-compatible": ["v1_erofs", "new"]`, true, false},
		{`"incompatible": ["new"]`, false, false},
	} {
		dir := t.TempDir()
		must(t, os.WriteFile(dir+"/meta.json", []byte(metaWith(`, "features": {`+tc.features+`}`)), 0o644))
		for _, o := range []store.OpenOptions{{ReadOnly: true}, {}} {
			want := tc.writable || o.ReadOnly && tc.readable
			s, err := store.Open(dir, o)
			if err == nil {
				must(t, s.Close())
			}
			if want != (err == nil) || err != nil && !errors.Is(err, store.ErrFeature) {
				t.Errorf("%s, read-only %v: %v", tc.features, o.ReadOnly, err)
			}
		}
	}
}

func TestHugeMeta(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/meta.json", []byte(metaSHA256+strings.Repeat(" ", 1<<20)), 0o644))
	if _, err := store.Open(dir, store.OpenOptions{}); err == nil {
		t.Error("accepted")
	}
}

func FuzzParseMeta(f *testing.F) {
	f.Add([]byte(metaSHA256))
	f.Add([]byte(metaWith(`, "erofs_formats": {"default": 1, "extra": [2]}`)))
	f.Add([]byte(metaWith(`, "features": {"incompatible": ["x"]}`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, formats, readOnly, writable, err := store.ParseMeta(b)
		if err != nil {
			return
		}
		if a.Size() == 0 || len(formats) == 0 || len(formats) > 3 {
			t.Errorf("%v, formats %v", a, formats)
		}
		if readOnly != nil && writable == nil {
			t.Error(fmt.Errorf("may be written but not read: %w", readOnly))
		}
	})
}
