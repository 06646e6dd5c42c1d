package dump

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

const (
	rootLine = "/ 0 40755 2 0 0 0 1.0 - - -\n"
	hex256   = "1e2eaa4202d750a41174ee454970b92c1bc2f925b1e35076d8c7d5f56362ba64"
	hex512   = hex256 + "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
)

func parse(s string) (*tree.Tree, error) { return Parse(strings.NewReader(s), Options{}) }

func print(t *testing.T, tr *tree.Tree) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, tr); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestParse compares what a dump means with how it is printed; "" stands for the same text.
func TestParse(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"numbers", "/f +5 0100644 -1 007 4294967297 9 -1.7 - - -\n", "/f 5 100644 4294967295 7 1 0 -1.7 - - -\n"},
		{"overflow", "/f 99999999999999999999 100644 99999999999999999999 0 0 0 1.99999999999 - - -\n",
			"/f 18446744073709551615 100644 4294967295 0 0 0 1.1215752191 - - -\n"},
		{"negative overflow", "/f -18446744073709551616 100644 1 0 0 0 9223372036854775808.-1 - - -\n",
			"/f 18446744073709551615 100644 1 0 0 0 -9223372036854775808.4294967295 - - -\n"},
		{"mode of more than 16 bits", "/f 0 7100644 1 0 0 0 0.0 - - -\n", "/f 0 100644 1 0 0 0 0.0 - - -\n"},
		{"slashes", "//d 0 40755 2 0 0 0 0.0 - - -\nd///f 0 100644 1 0 0 0 0.0 - - -\n",
			"/d 0 40755 2 0 0 0 0.0 - - -\n/d/f 0 100644 1 0 0 0 0.0 - - -\n"},
		{"order", "/b 0 100644 1 0 0 0 0.0 - - -\n/a 0 100644 1 0 0 0 0.0 - - -\n",
			"/a 0 100644 1 0 0 0 0.0 - - -\n/b 0 100644 1 0 0 0 0.0 - - -\n"},
		{"escapes", `/a\x20\\\n\r\t\xFf\x3d= 0 120777 1 0 0 0 0.0 \x2d - -` + "\n",
			`/a\x20\\\n\r\t\xff== 1 120777 1 0 0 0 0.0 \x2d - -` + "\n"},
		{"raw bytes", "/a\t\r\x7f\xc3\xa9 0 100644 1 0 0 0 0.0 - - -\n", `/a\t\r\x7f\xc3\xa9 0 100644 1 0 0 0 0.0 - - -` + "\n"},
		{"NUL ends a text", `/a\x00b 9 120777 1 0 0 0 0.0 c\x00d - - user.e\x00f=g\x00h` + "\n",
			`/a 1 120777 1 0 0 0 0.0 c - - user.e=g\x00h` + "\n"},
		{"NUL in content", `/f 3 100644 1 0 0 0 0.0 - a\x00b -` + "\n", ""},
		{"content wins", "/f 1 100644 1 0 0 0 0.0 pay x " + hex256 + "\n", "/f 1 100644 1 0 0 0 0.0 - x -\n"},
		{"empty content", "/f 0 100644 1 0 0 0 0.0 pay  -\n", "/f 0 100644 1 0 0 0 0.0 pay - -\n"},
		{"empty payload", "/f 5 100644 1 0 0 0 0.0  - -\n", "/f 5 100644 1 0 0 0 0.0 - - -\n"},
		{"object", "/f 5 100644 1 0 0 0 0.0 " + hex256[:2] + "/" + hex256[2:] + " - " + hex256 + "\n", ""},
		{"odd payload", "/f 5 100644 1 0 0 0 0.0 /x/\\x20y - " + hex256 + "\n", ""},
		{"upper-case digest", "/f 5 100644 1 0 0 0 0.0 - - " + strings.ToUpper(hex256) + "\n",
			"/f 5 100644 1 0 0 0 0.0 - - " + hex256 + "\n"},
		{"escaped digest", `/f 5 100644 1 0 0 0 0.0 - - \x31` + hex256[1:] + "\n", "/f 5 100644 1 0 0 0 0.0 - - " + hex256 + "\n"},
		{"data of what is no file", "/p 7 10644 1 0 0 5 0.0 pay content " + hex256 + "\n", "/p 7 10644 1 0 0 0 0.0 - - -\n"},
		{"device", "/c 7 20644 1 0 0 771 0.0 - - -\n/d 0 60644 1 0 0 4294967295 0.0 - - -\n", ""},
		{"xattrs", "/f 0 100644 1 0 0 0 0.0 - - - user.b=x user.a= user.b=y=z \n",
			`/f 0 100644 1 0 0 0 0.0 - - - user.a= user.b=y\x3dz` + "\n"},
		{"trailing space", "/f 0 100644 1 0 0 0 0.0 - - - \n", "/f 0 100644 1 0 0 0 0.0 - - -\n"},
		{"equal xattrs", "/e 0 100644 1 0 0 0 0.0 - - - a\\x3db=-\n/f 0 100644 1 0 0 0 0.0 - - - a\\x3db=-\n", ""},
		{"no newline at the end", "/f 0 100644 1 0 0 0 0.0 - - -", "/f 0 100644 1 0 0 0 0.0 - - -\n"},
		{"hard link", "/f 5 100644 2 0 0 0 0.0 - - -\n/l x @120000 - - - - x //f/ xx xx z\n",
			"/f 5 100644 2 0 0 0 0.0 - - -\n/l 5 @100644 2 0 0 0 0.0 /f - -\n"},
		{"hard link without the last fields", "/f 5 100644 2 0 0 0 0.0 - - -\n/l x @120000 - - - - x f\n",
			"/f 5 100644 2 0 0 0 0.0 - - -\n/l 5 @100644 2 0 0 0 0.0 /f - -\n"},
		{"hard link to a later line", "/a 0 @100644 1 0 0 0 0.0 /d/f - -\n/d 0 40755 2 0 0 0 0.0 - - -\n/d/f 1 100644 2 0 0 0 0.0 - y - user.a=b\n",
			"/a 1 @100644 2 0 0 0 0.0 /d/f y - user.a=b\n/d 0 40755 2 0 0 0 0.0 - - -\n/d/f 1 100644 2 0 0 0 0.0 - y - user.a=b\n"},
		{"chain of hard links", "/a 0 @100644 1 0 0 0 0.0 /b - -\n/b 0 @100644 1 0 0 0 0.0 /c - -\n/c 0 @100644 1 0 0 0 0.0 /d - -\n/d 0 10644 9 0 0 0 0.0 - - -\n",
			"/a 0 @10644 9 0 0 0 0.0 /d - -\n/b 0 @10644 9 0 0 0 0.0 /d - -\n/c 0 @10644 9 0 0 0 0.0 /d - -\n/d 0 10644 9 0 0 0 0.0 - - -\n"},
		{"chain to an earlier line", "/d 0 10644 9 0 0 0 0.0 - - -\n/a 0 @100644 1 0 0 0 0.0 /d - -\n/b 0 @100644 1 0 0 0 0.0 /a - -\n",
			"/a 0 @10644 9 0 0 0 0.0 /d - -\n/b 0 @10644 9 0 0 0 0.0 /d - -\n/d 0 10644 9 0 0 0 0.0 - - -\n"},
	}
	for _, tt := range tests {
		want := rootLine + tt.want
		if tt.want == "" {
			want = rootLine + tt.in
		}
		tr, err := parse(rootLine + tt.in)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := print(t, tr); got != want {
			t.Errorf("%s: got\n%swant\n%s", tt.name, got, want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	file := func(fields string) string { return rootLine + "/f " + fields + "\n" }
	long := strings.Repeat("x", 70000)
	tests := []struct {
		name, in string
		line     int
		reason   string
	}{
		{"empty input", "", 0, "no line"},
		{"no root", "/f 0 100644 1 0 0 0 0.0 - - -\n", 1, "must be the root"},
		{"hard link first", "/f 0 @100644 1 0 0 0 0.0 /x - -\n", 1, "must be the root"},
		{"root is a file", "/ 0 100644 1 0 0 0 0.0 - - -\n", 1, "root is no directory"},
		{"two roots", rootLine + rootLine, 2, "second root"},
		{"root as a hard link", rootLine + "/ 0 @100644 1 0 0 0 0.0 /x - -\n", 2, "bad name"},
		{"blank line", rootLine + "\n", 2, "SIZE is missing"},
		{"few fields", file("0 100644 1 0 0 0 0.0 - -"), 2, "DIGEST is missing"},
		{"NUL byte", rootLine + "/f\x00 0 100644 1 0 0 0 0.0 - - -\n", 2, "NUL byte at column 3"},
		{"line number", rootLine + "/d 0 40755 1 0 0 0 0.0 - - -\n/d/f 0 100644 1 0 0 0 0.0 - - - x\n", 3, "without ="},
		{"size", file("5x 100644 1 0 0 0 0.0 - - -"), 2, `SIZE "5x" is not a number`},
		{"empty size", file(" 100644 1 0 0 0 0.0 - - -"), 2, "SIZE"},
		{"sign without digits", file("- 100644 1 0 0 0 0.0 - - -"), 2, "SIZE"},
		{"two signs", file("+-1 100644 1 0 0 0 0.0 - - -"), 2, "SIZE"},
		{"mode", file("0 100648 1 0 0 0 0.0 - - -"), 2, "MODE \"100648\" is not an octal number"},
		{"no type", file("0 644 1 0 0 0 0.0 - - -"), 2, "no known file type"},
		{"unknown type", file("0 110644 1 0 0 0 0.0 - - -"), 2, "no known file type"},
		{"nlink", file("0 100644 a 0 0 0 0.0 - - -"), 2, "NLINK"},
		{"uid", file("0 100644 1 a 0 0 0.0 - - -"), 2, "UID"},
		{"gid though the uid is not 0", file("0 100644 1 1 a 0 0.0 - - -"), 2, "GID"},
		{"rdev though the uid is not 0", file("0 100644 1 1 1 a 0.0 - - -"), 2, "RDEV"},
		{"mtime without a dot", file("0 100644 1 0 0 0 0 - - -"), 2, "no dot"},
		{"mtime without nanoseconds", file("0 100644 1 0 0 0 1. - - -"), 2, "not two numbers"},
		{"mtime with two dots", file("0 100644 1 0 0 0 1.2.3 - - -"), 2, "not two numbers"},
		{"unknown escape", file(`0 100644 1 0 0 0 0.0 \q - -`), 2, `PAYLOAD: unknown escape \q`},
		{"short escape", file(`0 100644 1 0 0 0 0.0 - \x4 -`), 2, "CONTENT: two hexadecimal digits"},
		{"escape of no digits", file(`0 100644 1 0 0 0 0.0 - \x4g -`), 2, "CONTENT: two hexadecimal digits"},
		{"backslash at the end", file(`0 100644 1 0 0 0 0.0 - - \`), 2, "DIGEST: nothing follows"},
		{"bad escape in the path", rootLine + `/\f 0 100644 1 0 0 0 0.0 - - -` + "\n", 2, "PATH: unknown escape"},
		{"bad escape in a key", file(`0 100644 1 0 0 0 0.0 - - - \k=v`), 2, "unknown escape"},
		{"bad escape in a value", file(`0 100644 1 0 0 0 0.0 - - - k=\v`), 2, `"k": unknown escape`},
		{"duplicate", file("0 100644 1 0 0 0 0.0 - - -\n/f 0 40755 1 0 0 0 0.0 - - -"), 3, `add "/f": name exists`},
		{"parent is missing", rootLine + "/d/f 0 100644 1 0 0 0 0.0 - - -\n", 2, `"/d" has no line`},
		{"parent is a file", file("0 100644 1 0 0 0 0.0 - - -\n/f/g 0 100644 1 0 0 0 0.0 - - -"), 3, "not a directory"},
		{"grandparent is a file", file("0 100644 1 0 0 0 0.0 - - -\n/f/g/h 0 100644 1 0 0 0 0.0 - - -"), 3, "not a directory"},
		{"dot", rootLine + "/. 0 100644 1 0 0 0 0.0 - - -\n", 2, "bad name"},
		{"dot dot", rootLine + "/.. 0 100644 1 0 0 0 0.0 - - -\n", 2, "bad name"},
		{"slash at the end", rootLine + "/d 0 40755 1 0 0 0 0.0 - - -\n/d/ 0 40755 1 0 0 0 0.0 - - -\n", 3, "bad name"},
		{"name of 256 bytes", rootLine + "/" + long[:256] + " 0 100644 1 0 0 0 0.0 - - -\n", 2, "256 bytes"},
		{"content of another length", file("5 100644 1 0 0 0 0.0 - abc -"), 2, "CONTENT has 3 bytes, but SIZE is 5"},
		{"empty content of another length", file("5 100644 1 0 0 0 0.0 -  -"), 2, "CONTENT has 0 bytes, but SIZE is 5"},
		{"content of a directory", rootLine + "/d 1 40755 1 0 0 0 0.0 - abc -\n", 2, "CONTENT has 3"},
		{"content of 5001", file("5001 100644 1 0 0 0 0.0 - " + long[:5001] + " -"), 2, "at most 5000"},
		{"payload of 4096", file("5 100644 1 0 0 0 0.0 " + long[:4096] + " - -"), 2, "at most 4095"},
		{"payload of a fifo", rootLine + "/p 5 10644 1 0 0 0 0.0 " + long[:4096] + " - -\n", 2, "at most 4095"},
		{"symlink without target", rootLine + "/l 5 120777 1 0 0 0 0.0 - - -\n", 2, "symlink target of 0 bytes"},
		{"symlink with an empty target", rootLine + `/l 5 120777 1 0 0 0 0.0 \x00x - -` + "\n", 2, "symlink target of 0 bytes"},
		{"short digest", file("5 100644 1 0 0 0 0.0 - - " + hex256[:62]), 2, "DIGEST"},
		{"long digest", file("5 100644 1 0 0 0 0.0 - - " + hex256 + "00"), 2, "DIGEST"},
		{"empty digest", file("5 100644 1 0 0 0 0.0 - - "), 2, "DIGEST"},
		{"digest of no digits", file("5 100644 1 0 0 0 0.0 - - x" + hex256[1:]), 2, "DIGEST"},
		{"bad digest of a directory", rootLine + "/d 1 40755 1 0 0 0 0.0 - - x\n", 2, "DIGEST"},
		{"two algorithms", file("5 100644 1 0 0 0 0.0 - - " + hex256 + "\n/g 5 100644 1 0 0 0 0.0 - - " + hex512), 3, "sha512, not of sha256"},
		{"two spaces before an xattr", file("5 100644 1 0 0 0 0.0 - - -  a=b"), 2, "without ="},
		{"two spaces at the end", file("5 100644 1 0 0 0 0.0 - - - a=b  "), 2, "without ="},
		{"empty key", file("5 100644 1 0 0 0 0.0 - - - =b"), 2, "bad value"},
		{"key of 256 bytes", file("5 100644 1 0 0 0 0.0 - - - " + long[:256] + "=b"), 2, "bad value"},
		{"xattrs of 32768", file("5 100644 1 0 0 0 0.0 - - - user.a=" + long[:32768-12-7-6]), 2, "more than 32767"},
		{"xattr text of 65536", file("5 100644 1 0 0 0 0.0 - - - a=b " + strings.Repeat("a=b ", 16383)), 2, "65536 bytes"},
		{"long line", rootLine + "/" + strings.Repeat("d/", lineMax/2) + "f 0 100644 1 0 0 0 0.0 - - -\n", 2, "line of more than"},
		{"hard link without a target", file("0 @100644 1 0 0 0 0.0 - - -"), 2, "there is none"},
		{"hard link without payload", file("0 @100644 1 0 0 0 0.0"), 2, "PAYLOAD is missing"},
		{"hard link of a directory", rootLine + "/d 0 40755 1 0 0 0 0.0 - - -\n/e 0 @40755 1 0 0 0 0.0 /d - -\n", 3, "more than one name"},
		{"hard link to a directory", rootLine + "/d 0 40755 1 0 0 0 0.0 - - -\n/e 0 @100755 1 0 0 0 0.0 /d - -\n", 3, "hard link to a directory"},
		{"hard link to a later directory", rootLine + "/e 0 @100755 1 0 0 0 0.0 /d - -\n/d 0 40755 1 0 0 0 0.0 - - -\n", 2, "hard link to a directory"},
		{"hard link to the root", file("0 @100644 1 0 0 0 0.0 / - -"), 2, "root"},
		{"hard link to nothing", file("0 @100644 1 0 0 0 0.0 /x - -"), 2, `"/x" has no line`},
		{"hard link below nothing", file("0 @100644 1 0 0 0 0.0 /x/y - -"), 2, `"/x" has no line`},
		{"hard link to itself", file("0 @100644 1 0 0 0 0.0 /f - -"), 2, "leads back"},
		{"loop of hard links", rootLine + "/a 0 @100644 1 0 0 0 0.0 /b - -\n/b 0 @100644 1 0 0 0 0.0 /a - -\n", 3, "leads back"},
		{"hard link where a name is", file("0 100644 1 0 0 0 0.0 - - -\n/g 0 100644 1 0 0 0 0.0 - - -\n/f 0 @100644 1 0 0 0 0.0 /g - -"), 4, "name exists"},
		{"name where a pending hard link is", file("0 @100644 1 0 0 0 0.0 /g - -\n/f 0 100644 1 0 0 0 0.0 - - -\n/g 0 100644 1 0 0 0 0.0 - - -"), 2, "name exists"},
		{"hard link as a parent", rootLine + "/f 0 100644 1 0 0 0 0.0 - - -\n/l 0 @100644 1 0 0 0 0.0 /f - -\n/l/x 0 100644 1 0 0 0 0.0 - - -\n", 4, "not a directory"},
		{"bad name of a hard link", rootLine + "/f 0 100644 1 0 0 0 0.0 - - -\n/.. 0 @100644 1 0 0 0 0.0 /f - -\n", 3, "bad name"},
	}
	for _, tt := range tests {
		_, err := Parse(strings.NewReader(tt.in), Options{File: "some.dump"})
		var s *SyntaxError
		switch {
		case !errors.As(err, &s):
			t.Errorf("%s: %v, want a SyntaxError", tt.name, err)
		case s.File != "some.dump" || s.Line != tt.line || !strings.Contains(s.Error(), tt.reason):
			t.Errorf("%s: %v, want line %d and %q", tt.name, err, tt.line, tt.reason)
		}
	}
}

func TestSyntaxError(t *testing.T) {
	reason := errors.New("reason")
	tests := map[string]SyntaxError{
		"a.dump:7: reason": {"a.dump", 7, reason},
		"dump:1: reason":   {"", 1, reason},
		"a.dump: reason":   {"a.dump", 0, reason},
	}
	for want, e := range tests {
		if e.Error() != want || !errors.Is(&e, reason) {
			t.Errorf("got %q, want %q", e.Error(), want)
		}
	}
}

func TestStrict(t *testing.T) {
	tests := map[string]bool{
		"/l 2 120777 1 0 0 0 0.0 ab - -\n":                                                 true,
		"/l 3 120777 1 0 0 0 0.0 ab - -\n":                                                 false,
		"/l 2 120777 1 0 0 0 0.0 ab cd -\n":                                                false,
		"/f 0 100644 1 0 0 5 0.0 - - -\n":                                                  false,
		"/c 0 20644 1 0 0 5 0.0 - - -\n":                                                   true,
		"/f 0 100644 1 0 0 0 0.0 - - -":                                                    false,
		"/f 0 100644 1 0 0 0 0.0 - - -\n/l - @100644 - - - - - /f":                         false,
		"/f 0 100644 1 0 0 0 0.0 - - -\n/l - @100644 - - - - - /f - -\n":                   true,
		"/d 1 40755 1 0 0 0 0.0 - - -\n/d/f 3 100644 1 0 0 0 0.0 a/b abc " + hex256 + "\n": true,
	}
	for in, ok := range tests {
		_, err := Parse(strings.NewReader(rootLine+in), Options{Strict: true})
		if (err == nil) != ok {
			t.Errorf("%q: %v", in, err)
		}
		if _, err := parse(rootLine + in); err != nil {
			t.Errorf("%q, not strict: %v", in, err)
		}
	}
}

func TestAlgorithm(t *testing.T) {
	digest := func(d string) string { return "/f" + d[:3] + " 1 100644 1 0 0 0 0.0 - - " + d + "\n" }
	payload := func(d string) string { return "/b" + d[:3] + " 1 100644 1 0 0 0 0.0 " + d[:2] + "/" + d[2:] + " - -\n" }
	plain := "/a 1 100644 1 0 0 0 0.0 plain - -\n"
	tests := []struct {
		name, in string
		o, want  fsverity.Algorithm // want 0: refused
	}{
		{"nothing", "", 0, fsverity.SHA256},
		{"by option", "", fsverity.SHA512, fsverity.SHA512},
		{"digest", digest(hex512), 0, fsverity.SHA512},
		{"payload", payload(hex512), 0, fsverity.SHA512},
		{"payload first", plain + payload(hex512) + digest(hex512), 0, fsverity.SHA512},
		{"sha256", plain + digest(hex256), 0, fsverity.SHA256},
		{"not the option's", digest(hex512), fsverity.SHA256, 0},
		{"payload of the other", payload(hex512), fsverity.SHA256, fsverity.SHA256},
		{"payload, then digest", payload(hex256) + digest("f"+hex512[1:]), 0, 0},
	}
	for _, tt := range tests {
		tr, err := Parse(strings.NewReader(rootLine+tt.in), Options{Algorithm: tt.o})
		switch {
		case tt.want == 0:
			if err == nil {
				t.Errorf("%s: no error", tt.name)
			}
		case err != nil || tr.Algorithm() != tt.want:
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		case print(t, tr) != rootLine+tt.in:
			t.Errorf("%s: got\n%s", tt.name, print(t, tr))
		}
	}
}

func TestReadError(t *testing.T) {
	broken := errors.New("broken")
	r := io.MultiReader(strings.NewReader(rootLine), &failing{broken})
	if _, err := Parse(r, Options{}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	tr, err := parse(rootLine)
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(&failing{broken}, tr); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error)  { return 0, f.err }
func (f *failing) Write([]byte) (int, error) { return 0, f.err }

func vectors(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("../../erofs/testdata/vectors/*.dump")
	if err != nil || len(files) < 100 {
		t.Fatalf("%d vectors: %v", len(files), err)
	}
	all := map[string][]byte{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(f)] = b
	}
	return all
}

// checkStable parses and prints until that must not change anything any more.
func checkStable(t *testing.T, in []byte, o Options) {
	t.Helper()
	tr, err := Parse(bytes.NewReader(in), o)
	if err != nil {
		return
	}
	first := print(t, tr)
	o.Strict = true
	o.Algorithm = tr.Algorithm()
	again, err := Parse(strings.NewReader(first), o)
	if err != nil {
		t.Fatalf("what was printed is refused: %v\n%s", err, first)
	}
	if second := print(t, again); second != first {
		t.Errorf("printed\n%sthen\n%s", first, second)
	}
}

func TestRoundTrip(t *testing.T) {
	for name, b := range vectors(t) {
		t.Run(name, func(t *testing.T) { checkStable(t, b, Options{}) })
	}
}

func FuzzParse(f *testing.F) {
	for _, b := range vectors(f) {
		if len(b) < 4096 {
			f.Add(b, false)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, strict bool) {
		checkStable(t, in, Options{Strict: strict})
	})
}

// FuzzWrite prints trees whose texts are arbitrary.
func FuzzWrite(f *testing.F) {
	f.Add([]byte("name"), []byte("target"), []byte("user.key"), []byte("value"))
	f.Add([]byte("-"), []byte("-"), []byte("-"), []byte("-"))
	f.Add([]byte("a b"), []byte("\\x2d"), []byte("k=="), []byte("v= =\n"))
	f.Fuzz(func(t *testing.T, name, text, key, value []byte) {
		tr := tree.New(fsverity.SHA256, tree.Attr{Mode: tree.Directory | 0o755, Nlink: 2})
		n, err := tr.Add(tree.Root, name, tree.Attr{Mode: tree.Regular, Size: uint64(len(text))})
		if err != nil || tr.SetContent(n, text) != nil || bytes.IndexByte(key, 0) >= 0 ||
			tr.SetXattrs(n, []tree.Xattr{{Name: string(key), Value: value}}) != nil {
			return
		}
		l, err := tr.Add(tree.Root, append(name[:len(name):len(name)], '~'), tree.Attr{Mode: tree.Symlink})
		if err != nil || tr.SetTarget(l, text) != nil {
			return
		}
		back, err := parse(print(t, tr))
		if err != nil {
			t.Fatal(err)
		}
		n, ok := back.Lookup(tree.Root, name)
		if !ok || !bytes.Equal(back.Content(n), text) || fmt.Sprint(back.Xattrs(n)) != fmt.Sprint(tr.Xattrs(n)) {
			t.Errorf("file came back as %q, %q", back.Content(n), back.Xattrs(n))
		}
		if l, ok = back.Lookup(tree.Root, append(name[:len(name):len(name)], '~')); !ok || !bytes.Equal(back.Target(l), text) {
			t.Errorf("target came back as %q", back.Target(l))
		}
	})
}

// TestNoGarbage bounds what a line leaves behind: a tree's arena and nothing for each line.
func TestNoGarbage(t *testing.T) {
	const lines = 20000
	var b bytes.Buffer
	b.WriteString(rootLine)
	for i := range lines {
		d := fsverity.Sum(fsverity.SHA256, []byte{byte(i), byte(i >> 8)})
		fmt.Fprintf(&b, "/f%d 77 100644 1 0 0 0 1.0 %s - %s security.selinux=label%d\\x00\n", i, d.ObjectPath(), d, i%50)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Parse(&b, Options{}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > lines/10 {
		t.Errorf("%d allocations for %d lines", n, lines)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > lines*300 {
		t.Errorf("%d bytes for each line", n/lines)
	}
}
