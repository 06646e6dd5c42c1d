// Command gc measures what it costs to remove one of two images that share most of their files: `flatroot gc`, beside
// `flatroot gc --full`, which looks at all objects, and beside `cfsctl gc` where that is to be had. All work in turn on copies
// of one store in memory, whose objects are hard links; after each run what it removed is put back.
//
//	go run ./tests/bench/gc [-n PAIRS] [-objects NUMBER]
//
// A million objects take some 7 GiB of memory.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/tests/bench/kit"
)

type settings struct {
	flatroot string // the binary
	peers    string // where cfsctl is looked for besides PATH
	work     string // on a tmpfs
	pairs    int
	objects  int // in the store, streams and images not counted
	own      int // of these, that only the removed image has
	removed  []string
}

// side is one way to collect the garbage.
type side struct {
	name  string
	args  []string // without the store
	costs []kit.Cost
}

func main() {
	s, percent, makeIn := &settings{}, 0, ""
	flag.StringVar(&s.flatroot, "flatroot", "bin/flatroot", "`binary` to measure")
	flag.StringVar(&s.peers, "peers", kit.Env("FLATROOT_PEERS", "/var/cache/flatroot-peers"), "`directory` of the peers")
	flag.StringVar(&s.work, "work", "", "`directory` on a tmpfs (a new one in /dev/shm)")
	flag.IntVar(&s.pairs, "n", 5, "runs of each")
	flag.IntVar(&s.objects, "objects", 1_000_000, "objects in the store")
	flag.IntVar(&percent, "own", 5, "how many of these only the removed image has, in `percent`")
	flag.StringVar(&makeIn, "make", "", "make the store in this `directory`, and nothing else")
	flag.Parse()
	s.own = s.objects * percent / 100
	err := error(nil)
	if makeIn != "" {
		err = makeStore(makeIn, s.objects, s.own)
	} else {
		err = s.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/gc:", err)
		os.Exit(1)
	}
}

func (s *settings) run() (err error) {
	if s.flatroot, err = filepath.Abs(s.flatroot); err != nil {
		return err
	}
	if s.work == "" {
		if s.work, err = os.MkdirTemp("/dev/shm", "flatroot-bench-gc-"); err != nil {
			return err
		}
		defer os.RemoveAll(s.work)
	}
	// A process of its own: what it needed of memory would count for those that it started.
	self, err := os.Executable()
	if err != nil {
		return err
	}
	err = kit.Command(self, "-make", s.path("store"), "-objects", fmt.Sprint(s.objects), "-own", fmt.Sprint(s.own*100/s.objects))
	if err != nil {
		return err
	}
	if err := s.readRemoved(); err != nil {
		return err
	}
	sides := s.sides()
	for i := range sides {
		if err := kit.Command("cp", "-al", s.path("store"), s.copyOf(i)); err != nil {
			return err
		}
	}
	for round := range s.pairs + 1 {
		for i, side := range sides {
			c, err := s.measure(i, side)
			if err != nil {
				return err
			}
			if round > 0 { // the first warms caches
				side.costs = append(side.costs, c)
			}
		}
	}
	s.print(sides)
	return nil
}

func (s *settings) path(name string) string { return filepath.Join(s.work, name) }

func (s *settings) copyOf(i int) string { return s.path(fmt.Sprint("copy", i)) }

// sides has ours first, and cfsctl last if there is one.
func (s *settings) sides() []*side {
	sides := []*side{
		{name: "`flatroot gc`", args: []string{s.flatroot, "--progress", "none", "gc", "--json", "--store"}},
		{name: "`flatroot gc --full`", args: []string{s.flatroot, "--progress", "none", "gc", "--full", "--json", "--store"}},
	}
	cfsctl, err := exec.LookPath(filepath.Join(s.peers, "bin", "cfsctl"))
	if err != nil {
		cfsctl, err = exec.LookPath("cfsctl")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/gc: cfsctl is left out, there is none")
		return sides
	}
	return append(sides, &side{name: "`cfsctl gc`", args: []string{cfsctl, "--insecure", "gc", "--repo"}})
}

func (s *settings) measure(i int, d *side) (c kit.Cost, err error) {
	if err := s.restore(i); err != nil {
		return c, err
	}
	c, out, err := kit.Measure(append(slices.Clone(d.args), s.copyOf(i))...)
	if err != nil {
		return c, err
	}
	return c, s.check(i, d, out)
}

// check makes sure that a side did the work: just what only the removed image has is gone.
func (s *settings) check(i int, d *side, out string) error {
	gone := 0
	for _, path := range s.removed {
		if _, err := os.Lstat(filepath.Join(s.copyOf(i), path)); os.IsNotExist(err) {
			gone++
		}
	}
	if gone != len(s.removed) {
		return fmt.Errorf("%s: removed %d of %d objects", d.name, gone, len(s.removed))
	}
	var r struct{ Removed struct{ Objects int } }
	if strings.Contains(d.name, "flatroot") {
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			return err
		}
		if r.Removed.Objects != gone {
			return fmt.Errorf("%s: it says that it removed %d objects, and %d are gone", d.name, r.Removed.Objects, gone)
		}
	}
	return nil
}

func (s *settings) print(sides []*side) {
	fmt.Printf("| remove one of two images, %d objects, %d of the image alone | CPU, gc / this | wall | CPU s, wall s, peak MiB | pairs | goal |\n",
		s.objects, s.own)
	fmt.Println("|---|---|---|---|---|---|")
	for i, d := range sides {
		goal := []string{"≤ 200 MiB", "≤ 0.1, ≤ 200 MiB", "-"}[i]
		fmt.Printf("| %s | %s | %s | %.2f, %.2f, %.0f | %d | %s |\n", d.name,
			kit.Ratio(sides[0].costs, d.costs, kit.CPU, 3), kit.Ratio(sides[0].costs, d.costs, kit.Wall, 3),
			kit.Middle(d.costs, kit.CPU), kit.Middle(d.costs, kit.Wall), kit.Middle(d.costs, kit.RSS), len(d.costs), goal)
	}
}
