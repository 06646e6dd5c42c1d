package main

import (
	"fmt"
	"io"
	"slices"
)

const (
	startSmall = "start 1k"
	startLarge = "start 1M"
)

// goal is a line of the table of goals: the most that a figure may be.
type goal struct {
	what   string
	most   float64
	figure func(*results) (float64, bool) // false: it was not measured
}

// cpuGoals are the most CPU that a row may take, × native.
var cpuGoals = []struct {
	row                       string
	hybrid, pure, passthrough float64 // 0: no goal
}{
	{"find warm", 1.1, 1.0, 1.1},
	{"tar warm", 1.1, 1.0, 3},
	{"import warm", 1.1, 1.1, 0},
	{"lstat warm", 1.4, 0.9, 0.9},
	{"small warm", 1.1, 0.8, 3.5},
	{"find cold", 4.5, 1.4, 1.4},
	{"small cold", 3.5, 3.1, 2.6},
	{"sequential cold", 1.1, 3.5, 1.1},
	{"sequential warm", 1.0, 1.05, 1.0},
	{"random cold", 1.25, 10.5, 1.4},
	{"random warm", 1.0, 0.9, 1.0},
}

func allGoals() []goal {
	var list []goal
	for _, g := range cpuGoals {
		for _, side := range []struct {
			name string
			most float64
		}{{hybrid, g.hybrid}, {pure, g.pure}, {passthrough, g.passthrough}} {
			if side.most > 0 {
				list = append(list, cpuGoal(g.row, side.name, native, side.most))
			}
		}
	}
	list = append(list, memoryGoals()...)
	list = append(list, startGoals()...)
	list = append(list, verifiedGoals()...)
	return append(list, peerGoals()...)
}

func cpuGoal(row, side, to string, most float64) goal {
	return goal{what: fmt.Sprintf("%s: CPU of %s, × %s", row, side, to), most: most, figure: func(r *results) (float64, bool) {
		best, _, ok := r.ratio(row, side, to, cpuOf)
		return best, ok
	}}
}

// memoryGoals are about RssAnon, which walking must not make grow, however large the tree.
func memoryGoals() []goal {
	var list []goal
	for _, side := range []string{hybrid, pure, passthrough} {
		rows := map[string]float64{"find cold": 4, "million cold": 4}
		if side == pure {
			rows["sequential cold"] = 8 // it reads 1 MiB at a time
		}
		for _, row := range []string{"find cold", "million cold", "sequential cold"} {
			if rows[row] == 0 {
				continue
			}
			list = append(list, goal{what: fmt.Sprintf("%s: RssAnon of %s, MiB", row, side), most: rows[row], figure: func(r *results) (float64, bool) {
				v := r.values(row, side, func(s sample) float64 { return float64(s.RssAnon) / (1 << 20) })
				if len(v) == 0 {
					return 0, false
				}
				return slices.Max(v), true
			}})
		}
	}
	return list
}

// startGoals leave out what hashes the whole image before it answers.
func startGoals() []goal {
	var list []goal
	for _, side := range []string{hybrid, pure, passthrough} {
		for _, row := range []string{startSmall, startLarge} {
			list = append(list, goal{what: fmt.Sprintf("%s: ms to the first stat, %s", row, side), most: 5, figure: func(r *results) (float64, bool) {
				v := r.values(row, side, wallOf)
				if len(v) == 0 {
					return 0, false
				}
				return slices.Min(v) * 1e3, true
			}})
		}
		list = append(list, goal{what: "start: 1M inodes, × 1k inodes, " + side, most: 1.3, figure: func(r *results) (float64, bool) {
			a, b := r.values(startLarge, side, wallOf), r.values(startSmall, side, wallOf)
			if len(a) == 0 || len(b) == 0 {
				return 0, false
			}
			return slices.Min(a) / slices.Min(b), true
		}})
	}
	return append(list, goal{what: "start 1k: ms of native more than mount.composefs", most: 5, figure: func(r *results) (float64, bool) {
		a, b := r.values(startSmall, native, wallOf), r.values(startSmall, composefsC, wallOf)
		if len(a) == 0 || len(b) == 0 {
			return 0, false
		}
		return (slices.Min(a) - slices.Min(b)) * 1e3, true
	}})
}

// verifiedGoals: a first pass may take a second of one core more for each GB, later ones nothing.
func verifiedGoals() []goal {
	list := []goal{{what: "whole file cold: s of CPU that verifying takes for each GB", most: 1, figure: func(r *results) (float64, bool) {
		a, b := r.values("whole file cold", verified, cpuOf), r.values("whole file cold", pure, cpuOf)
		if len(a) == 0 || len(b) == 0 {
			return 0, false
		}
		return (slices.Min(a) - slices.Min(b)) / (bigFileSize / 1e9), true
	}}, {what: "whole file warm: s of CPU of the server, fuse verified", most: 0.001, figure: func(r *results) (float64, bool) {
		v := r.values("whole file warm", verified, func(s sample) float64 { return s.Server })
		if len(v) == 0 {
			return 0, false
		}
		return slices.Min(v), true
	}}}
	for _, row := range []string{"find warm", "lstat warm", "small warm", "import warm", "tar warm", "random warm", "sequential warm"} {
		list = append(list, cpuGoal(row, verified, pure, 1.1))
	}
	return list
}

// peerGoals: cfs-fuse is beaten, or within a tenth. The hybrid asks more of its server while it is cold, and starts overlayfs.
func peerGoals() []goal {
	var list []goal
	for _, row := range allRows() {
		for _, state := range []string{" cold", " warm"} {
			for _, side := range []string{hybrid, pure, passthrough} {
				metadata := row.name == "find" || row.name == "lstat" || row.name == "million"
				if row.noWarm && state == " warm" || side == hybrid && state == " cold" && metadata {
					continue
				}
				list = append(list, cpuGoal(row.name+state, side, cfsFuse, 1.1))
			}
		}
	}
	return list
}

func (r *results) verdicts(w io.Writer) {
	line := func(...string) {}
	for n, g := range measured(r) {
		if n == 0 {
			line = table(w, []string{"goal", "at most", "measured", ""})
		}
		verdict := "met"
		if g.got > g.most {
			verdict = fmt.Sprintf("**missed** by %.0f %%", 100*(g.got/g.most-1))
		}
		line(g.what, fmt.Sprintf("%g", g.most), fmt.Sprintf("%.2f", g.got), verdict)
	}
}

type outcome struct {
	goal
	got float64
}

func measured(r *results) []outcome {
	var list []outcome
	for _, g := range allGoals() {
		if got, ok := g.figure(r); ok {
			list = append(list, outcome{g, got})
		}
	}
	return list
}
