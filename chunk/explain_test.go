package chunk

import (
	"encoding/json"
	"slices"
	"testing"
)

func TestExplain(t *testing.T) {
	const mb = 1 << 20
	cs := []Component{
		{Name: "a", Size: 3 * mb, Digest: "1", Changes: weeksAgo(0, 0, 3)},
		{Name: "b", Size: 2 * mb, Digest: "2", Changes: weeksAgo(0, 3)},
		{Name: "c", Size: 50 * mb, Digest: "3"},
		{Name: "d", Size: 9 * mb, Digest: "new", Changes: weeksAgo(40)},
	}
	previous := &Previous{Tool: "flatroot", Layers: []RecordedLayer{
		{Components: []Recorded{{Name: "a", Digest: "0"}, {Name: "b", Digest: "2"}}},
		{Components: []Recorded{{Name: "c", Digest: "3"}}},
		{Components: []Recorded{{Name: "gone", Digest: "5"}}},
	}}
	p := mustPlan(t, cs, PlanOptions{MaxLayers: 3, Previous: previous})
	if got, want := layers(p), []string{"a b", "c", "d"}; !slices.Equal(got, want) {
		t.Fatalf("layers %q, want %q", got, want)
	}
	e := p.Explain(previous)
	if e.Size != 64*mb || len(e.Layers) != 3 {
		t.Errorf("%d bytes in %d layers", e.Size, len(e.Layers))
	}
	u, err := json.Marshal(e.Update)
	if err != nil {
		t.Fatal(err)
	}
	// Of a and b, which share a layer, b has not changed.
	want := `{"from":"flatroot","bytes":14680064,"least":12582912,"layers":2,"kept_layers":1,"kept_bytes":52428800,` +
		`"changed":["a"],"added":["d"],"removed":["gone"]}`
	if string(u) != want {
		t.Errorf("update %s\nwant %s", u, want)
	}
	if len(e.Past) != pastSteps || e.Past[0].Bytes != 5*mb || e.Past[0].Layers != 1 || e.Past[3].Least != 5*mb || e.Past[1].Bytes != 0 {
		t.Errorf("past %+v", e.Past[:4])
	}
	if got := e.Past[0].Until.Sub(e.Past[1].Until); got != Step {
		t.Errorf("steps of %v", got)
	}
	var cost, bytes int64
	for _, l := range e.Layers {
		cost += l.Cost
		bytes += l.Size * l.Chance / 1_000_000
	}
	if cost <= e.NextBytes || e.NextBytes < bytes-10 || e.NextBytes > bytes+200 || bytes <= 0 || bytes > 64*mb {
		t.Errorf("the next update is expected to fetch %d bytes, by chances and sizes %d; the layers' costs come to %d", e.NextBytes, bytes, cost)
	}
}

// TestExplainRecord: what a record tells is what the plan told.
func TestExplainRecord(t *testing.T) {
	p := mustPlan(t, []Component{
		{Name: "a", Size: 3 << 20, Digest: "1", Changes: weeksAgo(0, 3)}, {Name: "b", Size: 9 << 20, Digest: "1", Changes: weeksAgo(50)},
	}, PlanOptions{})
	want, got := p.Explain(nil), p.Record().Explain()
	if got.Size != want.Size || len(got.Layers) != len(want.Layers) || got.NextLayers != want.NextLayers {
		t.Errorf("record: %+v\nplan: %+v", got, want)
	}
	for i := range got.Layers {
		if d := got.Layers[i].Cost - want.Layers[i].Cost; d < -32 || d > 32 || got.Layers[i].Chance != want.Layers[i].Chance {
			t.Errorf("layer %d: %+v, want %+v", i, got.Layers[i], want.Layers[i])
		}
	}
	if want.Update != nil || want.Layers[0].Components[0].State != Unknown {
		t.Error("a comparison without a plan before")
	}
	if p := mustPlan(t, []Component{{Name: "a"}}, PlanOptions{}).Explain(nil).Past; p != nil {
		t.Errorf("past %v of nothing known", p)
	}
}
