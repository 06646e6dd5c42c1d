package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/index"
)

// The scripts ask `flatroot complete-words` for what may follow.
var (
	//go:embed completion/flatroot.bash
	completionBash string
	//go:embed completion/flatroot.zsh
	completionZsh string
	//go:embed completion/flatroot.fish
	completionFish string
)

func completionCommand() *command {
	return &command{
		name: "completion", args: "bash|zsh|fish", min: 1, max: 1,
		usage: "print the script that completes command lines in a shell",
		about: `Prints the script for a shell. It completes commands, flags, names of images and digests, and leaves paths to the shell.`,
		examples: []example{
			{"bash, for this session", "source <(flatroot completion bash)"},
			{"zsh, from the next session on", "flatroot completion zsh >\"${fpath[1]}/_flatroot\""},
			{"fish, from the next session on", "flatroot completion fish >~/.config/fish/completions/flatroot.fish"},
		},
		run: func(_ context.Context, v *invocation) error {
			scripts := map[string]string{"bash": completionBash, "zsh": completionZsh, "fish": completionFish}
			script, ok := scripts[v.Args().First()]
			if !ok {
				return v.usagef("there is no script for %q: want bash, zsh or fish", v.Args().First())
			}
			_, err := io.WriteString(v.stdout, script)
			return err
		},
	}
}

// completeCommand is what the scripts call: its arguments are the words of a command line up to the one under the cursor.
// Each line of the answer is a word that may stand there and, after a tab, what it means.
func completeCommand() *command {
	return &command{
		name: "complete-words", args: "WORD...", max: -1, hidden: true,
		usage: "print what may stand at the end of a command line",
		run: func(_ context.Context, v *invocation) error {
			for _, w := range completeWords(v.console, v.Args().Slice()) {
				if _, err := fmt.Fprintln(v.stdout, w); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// completeWords lists the words that may stand for the last of words. Files are the shell's part.
func completeWords(c console, words []string) []string {
	last := ""
	if n := len(words); n > 0 {
		last, words = words[n-1], words[:n-1]
	}
	if n := len(words); n > 0 && strings.HasPrefix(words[n-1], "-") && words[n-1] != "--" {
		if values, ok := flagValues(words[n-1]); ok {
			return withPrefix(values, last)
		}
	}
	if flag, _, ok := strings.Cut(last, "="); ok && strings.HasPrefix(flag, "--") {
		values, _ := flagValues(flag)
		return withPrefix(prepend(flag+"=", values), last)
	}
	line, err := permute(words, commands())
	if err != nil {
		return nil
	}
	if s := globalValue(line, "store"); s != "" {
		c.store = s
	}
	switch {
	case strings.HasPrefix(last, "-"):
		return withPrefix(flagWords(line.command), last)
	case line.command == nil:
		return withPrefix(commandWords(), last)
	}
	return withPrefix(argumentWords(c, line), last)
}

// globalValue is what a command line says for a global flag.
func globalValue(l *commandLine, name string) string {
	value := ""
	for _, f := range l.global {
		if v, ok := strings.CutPrefix(f, dashed(name)+"="); ok {
			value = v
		}
	}
	return value
}

func prepend(prefix string, words []string) []string {
	var all []string
	for _, w := range words {
		all = append(all, prefix+w)
	}
	return all
}

func withPrefix(words []string, prefix string) []string {
	return slices.DeleteFunc(words, func(w string) bool { return !strings.HasPrefix(w, prefix) })
}

func commandWords() []string {
	var words []string
	for _, c := range commands() {
		if !c.hidden {
			words = append(words, c.name+"\t"+c.usage)
		}
	}
	return words
}

func flagWords(c *command) []string {
	flags := globalFlags()
	if c != nil {
		flags = append(flags, c.flags...)
	}
	var words []string
	for _, f := range flags {
		words = append(words, dashed(f.Names()[0])+"\t"+flagBlock(f).text)
	}
	slices.Sort(words)
	return words
}

// flagValues are the values that a flag can have; ok says that it takes one, known or not.
func flagValues(word string) (values []string, ok bool) {
	known := map[string][]string{
		"--progress": {"auto", "plain", "none"}, "--verity": {"auto", "require", "off"}, "--hash": {"sha256", "sha512"},
		"--rules": {"oci-1", "faithful-1"}, "--format": {"0", "1", "auto"}, "--compress": {"gzip", "zstd", "none"},
	}
	if values, ok = known[word]; ok {
		return values, true
	}
	name := strings.TrimLeft(word, "-")
	p := &permuter{commands: commands(), globals: globalFlags()}
	f := p.find(name)
	return nil, f != nil && takesValue(f) && !strings.Contains(word, "=")
}

// argumentWords are the arguments that a command may have: images and shells; the shell adds files.
func argumentWords(c console, l *commandLine) []string {
	switch l.command.name {
	case "help":
		return commandWords()
	case "completion":
		return []string{"bash", "zsh", "fish"}
	case "mount", "push", "tag", "inspect", "layers", "doctor":
		if len(l.args) > 0 {
			return nil
		}
	case "rm", "digest", "dump", "diff":
	default:
		return nil
	}
	return imageWords(c)
}

// imageWords are the names in the store. Without a store there are none.
func imageWords(c console) []string {
	s, err := c.readStore()
	if err != nil {
		return nil
	}
	defer s.Close()
	names, err := index.Names(s)
	if err != nil {
		return nil
	}
	return names
}
