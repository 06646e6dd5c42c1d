//go:build amd64

package crash

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tests/crash/inject"
	"github.com/flatroot/flatroot/tests/crash/kit"
)

// point is one run of a scenario's command, struck by a fault.
type point struct {
	*template
	fault inject.Fault
	g     ground
	r     *inject.Result
}

// try runs a point and checks all that has to hold. It tells whether the command came as far as the fault.
func (tpl *template) try(dir string, f inject.Fault) (struck bool, err error) {
	p := &point{template: tpl, fault: f, g: ground(dir)}
	if err := kit.Copy(string(tpl.ground), dir); err != nil {
		return false, err
	}
	p.r, err = inject.Run(p.g.argv(tpl.command), f, inject.Options{Roots: []string{dir}, NoTmpfile: tpl.noTmpfile})
	if err != nil {
		return false, err
	}
	if err := p.check(); err != nil {
		return p.r.Struck, p.explain(err)
	}
	return p.r.Struck, os.RemoveAll(dir)
}

// explain says which point it was, and how to see it again.
func (p *point) explain(err error) error {
	return fmt.Errorf("%s: call %s\n\tflatroot %s\n\tstatus %d, stdout %q, stderr %q\n%w\n\tagain: "+
		"FLATROOT_TEST=crash go test ./tests/crash -run '^TestPoints$/^%s$' -point=%s -keep",
		p.fault, p.r.Hit, p.command, p.r.Status, p.r.Stdout, p.r.Stderr, err, p.name, p.fault)
}

func (p *point) check() error {
	for _, step := range []struct {
		when  string
		check func() error
	}{
		{"after the command", p.checkOutcome},
		{"in the store then", p.checkNoWorse},
		{"when it is run again", p.again},
		{"in the store after that", p.checkWhole},
		{"after gc", p.checkCollected},
	} {
		if err := step.check(); err != nil {
			return fmt.Errorf("\t%s: %w", step.when, err)
		}
	}
	return nil
}

// checkOutcome compares what the command says with what it has done.
func (p *point) checkOutcome() error {
	names, err := p.g.names()
	if err != nil {
		return err
	}
	switch {
	case p.succeeds(p.r.Status) && p.failedToSync():
		return errors.New("success, though what was not synced is not safe")
	case p.succeeds(p.r.Status):
		return p.succeeded(p.r.Stdout, names)
	case !p.r.Struck:
		return errors.New("it failed by itself")
	case p.fault.Kind == inject.Fail && !p.saysWhat():
		return errors.New("the message says neither which file nor which store")
	case p.fault.Kind == inject.Fail || p.fault.Kind == inject.Kill:
		return p.beforeOrAfter(names)
	}
	return errors.New("it failed, though nothing did that may not happen to any write")
}

// saysWhat tells whether the message of an error names a path of ours, and the error.
func (p *point) saysWhat() bool {
	said := p.r.Stderr
	if p.checks() {
		said += p.r.Stdout // where a check tells of what it could not repair, or note
	}
	return strings.Contains(said, string(p.g)) && strings.Contains(said, p.fault.Errno.Error())
}

// checks tells whether the command is fsck.
func (p *point) checks() bool { return strings.HasPrefix(p.command, "fsck") }

// failedToSync: EINTR apart, a failed sync can't be made good, not even by another one that succeeds. A repair that could not
// make a file tries again with a new one.
func (p *point) failedToSync() bool {
	syncs := []string{"fsync", "fdatasync", "syncfs", "sync_file_range"}
	if name := filepath.Base(p.r.Hit.Path); p.checks() && (strings.HasPrefix(name, "#") || strings.Contains(name, ".tmp-")) {
		return false
	}
	return p.r.Struck && p.fault.Kind == inject.Fail && p.fault.Errno != unix.EINTR && slices.Contains(syncs, p.r.Hit.Name)
}

func (p *point) succeeded(stdout string, names map[string]string) error {
	if p.digest && stdout != p.stdout {
		return fmt.Errorf("printed %q, want %q", stdout, p.stdout)
	}
	return p.compare(names, func(name, now string) bool { return now == p.after[name] })
}

func (p *point) beforeOrAfter(names map[string]string) error {
	return p.compare(names, func(name, now string) bool { return now == p.before[name] || now == p.after[name] })
}

// compare asks of each name whether its state is right.
func (p *point) compare(names map[string]string, right func(name, now string) bool) error {
	all := maps.Clone(names)
	maps.Copy(all, p.before)
	maps.Copy(all, p.after)
	for name := range all {
		if now := names[name]; !right(name, now) {
			return fmt.Errorf("the name %s leads to %q: before it was %q, after %q", name, now, p.before[name], p.after[name])
		}
	}
	return nil
}

// checkNoWorse looks for damage that was not there before.
func (p *point) checkNoWorse() error {
	if p.scenario.damage == nil {
		return p.checkWhole()
	}
	s, err := p.g.state()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, problem := range p.template.damage {
		known[subject(problem)] = true
	}
	for _, problem := range s.Problems {
		if !known[subject(problem)] {
			return fmt.Errorf("a new problem: %s\n\t\tbefore:\n\t\t%s", problem, strings.Join(p.template.damage, "\n\t\t"))
		}
	}
	return nil
}

// subject is what a problem is about: what is wrong with it may have changed, and is not yet right.
func subject(problem string) string {
	what, _, _ := strings.Cut(problem, ": ")
	return what
}

// checkWhole has the store checked twice, by different programs. What was being made with init may be none yet.
func (p *point) checkWhole() error {
	s, err := p.g.state()
	if err != nil {
		return err
	}
	if len(s.Problems) > 0 {
		return fmt.Errorf("problems:\n\t\t%s", strings.Join(s.Problems, "\n\t\t"))
	}
	if _, err := os.Stat(filepath.Join(p.g.store(), "meta.json")); err != nil {
		return nil
	}
	_, err = p.g.must("fsck --store {store}")
	return err
}

// again runs the command once more.
func (p *point) again() error {
	out, err := p.g.run(p.command)
	if err != nil {
		return err
	}
	names, err := p.g.names()
	if err != nil {
		return err
	}
	if !p.succeeds(out.Status) && (p.repeated == nil || !p.repeated(out.Status, out.Stderr)) {
		return fmt.Errorf("status %d: %s%s", out.Status, out.Stdout, out.Stderr)
	}
	if !p.succeeds(out.Status) {
		out.Stdout = p.stdout
	}
	return p.succeeded(out.Stdout, names)
}

// checkCollected has gc clean up, and looks for what is left.
func (p *point) checkCollected() error {
	if err := p.g.collect(); err != nil {
		return err
	}
	s, err := p.g.state()
	if err != nil {
		return err
	}
	if problems := slices.Concat(s.Problems, s.Leftovers); len(problems) > 0 {
		return fmt.Errorf("left:\n\t\t%s", strings.Join(problems, "\n\t\t"))
	}
	listed, err := p.g.list()
	if err != nil {
		return err
	}
	if diff := kit.Differences(p.listed, listed); len(diff) > 0 {
		return fmt.Errorf("not as after a run that was not disturbed:\n\t\t%s", strings.Join(diff, "\n\t\t"))
	}
	return nil
}
