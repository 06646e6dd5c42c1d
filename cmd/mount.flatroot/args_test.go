package main

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/mount"
)

var (
	digest = fsverity.Sum(fsverity.SHA256, []byte("a"))
	hex    = digest.String()
	long   = fsverity.Sum(fsverity.SHA512, []byte("a"))
)

func policy(p mount.Policy) *mount.Policy { return &p }

func TestParseArgs(t *testing.T) {
	for _, row := range []struct {
		args string // split at spaces
		want command
	}{
		{"S D", command{}},
		{"S D -o ro", command{}},
		{"-o ro S D", command{}},
		{"S -o ro D", command{}},
		{"S D -sfnv", command{sloppy: true, fake: true, verbose: true}},
		{"-v S -f D -s -n", command{sloppy: true, fake: true, verbose: true}},
		{"S D -vo nodev", command{verbose: true, options: options{noDev: true}}},
		{"S D -onodev", command{options: options{noDev: true}}},
		{"S D -o nodev -o nosuid", command{options: options{noDev: true, noSuid: true}}},
		{"S D -t flatroot", command{}},
		{"S D -t flatroot.sub", command{}},
		{"-tcomposefs S D", command{}},
		{"S D -N /proc/7/ns/mnt", command{namespace: "/proc/7/ns/mnt"}},
		{"-v -- S D", command{verbose: true}},
		{"S D -o rw,noexec,nosuid,nodev,user=bob", command{options: options{noExec: true, noSuid: true, noDev: true}}},
	} {
		row.want.spec, row.want.dir = "S", "D"
		got, err := parseArgs(strings.Fields(row.args), flatrootDialect)
		if err != nil {
			t.Errorf("%s: %v", row.args, err)
		} else if !reflect.DeepEqual(*got, row.want) {
			t.Errorf("%s: %+v, want %+v", row.args, *got, row.want)
		}
	}
}

