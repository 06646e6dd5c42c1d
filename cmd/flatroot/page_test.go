package main

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPages(t *testing.T) {
	for _, p := range pages() {
		roff := p.roff()
		for _, section := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "EXIT STATUS", "SEE ALSO"} {
			if !strings.Contains(roff, "\n.SH "+section+"\n") {
				t.Errorf("%s has no section %s", p.name, section)
			}
		}
		for line := range strings.Lines(roff) {
			if line == "\n" {
				t.Errorf("%s has an empty line", p.name)
			}
		}
		for line := range strings.Lines(p.text()) {
			// Synopses and examples are not broken, nor are words.
			indented := strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "usage: ")
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > textWidth && !indented {
				t.Errorf("%s: %d characters: %s", p.name, n, line)
			}
		}
	}
}

func TestRoffText(t *testing.T) {
	for s, want := range map[string]string{
		"plain":     "plain",
		`a\b`:       `a\eb`,
		"--flag":    `\-\-flag`,
		".start":    `\&.start`,
		"'start":    `\&'start`,
		"x\n.start": "x\n\\&.start",
		"mid.dot":   "mid.dot",
	} {
		if got := roffText(s); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}
