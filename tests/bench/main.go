// Command bench runs flatroot and the tools that people use today side by side, in turn, and prints what each costs as a
// Markdown table. On a shared machine only ratios within one run mean something, so that is what it gives: the median of the
// pairs, and the smallest and largest.
//
//	go run ./tests/bench [-n PAIRS] [-run REGEXP]
//
// It needs root, the peers (tests/peers/setup.sh --bench), images (tests/bench/corpus.sh), and room in memory: what is
// measured lies on a tmpfs, so that the disk is no part of it.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"github.com/flatroot/flatroot/tests/bench/kit"
)

// settings say where things are.
type settings struct {
	flatroot string // the binary
	peers    string // as tests/peers/setup.sh made them
	corpus   string // as tests/bench/corpus.sh made it
	work     string // on a tmpfs
	pairs    int
	registry string // HOST:PORT, once it was started
}

// row is a comparison: two commands that come to the same, each run anew from a clean state.
type row struct {
	name  string
	goal  string // of the ratio of CPU, for the table
	needs string // an image of the corpus; empty: none
	tool  string // a peer that is no Debian package: without it the row is left out
	ours  side
	peer  side
	setup func(s *settings) error // once, before the first run
	pairs int                     // instead of settings.pairs
}

// side is a command and what must happen before it runs, which is not measured.
type side struct {
	prepare func(s *settings) error
	command func(s *settings) []string
}

// cost is what one run of a process and its children took.
func main() {
	s := &settings{}
	flag.StringVar(&s.flatroot, "flatroot", "bin/flatroot", "`binary` to measure")
	flag.StringVar(&s.peers, "peers", kit.Env("FLATROOT_PEERS", "/var/cache/flatroot-peers"), "`directory` of the peers")
	flag.StringVar(&s.corpus, "corpus", kit.Env("FLATROOT_CORPUS", "/var/cache/flatroot-corpus"), "`directory` of the images")
	flag.StringVar(&s.work, "work", "", "`directory` on a tmpfs (a new one in /dev/shm)")
	flag.IntVar(&s.pairs, "n", 5, "runs of each")
	pattern := flag.String("run", "", "only rows whose name matches the `regexp`")
	flag.Parse()
	if err := run(s, *pattern); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(s *settings, pattern string) error {
	match, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	if s.flatroot, err = filepath.Abs(s.flatroot); err != nil {
		return err
	}
	if s.work == "" {
		if s.work, err = os.MkdirTemp("/dev/shm", "flatroot-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(s.work)
	}
	fmt.Println("| what | CPU, ours / peer | wall | peak memory | ours: CPU s, MiB | peer: CPU s, MiB | pairs | goal (CPU) |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for _, r := range rows() {
		if !match.MatchString(r.name) {
			continue
		}
		if _, err := exec.LookPath(cmp.Or(r.tool, "true")); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: left out, there is no %s\n", r.name, r.tool)
			continue
		}
		if err := r.measure(s); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

// image is where an image of the corpus lies once it was copied into memory.
func (s *settings) image(name string) string { return filepath.Join(s.work, "image-"+name) }

func (s *settings) copyImage(name string) error {
	if _, err := os.Stat(s.image(name)); err == nil {
		return nil
	}
	return kit.Command("cp", "-r", filepath.Join(s.corpus, "oci", name), s.image(name))
}

func (r *row) measure(s *settings) error {
	if r.needs != "" {
		if err := s.copyImage(r.needs); err != nil {
			return err
		}
	}
	if r.setup != nil {
		if err := r.setup(s); err != nil {
			return err
		}
	}
	var ours, peers []kit.Cost
	// The first pair warms caches and is not counted.
	for i := range cmp.Or(r.pairs, s.pairs) + 1 {
		o, err := r.ours.run(s)
		if err != nil {
			return err
		}
		p, err := r.peer.run(s)
		if err != nil {
			return err
		}
		if i > 0 {
			ours, peers = append(ours, o), append(peers, p)
		}
	}
	r.print(ours, peers)
	return nil
}

func (d side) run(s *settings) (kit.Cost, error) {
	if d.prepare != nil {
		if err := d.prepare(s); err != nil {
			return kit.Cost{}, err
		}
	}
	c, _, err := kit.Measure(d.command(s)...)
	return c, err
}

func (r *row) print(ours, peers []kit.Cost) {
	fmt.Printf("| %s | %s | %s | %s | %.2f, %.0f | %.2f, %.0f | %d | %s |\n", r.name,
		kit.Ratio(ours, peers, kit.CPU, 2), kit.Ratio(ours, peers, kit.Wall, 2), kit.Ratio(ours, peers, kit.RSS, 2),
		kit.Middle(ours, kit.CPU), kit.Middle(ours, kit.RSS), kit.Middle(peers, kit.CPU), kit.Middle(peers, kit.RSS), len(ours), r.goal)
}
