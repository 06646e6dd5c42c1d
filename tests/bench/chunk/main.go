// Command chunk replays recorded histories of images against ways to cut them into layers: ours, and those of other tools. It
// prints, as a Markdown table, how many megabytes an update fetches.
//
//	go run ./tests/bench/chunk [-run REGEXP] [-json] [-chunkah PROGRAM] [TRACE.json.gz]...
//
// The traces in testdata are taken if none is given; tests/bench/chunk/record makes more of them. With -chunkah the program
// itself cuts each release as well, in TMPDIR, which had better be a tmpfs.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/flatroot/flatroot/tests/bench/chunk/replay"
)

func main() {
	asJSON := flag.Bool("json", false, "all figures, as JSON")
	pattern := flag.String("run", "", "only rows whose name, such as server weekly churn 64, matches the `regexp`")
	chunkah := flag.String("chunkah", "", "also run chunkah's `program`, as built by cargo build --release --locked in its source")
	flag.Parse()
	if err := run(os.Stdout, *pattern, *asJSON, *chunkah, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "chunk:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, pattern string, asJSON bool, chunkah string, traces []string) error {
	match, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	if len(traces) == 0 {
		for _, name := range []string{"minimal", "server", "desktop"} {
			traces = append(traces, filepath.Join("tests", "bench", "chunk", "testdata", name+".json.gz"))
		}
	}
	results, err := compare(traces, match, chunkah)
	if err != nil {
		return err
	}
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "\t")
		return e.Encode(results)
	}
	table(w, results, chunkah != "")
	return nil
}

// compare runs the rows that match, as many at once as there are processors.
func compare(traces []string, match *regexp.Regexp, chunkah string) ([]replay.Compared, error) {
	var todo []func() (replay.Compared, error)
	for _, file := range traces {
		t, err := replay.ReadTrace(file)
		if err != nil {
			return nil, err
		}
		for _, r := range replay.Rows(strings.TrimSuffix(filepath.Base(file), ".json.gz")) {
			if match.MatchString(r.String()) {
				todo = append(todo, func() (c replay.Compared, err error) {
					c = r.Compare(t)
					if chunkah != "" {
						err = c.RunChunkah(r, t, chunkah)
					}
					return c, err
				})
			}
		}
	}
	results := make([]replay.Compared, len(todo))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, do := range todo {
		g.Go(func() (err error) {
			results[i], err = do()
			return err
		})
	}
	return results, g.Wait()
}

func table(w io.Writer, results []replay.Compared, chunkah bool) {
	header := []string{"row", "floor", "flatroot", "excess"}
	for _, p := range replay.Rivals() {
		header = append(header, p.Name)
	}
	header = append(header, "skip 4: floor, flatroot, least of rivals", "layers: flatroot, best rival", "ms a plan")
	if chunkah {
		header = append(header, "chunkah (run)", "of its releases, cut otherwise than by name-hash tiers")
	}
	line := func(cells ...string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }
	line(header...)
	line(strings.Split(strings.Repeat("--- ", len(header)-1)+"---", " ")...)
	for _, c := range results {
		line(cells(c)...)
	}
}

// cells of a row, in megabytes but for those that say what else.
func cells(c replay.Compared) []string {
	out := []string{c.Row, mega(c.Floor.Mean), mega(c.Ours.Mean), "-"}
	if excess, ok := c.Excess(); ok {
		out[3] = fmt.Sprintf("%.2f", excess)
	}
	for _, p := range replay.Rivals() {
		out = append(out, mega(c.Rivals[p.Name].Mean))
	}
	_, best := c.Best()
	out = append(out,
		fmt.Sprintf("%s, %s, %s", mega(c.Floor.Skip4), mega(c.Ours.Skip4), mega(c.LeastSkip4())),
		fmt.Sprintf("%.1f, %.1f", c.Ours.Layers, best.Layers), fmt.Sprintf("%.1f", c.Ours.PlanMS))
	if p := c.Chunkah; p != nil {
		out = append(out, mega(p.Mean), fmt.Sprintf("%d of %d", p.Apart, p.Releases))
	}
	return out
}

func mega(bytes float64) string { return fmt.Sprintf("%.1f", bytes/1e6) }
