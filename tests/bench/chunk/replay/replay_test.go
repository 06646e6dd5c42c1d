package replay

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flatroot/flatroot/tests/testenv"
)

// figures of the rows that are tested, as they were when they were recorded (FLATROOT_UPDATE=1).
const figures = "../testdata/figures.json"

// figure has the mean bytes of an update.
type figure struct {
	Ours  int64 `json:"flatroot"`
	Floor int64 `json:"floor"`
	Best  int64 `json:"best"` // of the rivals
}

// quick are the rows that are replayed each time, in a few seconds. All that are recorded are nightly.
func quick(r Row) bool {
	return r.Trace == "minimal" || r.Trace == "server" && r.Pace.Name == "weekly" && r.Churn && (r.N == 32 || r.N == 64)
}

func trace(t *testing.T, name string) *Trace {
	t.Helper()
	tr, err := ReadTrace(filepath.Join("..", "testdata", name+".json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// TestRows fails if plans have got worse than they were, or fall behind what they are meant to reach. Rivals don't change:
// they are replayed nightly, for the figures to stay true.
func TestRows(t *testing.T) {
	testenv.OneGoroutine(t)
	recorded := readFigures(t)
	var lock sync.Mutex // recorded's
	if testenv.Update() {
		t.Cleanup(func() { writeJSON(t, figures, recorded) })
	}
	for _, name := range []string{"minimal", "server", "desktop"} {
		tr := trace(t, name)
		for _, r := range Rows(name) {
			f, ok := recorded[r.String()] // parallel tests wait for the end of this one
			if !quick(r) && (!ok || !testenv.Nightly()) {
				continue
			}
			t.Run(r.String(), func(t *testing.T) {
				t.Parallel()
				if testenv.Update() || testenv.Nightly() {
					f = compareFigure(t, r, tr, f)
					lock.Lock()
					recorded[r.String()] = f
					lock.Unlock()
				} else if !ok {
					t.Fatal("nothing is recorded of this row: FLATROOT_UPDATE=1 does it")
				}
				checkOurs(t, r, r.Run(tr, Ours()).Mean, f)
			})
		}
	}
}

// compareFigure is the row's figure now. What differs from the recorded one is an error unless it is to be written.
func compareFigure(t *testing.T, r Row, tr *Trace, recorded figure) figure {
	t.Helper()
	c := r.Compare(tr)
	_, best := c.Best()
	if now := (figure{recorded.Ours, int64(c.Floor.Mean), int64(best.Mean)}); !testenv.Update() && now != recorded {
		t.Errorf("floor and best rival are %d and %d, recorded are %d and %d", now.Floor, now.Best, recorded.Floor, recorded.Best)
	}
	if testenv.Update() {
		return figure{int64(c.Ours.Mean), int64(c.Floor.Mean), int64(best.Mean)}
	}
	return recorded
}

func checkOurs(t *testing.T, r Row, ours float64, f figure) {
	t.Helper()
	if more := ours/float64(f.Ours) - 1; more > .01 {
		t.Errorf("an update has %.0f bytes, %.1f %% more than the recorded %d", ours, 100*more, f.Ours)
	}
	if more := ours/float64(f.Best) - 1; more > .01 {
		t.Errorf("an update has %.0f bytes, %.1f %% more than that of the best rival", ours, 100*more)
	}
	if excess, most := ours-float64(f.Floor), goal(r); most > 0 && excess > most*float64(f.Best-f.Floor)+1 {
		t.Errorf("an update has %.0f bytes more than the floor, the best rival's %d: more than %.2f of it", excess, f.Best-f.Floor, most)
	}
}

// goal is which part of the best rival's excess over the floor ours may be; 0: there is none. With ten times as many
// components as layers, as the desktop has with 64, half of it would take the future (doc/chunking.md).
func goal(r Row) float64 {
	switch {
	case r.Pace.Name != "weekly" || !r.Churn:
		return 0
	case r.N == 32:
		return .8
	case r.N == 64 && r.Trace == "desktop":
		return .75
	case r.N == 64:
		return .5
	}
	return 0
}

func readFigures(t *testing.T) map[string]figure {
	t.Helper()
	recorded := map[string]figure{}
	if err := readJSON(figures, &recorded); err != nil {
		t.Fatal(err)
	}
	return recorded
}

func writeJSON(t *testing.T, name string, value any) {
	t.Helper()
	b, err := json.MarshalIndent(value, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append(b, '\n'), 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestPartitions: all policies put each component that there is into one layer, and keep to the limit but for the floor. With
// half of the components gone they do so too.
func TestPartitions(t *testing.T) {
	tr := trace(t, "server")
	for _, p := range append(Rivals(), Ours()) {
		for _, n := range []int{16, 64} {
			cut := p.New()
			v := &View{Trace: tr, Days: 7, N: n, Now: tr.End.Add(-7 * day), Version: make([]int, len(tr.Components))}
			for step := range 2 {
				v.IDs = nil
				for id := step; id < len(tr.Components); id += 1 + step {
					v.IDs = append(v.IDs, id)
				}
				v.Now = v.Now.Add(7 * day)
				v.Prev = cut(v)
				full := slices.DeleteFunc(slices.Clone(v.Prev), func(g []int) bool { return len(g) == 0 })
				if got := slices.Sorted(slices.Values(slices.Concat(full...))); !slices.Equal(got, v.IDs) {
					t.Errorf("%s: release %d has %d components, and layers have %d", p.Name, step, len(v.IDs), len(got))
				}
				if len(full) > n {
					t.Errorf("%s: %d layers of %d", p.Name, len(full), n)
				}
			}
		}
	}
}

func TestCount(t *testing.T) {
	got := count([]layers{{"a": 1, "b": 2}, {"a": 1, "c": 4}, {"a": 1, "c": 4}, {"a": 1, "c": 4}, {"b": 2, "d": 8}, {"d": 8}})
	want := Result{Mean: (4 + 10) / 5., Median: 0, P95: 10, Skip4: (8 + 8) / 2., Layers: 3 / 5., Cold: 8}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestLeastSkip4: who fetches least when each release is taken need not do so when each fourth is.
func TestLeastSkip4(t *testing.T) {
	c := Compared{Rivals: map[string]Result{"size-top-N": {Mean: 2, Skip4: 3}, "matrix": {Mean: 1, Skip4: 5}}}
	if name, _ := c.Best(); name != "matrix" || c.LeastSkip4() != 3 {
		t.Errorf("best is %s, least %v; want matrix and 3", name, c.LeastSkip4())
	}
}

// TestPastOnly: policies see no change before it has happened.
func TestPastOnly(t *testing.T) {
	end := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	tr := &Trace{End: end, Components: []Component{{Name: "a", Size: 1, Changes: []time.Time{end.Add(-7 * day), end}}}}
	var seen []int
	Run(tr, Case{Pace: Pace{Days: 7, Steps: 4}, N: 2}, func(v *View) [][]int {
		if len(v.Past(0)) != v.Version[0] {
			t.Errorf("%d changes, version %d", len(v.Past(0)), v.Version[0])
		}
		seen = append(seen, len(v.Past(0)))
		return floor(v)
	})
	if want := []int{0, 0, 0, 1, 2}; !slices.Equal(seen, want) {
		t.Errorf("changes seen: %v, want %v", seen, want)
	}
}

func TestTraceRoundTrip(t *testing.T) {
	tr := trace(t, "minimal")
	var a, b bytes.Buffer
	if err := WriteTrace(&a, tr); err != nil {
		t.Fatal(err)
	}
	again, err := parseTrace(bytes.NewReader(a.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteTrace(&b, again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) || len(again.Components) != len(tr.Components) {
		t.Error("a trace that was read and written is another one")
	}
	if _, err := parseTrace(strings.NewReader("{}")); err == nil {
		t.Error("a trace that is no gzip was read")
	}
}
