package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// manCommand writes the manual pages. It is for `make man`, and not in the help.
func manCommand() *command {
	return &command{
		name: "man", args: "DIR", min: 1, max: 1, hidden: true,
		usage: "write the manual pages to a directory",
		run:   func(_ context.Context, v *invocation) error { return runMan(v.Args().First()) },
	}
}

func runMan(dir string) error {
	for _, p := range pages() {
		path := filepath.Join(dir, fmt.Sprintf("%s.%d", p.name, p.section))
		if err := os.WriteFile(path, []byte(p.roff()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pages are all pages of the manual.
func pages() []*page {
	cs := commands()
	main := mainPage(cs)
	all := []*page{main, mountHelperPage(), umountHelperPage()}
	var names []string
	for _, c := range cs {
		if !c.hidden {
			all = append(all, commandPage(c))
			names = append(names, "flatroot-"+c.name+"(1)")
		}
	}
	seeAlso := []block{{text: strings.Join(append(names, "mount.flatroot(8)"), ", ")}}
	main.add("SEE ALSO", seeAlso)
	for _, p := range all[1:] {
		p.add("SEE ALSO", []block{{text: "flatroot(1)"}})
	}
	return all
}

// roff is the page in the man(7) macros.
func (p *page) roff() string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s %d \"\" \"flatroot\" \"flatroot manual\"\n", strings.ToUpper(roffText(p.name)), p.section)
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n.SH SYNOPSIS\n", roffText(p.name), roffText(p.usage))
	for i, s := range p.synopsis {
		if i > 0 {
			b.WriteString(".br\n")
		}
		fmt.Fprintf(&b, ".B %s\n", roffText(s))
	}
	for _, s := range p.sections {
		fmt.Fprintf(&b, ".SH %s\n", roffText(s.title))
		for i, k := range s.blocks {
			k.writeRoff(&b, i == 0)
		}
	}
	return b.String()
}

func (k block) writeRoff(b *strings.Builder, first bool) {
	if k.term != "" {
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roffText(k.term), roffText(k.text))
		return
	}
	if k.text != "" {
		if !first { // a section begins with a paragraph of itself
			b.WriteString(".PP\n")
		}
		b.WriteString(roffText(k.text))
		if k.code != "" {
			b.WriteByte(':')
		}
		b.WriteByte('\n')
	}
	if k.code != "" {
		fmt.Fprintf(b, ".RS 4\n.nf\n%s\n.fi\n.RE\n", roffText(k.code))
	}
}

// roffText escapes what roff would take for more than text: backslashes, hyphens that are to be copied, and dots and
// quotes where a line begins.
func roffText(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "→", `\(->`, "…", `\&...`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
