package mount

import (
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

var hexA = digestA.String()

const otherMounts = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
70 22 0:40 / /mnt/o ro,relatime - overlay overlay ro,lowerdir=/a:/b
71 22 0:41 / /mnt/fake rw - tmpfs flatroot:-:native:sealed:unchecked rw,size=4k
72 22 0:42 / /mnt/none rw master:2 propagate_from:3 - none  rw
`

func TestList(t *testing.T) {
	text := otherMounts +
		`66 43 0:40 / /mnt/a\040b ro,nosuid,relatime shared:7 - overlay flatroot:` + hexA + `:native:kernel:kernel ro,lowerdir+=/,datadir+=/o\0541,datadir+=/p\134q,redirect_dir=on,metacopy=on,verity=require` + "\n" +
		`67 43 0:41 / /mnt/c ro,relatime - overlay flatroot:-:native:unchecked:unchecked ro,lowerdir+=/proc/self/fd/9,datadir+=/proc/self/fd/7,metacopy=on` + "\n" +
		`68 43 0:42 / /mnt/d ro - overlay flatroot:` + hexA + `:native:sealed:unchecked ro,lowerdir=/proc/self/fd/9::/proc/self/fd/7,metacopy=on` + "\n"
	want := []Mount{
		{ID: 66, Target: "/mnt/a b", Digest: digestA, Mode: ModeNative, ReadOnly: true, NoSuid: true,
			Verification: Verification{Image: ImageKernel, Objects: ObjectsKernel}, Objects: []string{"/o,1", `/p\q`}},
		{ID: 67, Target: "/mnt/c", Mode: ModeNative, ReadOnly: true,
			Verification: Verification{Image: ImageUnchecked, Objects: ObjectsUnchecked}},
		{ID: 68, Target: "/mnt/d", Digest: digestA, Mode: ModeNative, ReadOnly: true,
			Verification: Verification{Image: ImageSealed, Objects: ObjectsUnchecked}},
	}
	got, err := listFrom(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestListBadMountinfo(t *testing.T) {
	for _, text := range []string{
		"\n", "1 2 3\n", "x 43 0:40 / /mnt ro - overlay s ro\n", "66 43 0:40 / /mnt ro shared:1 overlay s ro\n",
		"66 43 0:40 / /mnt ro - overlay s\n", strings.Repeat("x", maxInfoLine+1),
	} {
		if _, err := listFrom(strings.NewReader(otherMounts + text)); err == nil {
			t.Errorf("%.40q is accepted", text)
		}
	}
}

func TestUnescapeOctal(t *testing.T) {
	for in, want := range map[string]string{
		"": "", `a\040b`: "a b", `\134`: `\`, `\`: `\`, `\04`: `\04`, `\999`: `\999`, `\400`: `\400`, `x\011\012`: "x\t\n", `\-12`: `\-12`,
	} {
		if got := unescapeOctal(in); got != want {
			t.Errorf("%q reads as %q, want %q", in, got, want)
		}
	}
}

// escapeOctal is what the kernel does to a path in mountinfo, and to commas
// within options.
func escapeOctal(s string) string {
	return strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`, ",", `\054`).Replace(s)
}

// FuzzMountinfo: no input makes the parser panic, and what the kernel escapes
// comes back as it was.
func FuzzMountinfo(f *testing.F) {
	f.Add(otherMounts, "/mnt/a b", "/o,1")
	f.Add("66 43 0:40 / /mnt ro - overlay", `/t\a`, "/x\ny")
	f.Add("1 2 3 4 5 6 - - - -\n", "/", "/")
	f.Fuzz(func(t *testing.T, text, target, objects string) {
		listFrom(strings.NewReader(text))
		if target == "" || !utf8.ValidString(target+objects) || strings.ContainsAny(target+objects, "\x00\r") ||
			strings.HasPrefix(objects, "/proc/self/fd/") || objects == "" {
			return // the kernel shows no such path, or we don't
		}
		line := "66 43 0:40 / " + escapeOctal(target) + " ro shared:1 - overlay flatroot:" + hexA +
			":native:once:unchecked ro,datadir+=" + escapeOctal(objects) + ",metacopy=on\n"
		got, err := listFrom(strings.NewReader(line))
		if err != nil || len(got) != 1 || got[0].Target != target || len(got[0].Objects) != 1 || got[0].Objects[0] != objects {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	})
}

func TestMayUnmount(t *testing.T) {
	ours := `66 43 0:40 / /mnt/o ro - overlay flatroot:-:native:unchecked:unchecked ro` + "\n"
	for _, c := range []struct {
		name, text string
		force      bool
		ok         bool
	}{
		{"ours", ours, false, true},
		{"ours on top", otherMounts + ours, false, true},
		{"ours below", ours + otherMounts, false, false},
		{"forced", ours + otherMounts, true, true},
		{"none", "", false, false},
		{"none, forced", "", true, false},
	} {
		_, err := mayUnmount(strings.NewReader(c.text), "/mnt/o", UnmountOptions{Force: c.force})
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
