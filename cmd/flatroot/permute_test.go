package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/mount"
)

func TestPermute(t *testing.T) {
	tests := []struct {
		args string // words; _ is an empty one
		want string // words for cli/v2
	}{
		{"images", "images --"},
		{"images --json", "--json images --"},
		{"--json images", "--json images --"},
		{"--store s images", "--store=s images --"},
		{"images --store s", "--store=s images --"},
		{"images --store=s", "--store=s images --"},
		{"images --store=", "--store= images --"},
		{"images --store _", "--store= images --"},
		{"pull oci:a --name n", "pull --name=n -- oci:a"},
		{"pull --name n oci:a", "pull --name=n -- oci:a"},
		{"--name n pull oci:a", "pull --name=n -- oci:a"},
		{"pull oci:a --name n oci:b --json", "--json pull --name=n -- oci:a oci:b"},
		{"pull oci:a --name --json", "pull --name=--json -- oci:a"},
		{"pull -- --name n", "pull -- --name n"},
		{"-- pull --name n", "pull -- --name n"},
		{"pull - -- -", "pull -- - -"},
		{"mount a b -o ro", "mount --options=ro -- a b"},
		{"mount -oro,nodev a b", "mount --options=ro,nodev -- a b"},
		{"mount -o=ro a b", "mount --options=ro -- a b"},
		{"mount a -o ro b -o nodev", "mount --options=ro --options=nodev -- a b"},
		{"umount -lf a", "umount --lazy --force -- a"},
		{"-f umount a -l", "umount --force --lazy -- a"},
		{"umount --lazy=false a", "umount --lazy=false -- a"},
		{"umount -l=false a", "umount --lazy=false -- a"},
	}
	for _, tt := range tests {
		line, err := permute(words(tt.args), commands())
		if err != nil {
			t.Errorf("%s: %v", tt.args, err)
			continue
		}
		if got := strings.Join(line.words()[1:], " "); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.args, got, tt.want)
		}
	}
}

func words(s string) []string {
	w := strings.Fields(s)
	for i := range w {
		if w[i] == "_" {
			w[i] = ""
		}
	}
	return w
}

func TestPermuteErrors(t *testing.T) {
	tests := []struct{ args, err, hint string }{
		{"pul", `there is no command "pul"`, "did you mean pull?"},
		{"xyzzy", `there is no command "xyzzy"`, ""},
		{"pull a --nmae b", `pull: there is no flag "--nmae"`, "did you mean --name?"},
		{"--nmae b pull a", `there is no flag "--nmae"`, "did you mean --name?"},
		{"--nmae=b pull a", `there is no flag "--nmae"`, "did you mean --name?"},
		{"pull a --jsn", `pull: there is no flag "--jsn"`, "did you mean --json?"},
		{"pull a --lazy", `pull: there is no flag "--lazy"`, ""},
		{"--lazy pull a", `pull: there is no flag "--lazy"`, ""},
		{"images --name n", `images: there is no flag "--name"`, ""},
		{"pull a --name", "pull: --name needs a value", ""},
		{"mount a b -o", "mount: -o needs a value", ""},
		{"mount a b --o x", `mount: there is no flag "--o"`, "did you mean -o?"},
		{"umount -lx a", `umount: there is no flag "-x"`, ""},
		{"pull -name x a", `pull: there is no flag "-name"`, "did you mean --name?"},
		{"pull --=x a", `pull: there is no flag "--"`, ""},
	}
	for _, tt := range tests {
		_, err := permute(words(tt.args), commands())
		u, ok := asUsage(err)
		if !ok || u.Error() != tt.err || u.hint != tt.hint {
			t.Errorf("%s: got %v (%+v), want %q with hint %q", tt.args, err, u, tt.err, tt.hint)
		}
	}
}

func TestPermuteHelp(t *testing.T) {
	for _, args := range []string{"--help", "-h", "pull --help", "pull a b -h", "--help pull", "pull --name x --help"} {
		line, err := permute(words(args), commands())
		if err != nil || !line.help {
			t.Errorf("%s: %+v, %v", args, line, err)
		}
	}
}

// TestFlagsAgree makes sure of what permute builds on: a flag's name means the same in all commands that have it.
func TestFlagsAgree(t *testing.T) {
	global := globalFlags()
	takes := map[string]bool{}
	for _, c := range commands() {
		seen := map[string]bool{}
		for _, f := range c.flags {
			for _, n := range f.Names() {
				if flagNamed(global, n) != nil {
					t.Errorf("%s has the global flag %s", c.name, n)
				}
				if before, ok := takes[n]; ok && before != takesValue(f) {
					t.Errorf("%s of %s takes a value or does not, unlike that of another command", n, c.name)
				}
				if seen[n] {
					t.Errorf("%s has %s twice", c.name, n)
				}
				takes[n], seen[n] = takesValue(f), true
			}
		}
	}
}

func TestCommandsAreDescribed(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range commands() {
		if seen[c.name] {
			t.Errorf("two commands %s", c.name)
		}
		seen[c.name] = true
		if c.hidden {
			continue
		}
		if c.usage == "" || c.about == "" || len(c.examples) == 0 {
			t.Errorf("%s lacks a usage line, a description or an example", c.name)
		}
		if (c.max == 0) != (c.args == "") {
			t.Errorf("%s: arguments %q, at most %d", c.name, c.args, c.max)
		}
		for _, f := range slices.Concat(c.flags, globalFlags()) {
			d := f.(cli.DocGenerationFlag)
			if d.GetUsage() == "" || d.TakesValue() != strings.Contains(d.GetUsage(), "`") {
				t.Errorf("%s: flag %s has no usage, or not what its value is called", c.name, f.Names()[0])
			}
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"images", "inspect", "init", "pull", "push", "rm", "du"}
	for typed, want := range map[string]string{
		"image": "images", "imgaes": "images", "isnpect": "inspect", "pul": "pull", "plul": "pull", "pussh": "push",
		"x": "", "": "", "dump": "", "mr": "", "zzzzzz": "",
	} {
		if got := mount.Nearest(typed, names); got != want {
			t.Errorf("%q: got %q, want %q", typed, got, want)
		}
	}
}

func FuzzPermute(f *testing.F) {
	for _, s := range []string{"pull a --name b --json", "mount -oro a b --", "--store=x -lf umount - -- -h", "- -- ---"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		args := words(s)
		line, err := permute(args, commands())
		if err != nil {
			return
		}
		// No word is lost or made up.
		n := len(line.args) + len(line.global) + len(line.own)
		if n > 2*len(s) {
			t.Fatalf("%q became %d words", s, n)
		}
		for _, a := range line.args {
			if !slices.Contains(args, a) {
				t.Fatalf("argument %q was not in %q", a, s)
			}
		}
	})
}
