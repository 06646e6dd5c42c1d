package chunk

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func (p probability) float() float64 { return float64(p) / float64(certain) }

func near(a, b float64) bool { return math.Abs(a-b) < 1e-6 }

func TestProbabilities(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 10_000 {
		p, q := probability(r.Uint64N(uint64(certain)+1)), probability(r.Uint64N(uint64(certain))+1)
		if got := p.times(q).float(); !near(got, p.float()*q.float()) {
			t.Fatalf("%v * %v = %v", p.float(), q.float(), got)
		}
		if got := p.times(q).over(q); q > certain/64 && !near(got.float(), p.float()) {
			t.Fatalf("%v * %v / %[2]v = %v", p.float(), q.float(), got.float())
		}
		if got := p.mean(q).float(); !near(got, math.Sqrt(p.float()*q.float())) {
			t.Fatalf("mean of %v and %v = %v", p.float(), q.float(), got)
		}
		size := r.Int64N(1 << 44)
		if got, want := float64(expected(size, p))/(1<<costBits), float64(size)*p.float(); math.Abs(got-want) > 1e-9*want+1e-3 {
			t.Fatalf("expected(%d, %v) = %v, want %v", size, p.float(), got, want)
		}
	}
	if ratio(3, 4) != certain/4*3 || ratio(5, 5) != certain || ratio(7, 5) != certain || ratio(0, 5) != 0 {
		t.Error("ratio")
	}
}

func TestWeights(t *testing.T) {
	w := decay()
	sum := 0.0
	for i := range w {
		sum += w[i].float()
		if i >= halfLife && !near(2*w[i].float(), w[i-halfLife].float()) {
			t.Errorf("weight %d is %v, that of %d steps before %v", i, w[i].float(), halfLife, w[i-halfLife].float())
		}
	}
	if !near(sum, 1) {
		t.Errorf("the weights come to %v", sum)
	}
	m := newModel()
	r := rand.New(rand.NewPCG(2, 2))
	for range 1000 {
		var h history
		want := probability(0)
		for i := range historySteps {
			if r.IntN(3) == 0 {
				h.set(i)
				want += w[i]
			}
		}
		if got := m.joint(h); got != want {
			t.Fatalf("joint weight %d, want %d", got, want)
		}
	}
}

func TestHistories(t *testing.T) {
	h := historyOf([]time.Time{now, now.Add(time.Hour), now.Add(-Step + 1), now.Add(-Step), now.Add(-127*Step - 1), now.Add(-128 * Step), {}}, now, Step)
	var got []int
	h.steps(func(step int) { got = append(got, step) })
	if len(got) != 3 || got[0] != 0 || got[1] != 1 || got[2] != 127 {
		t.Errorf("steps %v, want 0, 1 and 127", got)
	}
}

func TestRoots(t *testing.T) {
	for _, x := range []uint64{0, 1, 2, 3, 4, 1<<52 - 1, 1 << 52, 1<<62 - 1, 1 << 62, math.MaxUint32 * math.MaxUint32, math.MaxUint64} {
		root := sqrt(x)
		if root*root > x || root < math.MaxUint32 && (root+1)*(root+1) <= x {
			t.Errorf("root of %d: %d", x, root)
		}
	}
	if got := certain.mean(certain); got != certain {
		t.Errorf("mean of what is certain: %d", got)
	}
}

// TestWindows: with steps of four weeks, a change is in the four windows that end when it happens or within four weeks after.
func TestWindows(t *testing.T) {
	day := 24 * time.Hour
	for _, c := range []struct {
		step time.Duration
		days int
		want []int
	}{
		{Step, 40, []int{5}},
		{4 * Step, 40, []int{2, 3, 4, 5}},
		{4 * Step, 8, []int{0, 1}},
		{4 * Step, 64 * 7, []int{61, 62, 63, 64}},
		{day, 40, []int{40}},
		{30 * day, 130 * 7, nil},
	} {
		var got []int
		windowsOf([]time.Time{now.Add(-time.Duration(c.days) * day)}, now, c.step).steps(func(i int) { got = append(got, i) })
		if !slices.Equal(got, c.want) {
			t.Errorf("steps of %v, a change %d days ago: windows %v, want %v", c.step, c.days, got, c.want)
		}
	}
}

// TestUnknownChanges: what has never changed is taken to do so at one rate in time, if a release doesn't come more often than
// histories tell apart.
func TestUnknownChanges(t *testing.T) {
	m := newModel()
	for _, c := range []struct {
		step, interval time.Duration
		want           float64
	}{
		{24 * time.Hour, 0, 1. / rareInterval},
		{Step, 0, 1. / rareInterval},
		{4 * Step, 0, 4. / rareInterval},
		{Step, 10 * Step, .1},
		{4 * Step, 40 * Step, .1},
		{4 * Step, 100 * Step, 4. / rareInterval},
	} {
		got := m.probability(m.load(Component{Interval: c.interval}, now, c.step)).float()
		if !near(got, c.want) {
			t.Errorf("steps of %v, an interval of %v: %v, want %v", c.step, c.interval, got, c.want)
		}
	}
}

// TestMergingBound: merging never costs less than what groups are left out by.
func TestMergingBound(t *testing.T) {
	m := newModel()
	r := rand.New(rand.NewPCG(5, 5))
	for range 500 {
		g := &merging{m: m}
		for _, c := range random(r, 2) {
			x := mergedGroup{load: m.load(c, now, Step)}
			g.settle(&x)
			g.groups = append(g.groups, x)
		}
		x, y := &g.groups[0], &g.groups[1]
		if least, extra := x.atLeast(y), m.cost(x.with(y.load))-x.cost-y.cost; least > extra {
			t.Fatalf("merging %+v and %+v costs %d, said to be %d at least", x, y, extra, least)
		}
	}
}

// TestSearchKeepsCount: what a group costs without a member is what the others cost.
func TestSearchKeepsCount(t *testing.T) {
	m := newModel()
	r := rand.New(rand.NewPCG(3, 3))
	for range 200 {
		var loads []load
		for _, c := range random(r, 6) {
			loads = append(loads, m.load(c, now, Step))
		}
		s := &searching{m: m, loads: loads}
		g, rest := new(searchedGroup), new(searchedGroup)
		for i, l := range loads {
			g.add(i, l)
			if i > 0 {
				rest.add(i, l)
			}
		}
		s.settle(g)
		s.settle(rest)
		got := g.without(loads[0])
		if got.past != rest.past || got.size != rest.size || !near(got.quiet.float(), rest.quiet.float()) ||
			!near(got.apart.float(), rest.apart.float()) {
			t.Fatalf("%+v, want %+v", got, rest.load)
		}
	}
}
