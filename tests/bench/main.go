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
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/flatroot/flatroot/tests/bench/kit"
)

// settings say where things are.
type settings struct {
	flatroot string // the binary
	peers    string // as tests/peers/setup.sh made them
	corpus   string // as tests/bench/corpus.sh made it
	work     string // on a tmpfs
	pairs    int
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
type cost struct {
	cpu, wall float64 // seconds; cpu is user and system time
	rss       float64 // MiB, of the largest process
}

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
	var ours, peers []cost
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

func (d side) run(s *settings) (cost, error) {
	if d.prepare != nil {
		if err := d.prepare(s); err != nil {
			return cost{}, err
		}
	}
	args := d.command(s)
	cmd := exec.Command(args[0], args[1:]...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return cost{}, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out.String())
	}
	wall := time.Since(start).Seconds()
	u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	cpu := time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
	return cost{cpu: cpu, wall: wall, rss: float64(u.Maxrss) / 1024}, nil
}

func (r *row) print(ours, peers []cost) {
	cpu := func(c cost) float64 { return c.cpu }
	rss := func(c cost) float64 { return c.rss }
	fmt.Printf("| %s | %s | %s | %s | %.2f, %.0f | %.2f, %.0f | %d | %s |\n", r.name,
		ratio(ours, peers, cpu), ratio(ours, peers, func(c cost) float64 { return c.wall }), ratio(ours, peers, rss),
		middle(ours, cpu), middle(ours, rss), middle(peers, cpu), middle(peers, rss), len(ours), r.goal)
}

// ratio gives the median of the pairs' ratios, and the range.
func ratio(ours, peers []cost, of func(cost) float64) string {
	r := make([]float64, len(ours))
	for i := range r {
		r[i] = of(ours[i]) / of(peers[i])
	}
	slices.Sort(r)
	return fmt.Sprintf("**%.2f** (%.2f-%.2f)", r[len(r)/2], r[0], r[len(r)-1])
}

func middle(c []cost, of func(cost) float64) float64 {
	v := make([]float64, len(c))
	for i := range v {
		v[i] = of(c[i])
	}
	return kit.Median(v)
}
