package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// page is a page of the manual, from which both --help and man pages are made.
type page struct {
	name, usage string // of the NAME section
	section     int    // of the manual
	synopsis    []string
	sections    []pageSection
}

type pageSection struct {
	title  string
	blocks []block
}

// block is a paragraph (text), an item of a list (term and text) or an example (text and code).
type block struct{ term, text, code string }

func paragraphs(text string) []block {
	var blocks []block
	for p := range strings.SplitSeq(text, "\n\n") {
		blocks = append(blocks, block{text: p})
	}
	return blocks
}

// commandPage is the page of one command.
func commandPage(c *command) *page {
	p := &page{name: "flatroot-" + c.name, usage: c.usage, section: 1}
	p.synopsis = []string{strings.TrimSpace("flatroot " + c.name + " [FLAGS] " + c.args)}
	p.sections = []pageSection{{"DESCRIPTION", paragraphs(c.about)}}
	for _, category := range []string{"", signaturesCategory, limitsCategory} {
		var blocks []block
		for _, f := range c.flags {
			if flagCategory(f) == category {
				blocks = append(blocks, flagBlock(f))
			}
		}
		p.add(cmp.Or(strings.ToUpper(category), "FLAGS"), blocks)
	}
	p.add("GLOBAL FLAGS", flagBlocks(globalFlags()))
	p.add("EXAMPLES", exampleBlocks(c.examples))
	exits := c.exits
	if exits == nil {
		exits = usualExits()
	}
	p.add("EXIT STATUS", exitBlocks(exits))
	return p
}

// mainPage is the page of flatroot itself.
func mainPage(cs []*command) *page {
	p := &page{name: "flatroot", usage: "pull OCI images, make one verified image of each, mount it", section: 1}
	p.synopsis = []string{"flatroot [FLAGS] COMMAND [FLAGS] [ARGUMENTS]"}
	p.add("DESCRIPTION", paragraphs(aboutFlatroot))
	var list []block
	for _, c := range cs {
		if !c.hidden {
			list = append(list, block{term: strings.TrimSpace(c.name + " " + c.args), text: c.usage})
		}
	}
	p.add("COMMANDS", list)
	p.add("FLAGS", append(flagBlocks(globalFlags()), block{text: aboutFlags}))
	p.add("EXAMPLES", exampleBlocks(sessionExamples()))
	p.add("EXIT STATUS", exitBlocks(append(usualExits(), exit{-1, "flatroot diff has statuses of its own."})))
	p.add("FILES", []block{
		{term: "/var/lib/flatroot", text: "the store of root"},
		{term: "/etc/flatroot/policy.json", text: "what is asked of images that are pulled; flatroot-pull(1) tells where else it may be"},
		{term: "$XDG_DATA_HOME/flatroot", text: "the store of others; $HOME/.local/share/flatroot if XDG_DATA_HOME is not set"},
	})
	return p
}

const aboutFlatroot = `flatroot pulls OCI images, stores every file once, and makes of each image one small EROFS image whose fs-verity digest names the whole tree. It mounts that tree and never hands out a byte that was not checked.

The store is a composefs repository. Run under the name mkcomposefs or composefs-info, the program is that tool.`

const aboutFlags = `Flags may stand anywhere, before or after the command and its arguments; -- ends them. One that is given twice counts as it was given last.`

func sessionExamples() []example {
	return []example{
		{"a first session", "flatroot init"},
		{"", "flatroot pull docker://docker.io/library/debian:13 --name debian"},
		{"", "flatroot mount debian /mnt"},
		{"", "flatroot umount /mnt"},
	}
}

func (p *page) add(title string, blocks []block) {
	if len(blocks) > 0 {
		p.sections = append(p.sections, pageSection{title, blocks})
	}
}

// Categories of flags that have a section of their own in the help.
const (
	signaturesCategory = "signatures"
	limitsCategory     = "limits"
)

func flagCategory(f cli.Flag) string {
	if c, ok := f.(cli.CategorizableFlag); ok {
		return c.GetCategory()
	}
	return ""
}

func flagBlocks(flags []cli.Flag) []block {
	var blocks []block
	for _, f := range flags {
		blocks = append(blocks, flagBlock(f))
	}
	return blocks
}

// flagBlock describes a flag. As everywhere in cli/v2, what is between backquotes in its usage is the name of its value.
func flagBlock(f cli.Flag) block {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return block{}
	}
	usage := d.GetUsage()
	placeholder := ""
	if before, rest, ok := strings.Cut(usage, "`"); ok {
		value, after, _ := strings.Cut(rest, "`")
		placeholder, usage = " "+value, before+value+after
	}
	var names []string
	for _, n := range f.Names() {
		names = append(names, dashed(n))
	}
	if def := d.GetDefaultText(); d.TakesValue() && strings.Trim(def, `"`) != "" {
		usage += fmt.Sprintf(" (default: %s)", strings.Trim(def, `"`))
	}
	return block{term: strings.Join(names, ", ") + placeholder, text: usage}
}

func exampleBlocks(es []example) []block {
	var blocks []block
	for _, e := range es {
		blocks = append(blocks, block{text: e.what, code: e.line})
	}
	return blocks
}

func exitBlocks(es []exit) []block {
	var blocks []block
	for _, e := range es {
		if e.code < 0 {
			blocks = append(blocks, block{text: e.when})
			continue
		}
		blocks = append(blocks, block{term: fmt.Sprint(e.code), text: e.when})
	}
	return blocks
}
