package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/tests/bench/kit"
)

func cpuOf(s sample) float64  { return s.CPU }
func wallOf(s sample) float64 { return s.Wall }

// values are one figure of all samples of a cell.
func (r *results) values(row, side string, of func(sample) float64) []float64 {
	var v []float64
	for _, s := range r.samples[key{row, side}] {
		v = append(v, of(s))
	}
	return v
}

// ratio compares the best of a side with the best of another, and the medians; ok if there are both.
func (r *results) ratio(row, side, to string, of func(sample) float64) (best, median float64, ok bool) {
	a, b := r.values(row, side, of), r.values(row, to, of)
	if len(a) == 0 || len(b) == 0 {
		return 0, 0, false
	}
	return slices.Min(a) / slices.Min(b), kit.Median(a) / kit.Median(b), true
}

// rowNames lists those that were measured, in the order of allRows.
func (r *results) rowNames() []string {
	var names []string
	for _, row := range allRows() {
		for _, state := range []string{" cold", " warm"} {
			if len(r.samples[key{row.name + state, native}]) > 0 {
				names = append(names, row.name+state)
			}
		}
	}
	return names
}

func (r *results) report(w io.Writer, sides []side) {
	names := r.rowNames()
	if len(names) > 0 {
		fmt.Fprintf(w, "CPU of clients and servers, × native: best of all rounds by best, in brackets the medians.\n\n")
		r.ratios(w, names, sides, cpuOf)
		fmt.Fprintf(w, "Wall time, × native.\n\n")
		r.ratios(w, names, sides, wallOf)
		fmt.Fprintf(w, "Replies of the servers (calls of write), and MiB that they wrote.\n\n")
		r.perServer(w, names, sides, func(s sample) string {
			return fmt.Sprintf("%d, %.1f", s.Replies, float64(s.Bytes)/(1<<20))
		})
		fmt.Fprintf(w, "Memory of the servers afterwards, MiB: RssAnon, in brackets with mapped files.\n\n")
		r.perServer(w, names, sides, func(s sample) string {
			return fmt.Sprintf("%.1f (%.0f)", float64(s.RssAnon)/(1<<20), float64(s.RssTotal)/(1<<20))
		})
	}
	r.starts(w, sides)
	r.verdicts(w)
}

func table(w io.Writer, header []string) func(cells ...string) {
	line := func(cells ...string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }
	line(header...)
	line(slices.Repeat([]string{"---"}, len(header))...)
	return line
}

func (r *results) ratios(w io.Writer, names []string, sides []side, of func(sample) float64) {
	header := []string{"what", "native, s"}
	for _, s := range sides {
		if s.name != native && s.name != composefsC {
			header = append(header, s.name)
		}
	}
	line := table(w, header)
	for _, name := range names {
		cells := []string{name, fmt.Sprintf("%.3f", slices.Min(r.values(name, native, of)))}
		for _, side := range header[2:] {
			cell := ""
			if best, median, ok := r.ratio(name, side, native, of); ok {
				cell = fmt.Sprintf("**%.2f** (%.2f)", best, median)
			}
			cells = append(cells, cell)
		}
		line(cells...)
	}
	fmt.Fprintln(w)
}

// perServer shows the last sample of each cell.
func (r *results) perServer(w io.Writer, names []string, sides []side, show func(sample) string) {
	header := []string{"what"}
	for _, s := range sides {
		if !s.native {
			header = append(header, s.name)
		}
	}
	line := table(w, header)
	for _, name := range names {
		cells := []string{name}
		for _, side := range header[1:] {
			cell := ""
			if all := r.samples[key{name, side}]; len(all) > 0 {
				cell = show(all[len(all)-1])
			}
			cells = append(cells, cell)
		}
		line(cells...)
	}
	fmt.Fprintln(w)
}

func (r *results) starts(w io.Writer, sides []side) {
	var lines [][]string
	for _, s := range sides {
		cells := []string{s.name}
		for _, row := range []string{startSmall, startLarge} {
			cell := ""
			if v := r.values(row, s.name, wallOf); len(v) > 0 {
				cell = fmt.Sprintf("**%.1f** (%.1f)", slices.Min(v)*1e3, kit.Median(v)*1e3)
			}
			cells = append(cells, cell)
		}
		if cells[1]+cells[2] != "" {
			lines = append(lines, cells)
		}
	}
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(w, "From the start of the command to the first stat, ms: best, in brackets the median.\n\n")
	line := table(w, []string{"mode", "1,000 inodes", "1,000,000 inodes"})
	for _, cells := range lines {
		line(cells...)
	}
	fmt.Fprintln(w)
}
