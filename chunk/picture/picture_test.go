package picture

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatroot/flatroot/chunk"
)

func TestSquarify(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		in := rect{r.Float64() * 10, r.Float64() * 10, 1 + r.Float64()*1000, 1 + r.Float64()*1000}
		sizes := make([]float64, 1+r.IntN(60))
		var total float64
		for i := range sizes {
			sizes[i] = float64(r.IntN(1 << r.IntN(20)))
			total += sizes[i]
		}
		slices.SortFunc(sizes, func(a, b float64) int { return int(b - a) })
		out := squarify(sizes, in)
		if len(out) != len(sizes) {
			t.Fatalf("%d rectangles of %d", len(out), len(sizes))
		}
		for i, o := range out {
			if want := sizes[i] / max(total, 1) * in.W * in.H; math.Abs(o.W*o.H-want) > 1e-6*in.W*in.H {
				t.Fatalf("area %v, want %v", o.W*o.H, want)
			}
			if total > 0 && (o.X < in.X-1e-6 || o.Y < in.Y-1e-6 || o.X+o.W > in.X+in.W+1e-6 || o.Y+o.H > in.Y+in.H+1e-6) {
				t.Fatalf("%v is not in %v", o, in)
			}
			for _, other := range out[:i] {
				if total > 0 && overlap(o, other) > 1e-6*in.W*in.H {
					t.Fatalf("%v and %v overlap", o, other)
				}
			}
		}
	}
}

func overlap(a, b rect) float64 {
	w := min(a.X+a.W, b.X+b.W) - max(a.X, b.X)
	h := min(a.Y+a.H, b.Y+b.H) - max(a.Y, b.Y)
	return max(w, 0) * max(h, 0)
}

func explanation(t *testing.T) *chunk.Explanation {
	now := time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)
	cs := []chunk.Component{{Name: "<script>alert(1)</script>", Size: 1 << 20}, {Name: "empty"}}
	for i := range 500 {
		cs = append(cs, chunk.Component{
			Name: "dpkg/component-" + strings.Repeat("x", i%9) + string(rune('a'+i%26)) + string(rune('a'+i/26)), Size: int64(i) << 10,
			Changes: []time.Time{now.Add(-time.Duration(i%60) * chunk.Step)},
		})
	}
	p, err := chunk.NewPlan(cs, chunk.PlanOptions{MaxLayers: 8, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return p.Explain(p.Record())
}

func TestWrite(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, explanation(t), Options{Title: "web & <b>"}); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	for _, want := range []string{"web &amp; &lt;b&gt;", "&lt;script&gt;", "The last 26 updates", "<svg viewBox"} {
		if !strings.Contains(got, want) {
			t.Errorf("the page does not have %q", want)
		}
	}
	for _, bad := range []string{"<script", "http:", "https:", "src=", "href=", "NaN", "Inf", "ZgotmplZ"} {
		if strings.Contains(got, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
}

func TestWriteOfARecord(t *testing.T) {
	var b bytes.Buffer
	e := (&chunk.Previous{Layers: []chunk.RecordedLayer{{Components: []chunk.Recorded{{Name: "a"}}}}}).Explain()
	if err := Write(&b, e, Options{Title: "a"}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "updates, had the layers") || strings.Contains(b.String(), "NaN") {
		t.Error("a record without changes has a history, or no numbers")
	}
}
