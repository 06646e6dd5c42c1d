package index

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

func TestParseNumber(t *testing.T) {
	tests := []struct {
		in   string
		want int64
		err  string
	}{
		{in: "0000644\x00", want: 0o644},
		{in: "0000644 ", want: 0o644},
		{in: "   644 \x00", want: 0o644},
		{in: "\x00\x00644\x00\x00", want: 0o644},
		{in: "77777777", want: 0o77777777}, // no room for an end
		{in: "777777777777", want: 1<<36 - 1},
		{in: "12\x00rubbish", want: 0o12}, // behind a NUL nothing counts
		{in: "0\x00rubbish", want: 0},
		{in: "\x00\x00\x00\x00\x00\x00\x00\x00", want: 0},
		{in: "        ", want: 0},
		{in: "0000648\x00", err: "no octal"},
		{in: "-000644\x00", err: "no octal"},
		{in: "+000644\x00", err: "no octal"},
		{in: "0x1f\x00\x00\x00\x00", err: "no octal"},
		{in: "12 34\x00\x00\x00", err: "no octal"},
		{in: "12 \x00rubb", err: "no octal"},
		{in: "\x00rubbish", err: "no octal"},
		{in: "\x80\x00\x00\x00\x00\x00\x00\x07", want: 7},
		{in: "\x80\x00\x00\x00\x00\x00\x00\x00", want: 0},
		{in: "\xff\xff\xff\xff\xff\xff\xff\xff", want: -1},
		{in: "\xff\xff\xff\xff\xff\xff\xff\xf0", want: -16},
		{in: "\xc0\x00\x00\x00\x00\x00\x00\x00", want: -1 << 62},
		{in: "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff", want: math.MaxInt64},
		{in: "\xff\xff\xff\xff\x80\x00\x00\x00\x00\x00\x00\x00", want: math.MinInt64},
		{in: "\x80\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00", err: "64 bits"},
		{in: "\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", err: "64 bits"},
		{in: "\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00", err: "64 bits"},
		{in: "\xc0\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", err: "64 bits"},
	}
	for _, tt := range tests {
		got, err := parseNumber([]byte(tt.in))
		if !errorIs(err, tt.err) || got != tt.want {
			t.Errorf("%q: %d, %v; want %d, %q", tt.in, got, err, tt.want, tt.err)
		}
	}
}

// errorIs reports whether err has the text want in it, or is nil if want is "".
func errorIs(err error, want string) bool {
	if want == "" || err == nil {
		return want == "" && err == nil
	}
	return strings.Contains(err.Error(), want)
}

func TestChecksum(t *testing.T) {
	b := head{name: "sn\xf6", mode: 0o644, data: "\xff", edit: func(b []byte) {
		copy(b[fieldPrefix.off:], bytes.Repeat([]byte{0xff}, 155)) // fill the lanes of sum
	}}.block()
	var unsigned, signed int64
	for i, c := range b {
		if i >= fieldChecksum.off && i < fieldChecksum.end {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	for _, tt := range []struct {
		name, field, err string
	}{
		{"unsigned", octal(unsigned, 7) + "\x00 ", ""},
		{"unsigned without an end", octal(unsigned, 9), ""},
		{"signed", signedOctal(signed), ""},
		{"one off", octal(unsigned+1, 7) + "\x00 ", "header checksum is"},
		{"no number", "rubbish!", "header checksum: "},
		{"empty", strings.Repeat("\x00", 8), "header checksum is 0"},
	} {
		h := (*tarHeader)(bytes.Clone(b))
		copy(h[fieldChecksum.off:fieldChecksum.end], tt.field)
		if err := h.verify(); !errorIs(err, tt.err) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.err)
		}
	}
	all := tarHeader(bytes.Repeat([]byte{0xff}, tarBlock))
	if want := int64(504*255 + 8*' '); all.sum() != want {
		t.Errorf("sum of a block of 0xff is %d, want %d", all.sum(), want)
	}
}

// signedOctal formats a signed sum, which is negative in TestChecksum, as the C
// programs that made such headers do: as the low bits of a long.
func signedOctal(n int64) string {
	if n < 0 {
		return base256(n, 8)
	}
	return octal(n, 7) + "\x00 "
}

func TestHeaderName(t *testing.T) {
	long := strings.Repeat("n", 100)
	star := func(b []byte) { copy(b[fieldTrailerStar.off:], "tar\x00") }
	tests := []struct {
		name string
		h    head
		want string
	}{
		{"short", head{name: "a/b"}, "a/b"},
		{"full field", head{name: long}, long},
		{"rubbish behind the NUL", head{name: "a\x00rubbish"}, "a"},
		{"ustar prefix", head{name: "a", prefix: "p/q"}, "p/q/a"},
		{"full ustar prefix", head{name: long, prefix: strings.Repeat("p", 155)}, strings.Repeat("p", 155) + "/" + long},
		{"star prefix is shorter", head{name: "a", prefix: strings.Repeat("p", 155), edit: star}, strings.Repeat("p", 131) + "/a"},
		{"v7 has none", head{name: "a", prefix: "p", magic: "\x00\x00\x00\x00\x00\x00\x00\x00"}, "a"},
		{"GNU has times there", head{name: "a", prefix: octal(1, 12) + octal(2, 12), magic: magicGNU}, "a"},
		{"GNU with a prefix by old Go", head{name: "a", prefix: "usr/share/doc", magic: magicGNU}, "usr/share/doc/a"},
		{"GNU with rubbish", head{name: "a", prefix: "usr/share/d\xf6c", magic: magicGNU}, "a"},
		{"ustar, other version", head{name: "a", prefix: "p", magic: "ustar\x00xx"}, "p/a"},
	}
	for _, tt := range tests {
		h := (*tarHeader)(tt.h.block())
		if got := h.appendName(nil); string(got) != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestAppendClean(t *testing.T) {
	c255 := strings.Repeat("c", 255)
	deep := strings.TrimSuffix(strings.Repeat("d/", 2048), "/") // 4095 bytes
	tests := []struct{ in, want, err string }{
		{in: "a", want: "a"},
		{in: "a/b", want: "a/b"},
		{in: "/a/b", want: "a/b"},
		{in: "///a", want: "a"},
		{in: "a/b/", want: "a/b"},
		{in: "a//b///", want: "a/b"},
		{in: "./a/./b/.", want: "a/b"},
		{in: "", want: ""},
		{in: "/", want: ""},
		{in: "./", want: ""},
		{in: "...", want: "..."},
		{in: ".a/..b/c..", want: ".a/..b/c.."},
		{in: "a/\xff\n\\", want: "a/\xff\n\\"},
		{in: c255, want: c255},
		{in: deep, want: deep},
		{in: "./" + deep + "/", want: deep},
		{in: "..", err: `".."`},
		{in: "a/../b", err: `".."`},
		{in: "a/..", err: `".."`},
		{in: "/..", err: `".."`},
		{in: c255 + "c", err: "component of 256 bytes"},
		{in: deep + "d", err: "path has 4096 bytes"},
		{in: "a\x00b", err: "NUL"},
	}
	for _, tt := range tests {
		got, err := appendClean(nil, []byte(tt.in))
		if !errorIs(err, tt.err) || err == nil && string(got) != tt.want {
			t.Errorf("%.40q: %.40q, %v; want %.40q, %q", tt.in, got, err, tt.want, tt.err)
		}
	}
}
