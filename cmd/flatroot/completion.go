package main

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/chunk/pkgdb"
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
		about: `Prints the script for a shell. It completes commands, flags, names of images and digests, and transports with the paths behind them, and leaves other paths to the shell.`,
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
		if values, ok := flagValues(c, words[:n-1], words[n-1], last); ok {
			return withPrefix(values, last)
		}
	}
	if flag, value, ok := strings.Cut(last, "="); ok && strings.HasPrefix(flag, "--") {
		values, _ := flagValues(c, words, flag, value)
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
	return withPrefix(argumentWords(c, line, last), last)
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

// flagValues are the values that a flag can have, which stands behind these words; value is what there is of it. ok says that
// it takes one, known or not.
func flagValues(c console, before []string, word, value string) (values []string, ok bool) {
	known := map[string][]string{
		"--progress": {"auto", "plain", "none"}, "--verity": {"auto", "require", "off"}, "--hash": {"sha256", "sha512"},
		"--rules": {"oci-1", "faithful-1"}, "--format": {"0", "1", "auto"}, "--mtime": {"keep", "clamp", "stable"},
		"--every": {"daily", "weekly", "biweekly", "monthly", "quarterly"},
	}
	if values, ok = known[word]; ok {
		return values, true
	}
	switch word {
	case "--compress":
		if chosen(before, "chunk") {
			return index.LayerCompressions(), true
		}
		return index.Compressions(), true
	case dashed(withoutPackages): // a list
		return prepend(value[:strings.LastIndexByte(value, ',')+1], pkgdb.Kinds()), true
	case "--previous":
		return append([]string{noPrevious}, anyImage(c, value)...), true
	case "--keep-base":
		return anyImage(c, value), true
	}
	name := strings.TrimLeft(word, "-")
	p := &permuter{commands: commands(), globals: globalFlags()}
	f := p.find(name)
	return nil, f != nil && takesValue(f) && !strings.Contains(word, "=")
}

// chosen tells whether words are of a command.
func chosen(words []string, command string) bool {
	line, err := permute(words, commands())
	return err == nil && line.command != nil && line.command.name == command
}

// anyImage are the names in the store, and the places of images elsewhere.
func anyImage(c console, value string) []string {
	return append(imageWords(c), placeWords(value, sources())...)
}

// argumentWords are the arguments that a command may have: images, places of images elsewhere, and shells; the shell adds
// files. last is what is there of the argument.
func argumentWords(c console, l *commandLine, last string) []string {
	switch l.command.name {
	case "help":
		return commandWords()
	case "completion":
		return []string{"bash", "zsh", "fish"}
	case "pull":
		return placeWords(last, sources())
	case "push":
		if len(l.args) == 1 {
			return placeWords(last, sinks())
		}
		if len(l.args) > 1 {
			return nil
		}
	case "mount", "tag", "inspect", "layers", "doctor":
		if len(l.args) > 0 {
			return nil
		}
	case "chunk":
		switch len(l.args) {
		case 0:
			return anyImage(c, last)
		case 1:
			return placeWords(last, sinks())
		}
		return nil
	case "chunks":
		if len(l.args) > 0 {
			return nil
		}
		return anyImage(c, last)
	case "digest", "dump", "diff":
		return anyImage(c, last)
	case "rm":
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

// place is a transport as one writes it, and what it means.
type place struct{ prefix, means string }

// sources are where images can be pulled from.
func sources() []place {
	return append(sinks(),
		place{"docker-archive:", "what docker save and podman save write"},
		place{"dir:", "a directory that skopeo or podman has written"},
		place{"docker://", "a registry"},
	)
}

// sinks are where images can be pushed to.
func sinks() []place {
	return []place{{"oci:", "a directory in OCI image layout"}, {"oci-archive:", "a tar of an OCI image layout"}}
}

// placeWords are the transports, or the paths that may follow one of them.
func placeWords(last string, places []place) []string {
	var words []string
	for _, p := range places {
		path, ok := strings.CutPrefix(last, p.prefix)
		if ok && p.prefix != "docker://" {
			return prepend(p.prefix, pathWords(path))
		}
		words = append(words, p.prefix+"\t"+p.means)
	}
	return words
}

// pathWords are the paths that begin like one; those of directories end in a slash.
func pathWords(path string) []string {
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(cmp.Or(dir, "."))
	if err != nil {
		return nil
	}
	var words []string
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, base) || strings.HasPrefix(name, ".") && base == "" {
			continue
		}
		if st, err := os.Stat(filepath.Join(dir, name)); err == nil && st.IsDir() {
			name += "/"
		}
		words = append(words, dir+name)
	}
	return words
}
