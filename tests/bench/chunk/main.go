// Command chunk replays recorded histories of images against ways to cut them into layers: ours, and those of other tools. It
// prints, as a Markdown table, how many megabytes an update fetches.
//
//	go run ./tests/bench/chunk [-run REGEXP] [-json] [TRACE.json.gz]...
//
// The traces in testdata are taken if none is given; tests/bench/chunk/record makes more of them.
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
	flag.Parse()
	if err := run(os.Stdout, *pattern, *asJSON, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "chunk:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, pattern string, asJSON bool, traces []string) error {
	match, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	if len(traces) == 0 {
		for _, name := range []string{"minimal", "server", "desktop"} {
			traces = append(traces, filepath.Join("tests", "bench", "chunk", "testdata", name+".json.gz"))
		}
	}
	results, err := compare(traces, match)
	if err != nil {
		return err
	}
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "\t")
		return e.Encode(results)
	}
	table(w, results)
	return nil
}

// compare runs the rows that match, as many at once as there are processors.
func compare(traces []string, match *regexp.Regexp) ([]replay.Compared, error) {
	var todo []func() replay.Compared
	for _, file := range traces {
		t, err := replay.ReadTrace(file)
		if err != nil {
			return nil, err
		}
		for _, r := range replay.Rows(strings.TrimSuffix(filepath.Base(file), ".json.gz")) {
			if match.MatchString(r.String()) {
				todo = append(todo, func() replay.Compared { return r.Compare(t) })
			}
		}
	}
	results := make([]replay.Compared, len(todo))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, do := range todo {
		g.Go(func() error {
			results[i] = do()
			return nil
		})
	}
	return results, g.Wait()
}

func table(w io.Writer, results []replay.Compared) {
	header := []string{"row", "floor", "flatroot", "excess"}
	for _, p := range replay.Rivals() {
		header = append(header, p.Name)
	}
	header = append(header, "skip 4: floor, flatroot, best rival", "layers: flatroot, best rival", "ms a plan")
	line := func(cells ...string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }
	line(header...)
	line(strings.Split(strings.Repeat("--- ", len(header)-1)+"---", " ")...)
	for _, c := range results {
		line(cells(c)...)
	}
}

// cells of a row. All but the last are in megabytes.
func cells(c replay.Compared) []string {
	out := []string{c.Row, mega(c.Floor.Mean), mega(c.Ours.Mean), "-"}
	if excess, ok := c.Excess(); ok {
		out[3] = fmt.Sprintf("%.2f", excess)
	}
	for _, p := range replay.Rivals() {
		out = append(out, mega(c.Rivals[p.Name].Mean))
	}
	_, best := c.Best()
	return append(out,
		fmt.Sprintf("%s, %s, %s", mega(c.Floor.Skip4), mega(c.Ours.Skip4), mega(best.Skip4)),
		fmt.Sprintf("%.1f, %.1f", c.Ours.Layers, best.Layers), fmt.Sprintf("%.1f", c.Ours.PlanMS))
}

func mega(bytes float64) string { return fmt.Sprintf("%.1f", bytes/1e6) }
