package main

import (
	"context"
	"io"
	"strings"
	"unicode/utf8"
)

func helpCommand() *command {
	return &command{
		name: "help", args: "[COMMAND]", max: 1,
		usage:    "show the help of flatroot or of a command",
		about:    `Shows the same as --help.`,
		examples: []example{{"all about pull", "flatroot help pull"}},
		run: func(_ context.Context, v *invocation) error {
			name := v.Args().First()
			if name == "" {
				return showHelp(v.stdout, nil)
			}
			c := findCommand(commands(), name)
			if c == nil {
				return unknownCommand(commands(), name)
			}
			return showHelp(v.stdout, c)
		},
	}
}

// showHelp prints the page of a command, or that of flatroot.
func showHelp(w io.Writer, c *command) error {
	p := mainPage(commands())
	if c != nil {
		p = commandPage(c)
	}
	_, err := io.WriteString(w, p.text())
	return err
}

// textWidth is the length that lines of help have at most.
const textWidth = 80

// text is the page for a terminal. Titles are as man(1) shows them, and what man pages begin with is shorter.
func (p *page) text() string {
	var b strings.Builder
	b.WriteString(p.name + " - " + p.usage + "\n\n")
	for _, s := range p.synopsis {
		b.WriteString("usage: " + s + "\n")
	}
	for _, s := range p.sections {
		b.WriteString("\n" + s.title + "\n")
		narrow := termWidth(s.blocks)
		for i, k := range s.blocks {
			k.writeText(&b, i, narrow)
		}
	}
	return b.String()
}

// termWidth is the width of a list's left column.
func termWidth(blocks []block) int {
	w := 0
	for _, k := range blocks {
		if n := len(k.term); n <= 24 {
			w = max(w, n)
		}
	}
	return w
}

func (k block) writeText(b *strings.Builder, i, narrow int) {
	switch {
	case k.code != "":
		if k.text != "" {
			wrap(b, "  ", "  ", k.text+":")
		}
		b.WriteString("    " + k.code + "\n")
	case k.term == "":
		if i > 0 {
			b.WriteByte('\n')
		}
		wrap(b, "  ", "  ", k.text)
	default:
		first := "  " + k.term + strings.Repeat(" ", max(narrow-len(k.term), 0)) + "  "
		if len(k.term) > narrow {
			b.WriteString("  " + k.term + "\n")
			first = strings.Repeat(" ", narrow+4)
		}
		wrap(b, first, strings.Repeat(" ", narrow+4), k.text)
	}
}

// wrap writes text in lines of at most textWidth characters: the first begins with first, the others with indent.
func wrap(b *strings.Builder, first, indent, text string) {
	line, empty := first, true
	for word := range strings.FieldsSeq(text) {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > textWidth {
			b.WriteString(line + "\n")
			line, empty = indent, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}
