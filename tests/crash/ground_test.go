//go:build amd64

package crash

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/tests/crash/kit"
)

// ground is a directory that a scenario's command works in.
type ground string

func (g ground) store() string { return filepath.Join(string(g), "store") }
func (g ground) dest() string  { return filepath.Join(string(g), "dest") }

// argv makes the command line of a scenario's line.
func (g ground) argv(line string) []string {
	r := strings.NewReplacer("{store}", g.store(), "{dest}", g.dest(), "{layout}", layout,
		"{registry}", strings.Replace(online.url, "http://", "docker://", 1),
		"{tree}", filepath.Join(scratch, "tree"), "{dump}", filepath.Join(scratch, "v1.dump"))
	argv := []string{flatroot}
	for word := range strings.FieldsSeq(line) {
		argv = append(argv, r.Replace(word))
	}
	return append(argv, "--progress", "none")
}

func (g ground) run(line string) (kit.Output, error) { return kit.Run(g.argv(line)...) }

// must runs a line that has to succeed.
func (g ground) must(line string) (string, error) {
	out, err := g.run(line)
	if err == nil && out.Status != 0 {
		err = fmt.Errorf("flatroot %s: status %d: %s%s", line, out.Status, out.Stdout, out.Stderr)
	}
	return out.Stdout, err
}

// state is the check's; a store that is not there yet, or has no meta.json yet, is an empty one.
func (g ground) state() (*kit.State, error) {
	s, err := kit.Check(g.store())
	if errors.Is(err, fs.ErrNotExist) {
		s, err = &kit.State{Names: map[string]string{}}, nil
	}
	return s, err
}

// names are the states of all names, those of a layout and an archive, which are somebody else's, among them.
func (g ground) names() (map[string]string, error) {
	s, err := g.state()
	if err != nil {
		return nil, err
	}
	names := maps.Clone(s.Names)
	pushed, err := readLayout(g.dest())
	for name, digest := range pushed {
		names["dest "+name] = digest
	}
	archived, aerr := readArchive(g.dest() + ".tar")
	for name, digest := range archived {
		names["archive "+name] = digest
	}
	return names, errors.Join(err, aerr)
}

// template is what all points of a scenario start from, and what they are compared with.
type template struct {
	scenario
	root   string // where points are tried
	ground ground
	before map[string]string // the states of names
	after  map[string]string
	damage []string // what is wrong before
	stdout string
	listed []string // what is there after a run that was not disturbed, and gc
}

// prepare makes a scenario's ground, in the directory root, and runs its command once in a copy.
func prepare(t *testing.T, root string, s scenario) *template {
	t.Helper()
	tpl := &template{scenario: s, root: root, ground: ground(filepath.Join(root, "template-"+s.name))}
	must(t, os.Mkdir(string(tpl.ground), 0o700))
	for _, line := range s.before {
		_, err := tpl.ground.must(line)
		must(t, err)
	}
	if s.half {
		must(t, tpl.ground.leaveHalf())
		online.Forget()
	}
	if s.damage != nil {
		must(t, s.damage(tpl.ground))
	}
	state, err := tpl.ground.state()
	must(t, err)
	tpl.damage = state.Problems
	tpl.before, err = tpl.ground.names()
	must(t, err)
	g := ground(filepath.Join(root, "reference-"+s.name))
	must(t, kit.Copy(string(tpl.ground), string(g)))
	out, err := g.run(s.command)
	must(t, err)
	if !s.succeeds(out.Status) {
		t.Fatalf("flatroot %s: status %d: %s%s", s.command, out.Status, out.Stdout, out.Stderr)
	}
	if s.half {
		must(t, wentOn())
	}
	tpl.stdout = out.Stdout
	tpl.after, err = g.names()
	must(t, err)
	_, err = g.must("fsck --store {store}") // as points do: it leaves a note of its own
	must(t, err)
	must(t, g.collect())
	tpl.listed, err = g.list()
	must(t, err)
	return tpl
}

// list lists what is there.
func (g ground) list() ([]string, error) { return kit.List(string(g)) }

// collect removes all that nothing leads to.
func (g ground) collect() error {
	_, err := g.must("gc --store {store}")
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
