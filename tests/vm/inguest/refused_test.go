package inguest

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// program is a command that mounts, and how it says that it didn't.
type program struct {
	name string
	args func(spec, target, options string) []string
	code int // exit code of a mount that was refused
}

var programs = []program{
	{"flatroot", func(spec, target, options string) []string { return []string{"mount", spec, target, "-o", options} }, 1},
	{"mount.flatroot", func(spec, target, options string) []string { return []string{spec, target, "-o", options} }, 32}, // mount(8): mount failure
}

// wantRefused runs the command, which has to say why it doesn't mount, with its exit code and on one line. Advice may be on
// another one.
func (p program) wantRefused(t *testing.T, spec, options, text string) {
	t.Helper()
	target := t.TempDir()
	stdout, stderr, err := command(p.name, p.args(spec, target, options)...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != p.code {
		t.Errorf("%s %s -o %s: %v, want exit code %d: %s", p.name, spec, options, err, p.code, stderr)
	}
	var lines []string
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, "flatroot: hint: ") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 || !strings.Contains(stderr, text) || stdout != "" {
		t.Errorf("%s %s -o %s: printed %q and %q, want one line with %q", p.name, spec, options, stdout, stderr, text)
	}
	if err == nil {
		flatroot(t, "umount", target)
	}
}

// TestRefused asks for more than kernel and disk, or the mode, can check.
func TestRefused(t *testing.T) {
	needGuest(t)
	ref := layout(t)
	for _, d := range []disk{verityDisk, plainDisk} {
		t.Run(d.name, func(t *testing.T) {
			v := newVictim(t, d, ref)
			for _, row := range []struct {
				options string
				text    string // what is said
				verity  bool   // it is refused on a disk with fs-verity as well
			}{
				{"mode=native,verity=require", "fs-verity", false},
				{"mode=hybrid,verity=require", "fs-verity", false},
				{"mode=fuse,passthrough,verity=require", "leave passthrough out", true},
			} {
				if d.verity && !row.verity {
					continue
				}
				for _, p := range programs {
					p.wantRefused(t, sampleName, row.options+",store="+v.dir, row.text)
					p.wantRefused(t, v.image(), row.options+",digest="+v.digest.String()+",basedir="+v.objects(), row.text)
				}
			}
		})
	}
}