func TestParseArgsRefuses(t *testing.T) {
	for args, text := range map[string]string{
		"":               "no image and no directory",
		"S":              "no directory to mount S on",
		"S D E":          `too many: "E"`,
		"S D -o":         "-o needs a value",
		"S D -x":         "unknown flag -x",
		"S D --verbose":  "unknown flag --",
		"S D -t ext4":    `unknown type "ext4"`,
		"S D -N":         "-N needs a value",
		"S D -o nosuch":  "unknown option nosuch",
		"-- S D -v":      `too many: "-v"`,
		"S D -o loop":    "unknown option loop",
		"S D -o remount": "unmount and mount again",
	} {
		_, err := parseArgs(strings.Fields(args), flatrootDialect)
		var u *usageError
		if !errors.As(err, &u) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v, want %q", args, err, text)
		}
	}
	if _, err := parseArgs([]string{"", "D"}, flatrootDialect); err == nil {
		t.Error("an empty SPEC is accepted")
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"S", "--help"}} {
		if c, err := parseArgs(args, flatrootDialect); err != nil || !c.help {
			t.Errorf("%q: %+v, %v", args, c, err)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, row := range []struct {
		list string
		want options
	}{
		{"", options{}},
		{",,", options{}},
		{"defaults,ro,rw,noauto,nofail,_netdev,x-systemd.automount,x-y=z,X-mount.mkdir,comment=hi,noatime,users", options{}},
		{"store=/s", options{store: "/s"}},
		{"store=/a,store=/b", options{store: "/b"}},
		{"store=/a=b", options{store: "/a=b"}},
		{"basedir=/a", options{basedirs: []string{"/a"}}},
		{"basedir=/a:/b,basedir=c", options{basedirs: []string{"/a", "/b", "c"}}},
		{`basedir=/a\,b\\c`, options{basedirs: []string{`/a,b\c`}}},
		{`basedir=/a\`, options{basedirs: []string{`/a\`}}},
		{"digest=" + hex, options{digest: digest}},
		{"digest=" + strings.ToUpper(hex), options{digest: digest}},
		{"digest=" + long.String(), options{digest: long}},
		{"verity", options{verity: policy(mount.Require)}},
		{"verity=require", options{verity: policy(mount.Require)}},
		{"verity=auto", options{verity: policy(mount.Auto)}},
		{"verity,verity=off", options{verity: policy(mount.Off)}},
		{"tryverity", options{tryverity: true}},
		{"mode=native", options{mode: mount.ModeNative}},
		{"mode=fuse,mode=auto", options{}},
		{"nosuid,nodev,noexec", options{noSuid: true, noDev: true, noExec: true}},
		{"nosuid,nodev,noexec,suid,dev,exec", options{}},
	} {
		var got options
		if err := got.parse(row.list, false); err != nil {
			t.Errorf("%s: %v", row.list, err)
		} else if !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s: %+v, want %+v", row.list, got, row.want)
		}
	}
}

func TestOptionsRefused(t *testing.T) {
	for list, text := range map[string]string{
		"stor=/s":                   "did you mean store?",
		"basedri=/o":                "did you mean basedir?",
		"digets=00":                 "did you mean digest?",
		"verify":                    "did you mean verity?",
		"no_suid":                   "did you mean nosuid?",
		"zzzzzz":                    "unknown option zzzzzz; see --help",
		"context=user_u":            "unknown option context",
		"store":                     "store needs a value",
		"store=":                    "store needs a value",
		"basedir=/a::/b":            "a path is empty",
		"basedir=:":                 "a path is empty",
		"digest=12":                 "digest",
		"digest=" + hex + "00":      "digest",
		"digest=" + hex[:62] + "g0": "digest",
		"verity=yes":                "want require, auto or off",
		"verity=":                   "verity= needs a value",
		"tryverity=1":               "takes no value",
		"nosuid=1":                  "takes no value",
		"mode=kernel":               "want auto, native, hybrid or fuse",
		"upperdir=/u":               "upperdir is not available in this build",
		"idmap=/proc/1/ns/user":     "idmap is not available in this build",
	} {
		var o options
		err := o.parse(list, false)
		var u *usageError
		if !errors.As(err, &u) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %q", list, err, text)
		}
	}
}

// TestSloppy: -s forgives unknown names, not wrong values.
func TestSloppy(t *testing.T) {
	var o options
	if err := o.parse("zzz,nodev,uid=7", true); err != nil || !o.noDev {
		t.Errorf("%+v, %v", o, err)
	}
	if err := o.parse("digest=12", true); err == nil {
		t.Error("a wrong digest is forgiven")
	}
}

func TestPolicy(t *testing.T) {
	for _, row := range []struct {
		dialect dialect
		list    string
		digest  fsverity.Digest
		want    mount.Policy
	}{
		{flatrootDialect, "", fsverity.Digest{}, mount.Auto},
		{flatrootDialect, "", digest, mount.Auto},
		{flatrootDialect, "verity", fsverity.Digest{}, mount.Require},
		{flatrootDialect, "verity=off", digest, mount.Off},
		{flatrootDialect, "tryverity,verity", digest, mount.Require},
		{composefsDialect, "", fsverity.Digest{}, mount.Off},
		{composefsDialect, "", digest, mount.Require},
		{composefsDialect, "verity", fsverity.Digest{}, mount.Objects},
		{composefsDialect, "verity", digest, mount.Require},
		{composefsDialect, "tryverity", fsverity.Digest{}, mount.Auto},
		{composefsDialect, "tryverity,verity", fsverity.Digest{}, mount.Objects},
		{composefsDialect, "tryverity", digest, mount.Require},
		{composefsDialect, "verity=auto", digest, mount.Auto},
		{composefsDialect, "verity=off", digest, mount.Off},
	} {
		var o options
		if err := o.parse(row.list, false); err != nil {
			t.Fatal(err)
		}
		if got := o.policy(row.dialect, row.digest); got != row.want {
			t.Errorf("%s %q, digest %v: %q, want %q", row.dialect, row.list, !row.digest.IsZero(), got, row.want)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for _, row := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"store", "store", 0}, {"stor", "store", 1}, {"basedri", "basedir", 2}, {"kitten", "sitting", 3}} {
		if got := editDistance(row.a, row.b); got != row.want {
			t.Errorf("%q %q: %d, want %d", row.a, row.b, got, row.want)
		}
	}
}

// FuzzParseArgs: no command line makes the parser panic; SPEC and DIR come from
// it, and errors are one line.
func FuzzParseArgs(f *testing.F) {
	f.Add("S\x00D\x00-o\x00ro,verity,basedir=/a:/b", false)
	f.Add("-sfnv\x00S\x00D\x00-t\x00flatroot.x\x00-N\x00/ns", true)
	f.Add("S\x00D\x00-o\x00digest="+hex+`,store=/a\,b\`, false)
	f.Fuzz(func(t *testing.T, line string, composefs bool) {
		args := strings.Split(line, "\x00")
		d := flatrootDialect
		if composefs {
			d = composefsDialect
		}
		c, err := parseArgs(args, d)
		if err == nil && !c.help && (c.spec == "" || !slices.Contains(args, c.spec) || !slices.Contains(args, c.dir)) {
			t.Errorf("%q: SPEC %q, DIR %q", args, c.spec, c.dir)
		}
	})
}
