package main

import (
	"os"
	"strings"
	"testing"
)

// resultsOf makes one sample a cell, of the CPU given.
func resultsOf(cpu map[key][]float64) *results {
	r := &results{samples: map[key][]sample{}}
	for k, values := range cpu {
		for _, v := range values {
			r.add(sample{Row: k.row, Side: k.side, CPU: v})
		}
	}
	return r
}

func TestRatioComparesBestWithBest(t *testing.T) {
	r := resultsOf(map[key][]float64{{"find warm", native}: {4, 2, 3}, {"find warm", pure}: {5, 3, 9}})
	best, median, ok := r.ratio("find warm", pure, native, cpuOf)
	if !ok || best != 1.5 || median != 5./3 {
		t.Errorf("got %v, %v, %v", best, median, ok)
	}
	if _, _, ok := r.ratio("find warm", hybrid, native, cpuOf); ok {
		t.Error("a side that was not measured has a ratio")
	}
}

func TestVerdicts(t *testing.T) {
	r := resultsOf(map[key][]float64{
		{"lstat warm", native}:  {1},
		{"lstat warm", pure}:    {0.8},
		{"lstat warm", hybrid}:  {2.8},
		{"lstat warm", cfsFuse}: {0.6},
	})
	var out strings.Builder
	r.verdicts(&out)
	for _, want := range []string{
		"| lstat warm: CPU of fuse, × native | 0.9 | 0.80 | met |",
		"| lstat warm: CPU of hybrid, × native | 1.4 | 2.80 | **missed** by 100 % |",
		"| lstat warm: CPU of fuse, × cfs-fuse | 1.1 | 1.33 | **missed** by 21 % |",
	} {
		if !strings.Contains(out.String(), want+"\n") {
			t.Errorf("no line %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "passthrough") {
		t.Errorf("a goal that was not measured has a verdict:\n%s", out.String())
	}
}

// Each goal speaks of a row and of sides that there are; a slip in a name would leave it out for good.
func TestGoalsNameRows(t *testing.T) {
	r := &results{samples: map[key][]sample{}}
	rows := []string{startSmall, startLarge}
	for _, row := range allRows() {
		rows = append(rows, row.name+" cold", row.name+" warm")
	}
	for _, row := range rows {
		for _, s := range new(settings).allSides() {
			r.add(sample{Row: row, Side: s.name, CPU: 1, Server: 1, Wall: 1, RssAnon: 1})
		}
	}
	if got, want := len(measured(r)), len(allGoals()); got != want {
		t.Errorf("%d of %d goals can be measured", got, want)
	}
}

func TestParseDumpLine(t *testing.T) {
	for _, test := range []struct {
		line    string
		path    string
		size    int64
		regular bool
	}{
		{"/usr/bin/tool 123 100755 1 0 0 0 1.0 ab/cd - abcd", "usr/bin/tool", 123, true},
		{"/usr 4096 40755 2 0 0 0 1.0 - - -", "usr", 4096, false},
		{"/name 12 @100644 1 0 0 0 1.0 /first - -", "name", 0, false},
		{"/ 4096 40755 2 0 0 0 1.0 - - -", ".", 0, false},
		{`/a\x20b 5 100644 1 0 0 0 1.0 - hello -`, ".", 0, false},
	} {
		path, size, regular := parseDumpLine(test.line)
		if path != test.path || regular != test.regular || regular && size != test.size {
			t.Errorf("%q: got %q, %d, %v", test.line, path, size, regular)
		}
	}
}

// The figures of a process are checked on this one, which has used some of each.
func TestUsageOfAProcess(t *testing.T) {
	u, err := serversUsage([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	anon, total, err := memory([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	if u.cpu <= 0 || u.cpu > 3600 || anon <= 0 || total < anon {
		t.Errorf("CPU %v s, RssAnon %d, all %d", u.cpu, anon, total)
	}
}

// The mount and both namespaces need root; the client doesn't.
func TestClientCountsItself(t *testing.T) {
	dir := t.TempDir()
	list := dir + "/list"
	if err := os.WriteFile(list, []byte("list\n."), 0o600); err != nil {
		t.Fatal(err)
	}
	job, err := clientJob("lstat", list, []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := job(); err != nil {
		t.Error(err)
	}
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	if err := job(); err == nil {
		t.Error("a path that isn't there was counted as done")
	}
}
