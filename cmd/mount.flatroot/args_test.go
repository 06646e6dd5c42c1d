package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/mount"
)

var hex = fsverity.Sum(fsverity.SHA256, []byte("a")).String()

func TestParseArgs(t *testing.T) {
	ro := mount.Options{ReadOnly: true}
	for _, row := range []struct {
		args string // split at spaces
		want command
	}{
		{"S D", command{}},
		{"S D -o ro", command{options: ro}},
		{"-o ro S D", command{options: ro}},
		{"S -o ro D", command{options: ro}},
		{"S D -sfnv", command{sloppy: true, fake: true, verbose: true}},
		{"-v S -f D -s -n", command{sloppy: true, fake: true, verbose: true}},
		{"S D -vo nodev", command{verbose: true, options: mount.Options{NoDev: true}}},
		{"S D -onodev", command{options: mount.Options{NoDev: true}}},
		{"S D -o nodev -o nosuid", command{options: mount.Options{NoDev: true, NoSuid: true}}},
		{"S D -t flatroot", command{}},
		{"S D -t flatroot.sub", command{}},
		{"-tcomposefs S D", command{}},
		{"S D -N /proc/7/ns/mnt", command{namespace: "/proc/7/ns/mnt"}},
		{"-v -- S D", command{verbose: true}},
		{"S D -s -f -n -v -o ro,noatime,noexec,nosuid,,user,nofail,uhelper=foo -t flatroot.sub", command{
			sloppy: true, fake: true, verbose: true, options: mount.Options{ReadOnly: true, NoExec: true, NoSuid: true, NoDev: true}}},
		{"S D -o rw -N /proc/7/fd/4", command{namespace: "/proc/7/fd/4", options: mount.Options{ReadWrite: true}}},
		{"--dry-run S D --json --verbose --sloppy", command{fake: true, json: true, verbose: true, sloppy: true}},
		{"S --foreground D", command{foreground: true}},
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
		"":                   "no image and no directory",
		"S":                  "no directory to mount S on",
		"S D E":              `too many: "E"`,
		"S D -o":             "-o needs a value",
		"S D -x":             "unknown flag -x",
		"S D --verbos":       "did you mean --verbose?",
		"S D --xyzzy":        "unknown flag --xyzzy; see --help",
		"S D --json":         "give --dry-run with it",
		"S D -o upperdir=/u": "upperdir needs workdir",
		"S D -t ext4":        `unknown type "ext4"`,
		"S D -N":             "-N needs a value",
		"S D -o nosuch":      "unknown option nosuch",
		"-- S D -v":          `too many: "-v"`,
		"S D -o loop":        "unknown option loop",
		"S D -o remount":     "unmount and mount again",
	} {
		_, err := parseArgs(strings.Fields(args), flatrootDialect)
		if exitCode(err) != exitUsage || !strings.Contains(err.Error(), text) {
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

func TestParseUmount(t *testing.T) {
	for _, row := range []struct {
		args string
		want umountCommand
	}{
		{"D", umountCommand{dir: "D"}},
		{"D -flnrv", umountCommand{dir: "D", options: mount.UnmountOptions{Force: true, Lazy: true}}},
		{"D -n -v -N /ns -t fuse.flatroot", umountCommand{dir: "D", namespace: "/ns"}},
		{"-l -tflatroot D", umountCommand{dir: "D", options: mount.UnmountOptions{Lazy: true}}},
		{"--help", umountCommand{help: true}},
	} {
		got, err := parseUmount(strings.Fields(row.args))
		if err != nil || *got != row.want {
			t.Errorf("%s: %+v, %v, want %+v", row.args, got, err, row.want)
		}
	}
	for args, text := range map[string]string{
		"":        "no directory given",
		"D E":     `too many: "E"`,
		"D -x":    "unknown flag -x",
		"D --all": "unknown flag --all",
		"D -N":    "-N needs a value",
	} {
		if _, err := parseUmount(strings.Fields(args)); exitCode(err) != exitUsage || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v, want %q", args, err, text)
		}
	}
}

func TestDialects(t *testing.T) {
	for arg0, want := range map[string]dialect{
		"/sbin/mount.flatroot": flatrootDialect, "mount.composefs": composefsDialect, "./anything": flatrootDialect,
		"/sbin/umount.flatroot": umountDialect, "umount.fuse.flatroot": umountDialect, "/sbin/mount.fuse.flatroot": flatrootDialect,
	} {
		if got := dialectOf(arg0); got != want {
			t.Errorf("%s is %s, want %s", arg0, got, want)
		}
	}
}
