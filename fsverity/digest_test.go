package fsverity

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

const (
	hex256 = "1e2eaa4202d750a41174ee454970b92c1bc2f925b1e35076d8c7d5f56362ba64"
	hex512 = hex256 + "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
)

func TestParseDigest(t *testing.T) {
	tests := []struct {
		in   string
		want Algorithm // 0: refused
	}{
		{hex256, SHA256},
		{hex512, SHA512},
		{strings.ToUpper(hex256), SHA256},
		{strings.ToUpper(hex512), SHA512},
		{"", 0},
		{hex256[1:], 0},
		{hex256 + "0", 0},
		{hex512 + "00", 0},
		{hex256[:40], 0},
		{"sha256:" + hex256, 0},
		{"g" + hex256[1:], 0},
		{hex256[:63] + "\n", 0},
		{strings.Repeat("é", 32), 0},
	}
	for _, tt := range tests {
		d, err := ParseDigest(tt.in)
		if tt.want == 0 {
			if err == nil || !d.IsZero() {
				t.Errorf("ParseDigest(%q) = %v, %v; want an error", tt.in, d, err)
			}
			continue
		}
		if err != nil || d.Algorithm() != tt.want || d.String() != strings.ToLower(tt.in) {
			t.Errorf("ParseDigest(%q) = %v, %v", tt.in, d, err)
		}
	}
}

func TestNewDigest(t *testing.T) {
	for _, a := range []Algorithm{SHA256, SHA512} {
		raw := bytes.Repeat([]byte{0xa5}, a.Size())
		d, err := NewDigest(a, raw)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(d.Bytes(), raw) || !bytes.Equal(d.AppendTo([]byte("x"))[1:], raw) {
			t.Errorf("%v: bytes come back as %x", a, d.Bytes())
		}
		raw[0], d.Bytes()[0] = 0, 0
		if d.String() != strings.Repeat("a5", a.Size()) {
			t.Errorf("%v: digest shares memory with its caller", a)
		}
		for _, n := range []int{0, a.Size() - 1, a.Size() + 1} {
			if _, err := NewDigest(a, make([]byte, n)); err == nil {
				t.Errorf("%v: digest of %d bytes was taken", a, n)
			}
		}
	}
	for _, a := range []Algorithm{0, 3} {
		if _, err := NewDigest(a, nil); err == nil {
			t.Errorf("algorithm %d was taken", a)
		}
	}
}

func TestObjectPath(t *testing.T) {
	for _, h := range []string{hex256, hex512} {
		d, _ := ParseDigest(h)
		path := d.ObjectPath()
		if path != h[:2]+"/"+h[2:] {
			t.Errorf("object path of %s is %s", h, path)
		}
		back, err := ParseObjectPath([]byte(path))
		if err != nil || back != d {
			t.Errorf("ParseObjectPath(%s) = %v, %v", path, back, err)
		}
	}
	bad := []string{
		"", "/", "1e/", hex256, "/" + hex256, hex256[:2] + "/" + hex256[2:63], hex256[:2] + "/" + hex256[2:] + "0",
		strings.ToUpper(hex256[:2]) + "/" + hex256[2:], hex256[:2] + "//" + hex256[3:], hex512[:2] + "/" + hex512[2:] + "00",
		hex256[:1] + "/" + hex256[1:],
	}
	for _, s := range bad {
		if d, err := ParseObjectPath([]byte(s)); err == nil {
			t.Errorf("ParseObjectPath(%q) = %v; want an error", s, d)
		}
	}
}

func TestZeroDigest(t *testing.T) {
	var d Digest
	if !d.IsZero() || d.Algorithm() != 0 || d.String() != "" || d.ObjectPath() != "" || len(d.Bytes()) != 0 {
		t.Errorf("zero digest is %q, path %q", d, d.ObjectPath())
	}
	allZero, err := NewDigest(SHA256, make([]byte, 32))
	if err != nil || allZero.IsZero() {
		t.Errorf("a digest of zero bytes is not the zero digest: %v, %v", allZero, err)
	}
}

func TestCompare(t *testing.T) {
	low, _ := ParseDigest(hex256)
	high, _ := ParseDigest("f" + hex256[1:])
	long, _ := ParseDigest(hex512)
	sorted := []Digest{{}, low, high, long}
	for i, a := range sorted {
		for j, b := range sorted {
			if got, want := sign(a.Compare(b)), sign(i-j); got != want {
				t.Errorf("compare %v with %v: %d, want %d", a, b, got, want)
			}
		}
	}
}

func sign(n int) int { return max(-1, min(1, n)) }

func TestDigestJSON(t *testing.T) {
	type report struct {
		Image Digest `json:"image,omitzero"`
	}
	d, _ := ParseDigest(hex256)
	out, err := json.Marshal(report{d})
	if err != nil || string(out) != `{"image":"`+hex256+`"}` {
		t.Fatalf("got %s, %v", out, err)
	}
	var back report
	if err := json.Unmarshal(out, &back); err != nil || back.Image != d {
		t.Errorf("got %v, %v", back.Image, err)
	}
	if out, _ := json.Marshal(report{}); string(out) != `{}` {
		t.Errorf("zero digest is written as %s", out)
	}
	if err := json.Unmarshal([]byte(`{"image":"12"}`), &back); err == nil || back.Image != d {
		t.Errorf("short digest: %v, %v", back.Image, err)
	}
}

func TestParseAlgorithm(t *testing.T) {
	for _, a := range []Algorithm{SHA256, SHA512} {
		if got, err := ParseAlgorithm(a.String()); err != nil || got != a {
			t.Errorf("ParseAlgorithm(%v) = %v, %v", a, got, err)
		}
	}
	for _, s := range []string{"", "SHA256", "sha1", "sha-256", Algorithm(0).String()} {
		if a, err := ParseAlgorithm(s); err == nil {
			t.Errorf("ParseAlgorithm(%q) = %v; want an error", s, a)
		}
	}
}

func FuzzParseDigest(f *testing.F) {
	for _, s := range []string{hex256, hex512, hex256[:2] + "/" + hex256[2:], "", "/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDigest(s); err == nil && d.String() != strings.ToLower(s) {
			t.Errorf("ParseDigest(%q) = %v", s, d)
		}
		if d, err := ParseObjectPath([]byte(s)); err == nil && d.ObjectPath() != s {
			t.Errorf("ParseObjectPath(%q) = %v", s, d)
		}
	})
}
