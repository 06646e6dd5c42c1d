package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/tests/bench/kit"
)

// measureAll is the inner process's work. What was measured before an error is still reported.
func measureAll(s *settings) error {
	if err := enter(); err != nil {
		return err
	}
	d, err := prepare(s)
	if err != nil {
		return err
	}
	sides, err := d.usable()
	if err != nil {
		return err
	}
	r := &results{samples: map[key][]sample{}}
	if s.json != "" {
		f, err := os.Create(s.json)
		if err != nil {
			return err
		}
		defer f.Close()
		r.json = f
	}
	err = r.measure(d, sides)
	r.report(os.Stdout, sides)
	return err
}

// usable keeps the sides that were chosen and can mount here; why one can't is said once.
func (d *data) usable() ([]side, error) {
	var list []side
	for _, s := range d.settings.allSides() {
		name := strings.TrimSuffix(s.name, otherMark)
		chosen := len(d.settings.sides) == 0 || name == native || slices.Contains(d.settings.sides, name)
		if !chosen {
			continue
		}
		err := d.try(s)
		if err != nil && s.name == native {
			return nil, err // what all is relative to
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench/mount: left out: %v\n", err)
			continue
		}
		list = append(list, s)
	}
	return list, nil
}

func (d *data) try(s side) error {
	if s.full {
		if err := once(d.full, d.makeFull); err != nil {
			return err
		}
	}
	m, err := s.mount(d, d.tree)
	if err != nil {
		return err
	}
	return m.unmount()
}

// makeFull writes the tree with all its data as one EROFS image, from the native mount.
func (d *data) makeFull(file string) (err error) {
	m, err := d.settings.allSides()[0].mount(d, d.tree)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.unmount()) }()
	return kit.Command(filepath.Join(d.settings.peers, "bin", "mkfs.erofs"), file, m.target)
}

// key finds the samples of one cell.
type key struct{ row, side string }

// results is what was measured so far.
type results struct {
	samples map[key][]sample
	json    io.Writer // nil: nowhere
	failed  error     // of writing
}

func (r *results) add(s sample) {
	k := key{s.Row, s.Side}
	r.samples[k] = append(r.samples[k], s)
	if r.json != nil && r.failed == nil {
		r.failed = writeSample(r.json, s)
	}
}

func (r *results) measure(d *data, sides []side) error {
	fmt.Printf("%s; load average when it began: %s\n\n", machine(), load())
	for _, row := range allRows() {
		if !d.settings.rows.MatchString(row.name) {
			continue
		}
		if err := r.measureRow(d, row, sides); err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
	}
	if err := r.measureStart(d, sides); err != nil {
		return err
	}
	fmt.Printf("Load average at the end: %s\n\n", load())
	return r.failed
}

func (r *results) measureRow(d *data, row row, sides []side) error {
	rounds := d.settings.rounds
	if row.rounds > 0 {
		rounds = min(rounds, row.rounds)
	}
	for round := range rounds {
		for _, s := range turn(sides, round) {
			if !row.wants(d, s) {
				continue
			}
			if err := row.measure(d, s, round, r.add); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	return nil
}

// turn gives the sides in the order of this round: forward, then backward.
func turn(sides []side, round int) []side {
	list := slices.Clone(sides)
	if round%2 == 1 {
		slices.Reverse(list)
	}
	return list
}

// measureStart takes the time from the start of a command to the first stat, on a small and on a large image. It is short, so
// there are three times as many rounds.
func (r *results) measureStart(d *data, sides []side) error {
	for _, i := range []image{d.thousand, d.million} {
		name := "start " + i.name
		if !d.settings.rows.MatchString(name) {
			continue
		}
		for round := range 3 * d.settings.rounds {
			for _, s := range turn(sides, round) {
				if s.full {
					continue
				}
				m, err := s.mount(d, i)
				if err != nil {
					return err
				}
				r.add(sample{Row: name, Side: s.name, Round: round, Wall: m.took.Seconds()})
				if err := m.unmount(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

func machine() string {
	release, _ := exec.Command("uname", "-r").Output()
	cpus, _ := exec.Command("nproc").Output()
	return fmt.Sprintf("Linux %s, %s cores", strings.TrimSpace(string(release)), strings.TrimSpace(string(cpus)))
}
