package chunk

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatroot/flatroot/tests/testenv"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var now = time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)

func weeksAgo(weeks ...int) (ts []time.Time) {
	for _, w := range weeks {
		ts = append(ts, now.Add(-time.Duration(w)*Step-time.Hour))
	}
	return ts
}

// random makes components; those of one family change in the same weeks.
func random(r *rand.Rand, n int) (cs []Component) {
	families := make([][]int, 1+n/4)
	for i := range families {
		for range r.IntN(12) {
			families[i] = append(families[i], r.IntN(100))
		}
	}
	for i := range n {
		weeks := slices.Clone(families[r.IntN(len(families))])
		if r.IntN(3) == 0 {
			weeks = append(weeks, r.IntN(100))
		}
		cs = append(cs, Component{
			Name: fmt.Sprintf("c/%03d", i), Size: 1 << (10 + r.IntN(17)), Changes: weeksAgo(weeks...), Digest: digest.FromString(fmt.Sprint(i)).Encoded(),
		})
	}
	return cs
}

func mustPlan(t testing.TB, cs []Component, o PlanOptions) *Plan {
	t.Helper()
	if o.Now.IsZero() {
		o.Now = now
	}
	p, err := NewPlan(cs, o)
	if err != nil {
		t.Fatal(err)
	}
	checkPlan(t, p, cs, o)
	return p
}

// checkPlan looks for what holds of every plan.
func checkPlan(t testing.TB, p *Plan, cs []Component, o PlanOptions) {
	t.Helper()
	var names, want []string
	for _, l := range p.Layers {
		if len(l.Components) == 0 {
			t.Error("a layer is empty")
		}
		for _, c := range l.Components {
			names = append(names, c.Name)
			if c.Exclusive && len(l.Components) > 1 {
				t.Errorf("%s is exclusive and shares a layer", c.Name)
			}
		}
	}
	for _, c := range cs {
		want = append(want, c.Name)
	}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("the plan has the components %q, want %q", names, want)
	}
	if most := max(o.MaxLayers, MinLayers); o.MaxLayers != 0 && len(p.Layers) > most {
		t.Errorf("%d layers, want at most %d", len(p.Layers), most)
	}
}

func layers(p *Plan) (out []string) {
	for _, l := range p.Layers {
		out = append(out, layerName(l))
	}
	slices.Sort(out)
	return out
}

func layerName(l Layer) string {
	var names []string
	for _, c := range l.Components {
		names = append(names, c.Name)
	}
	return strings.Join(names, " ")
}

func TestFirstPlan(t *testing.T) {
	big := func(name string, weeks ...int) Component {
		return Component{Name: name, Size: 50 << 20, Changes: weeksAgo(weeks...)}
	}
	small := func(name string, weeks ...int) Component {
		return Component{Name: name, Size: 100 << 10, Changes: weeksAgo(weeks...)}
	}
	for _, test := range []struct {
		name  string
		cs    []Component
		n     int
		wants []string
	}{
		{"fewer than layers", []Component{big("a"), small("b")}, 4, []string{"a", "b"}},
		{"what changes together is together", []Component{big("a", 1, 5, 9), big("b", 2, 6), big("c", 1, 5, 9), big("d", 2, 6)}, 2, []string{"a c", "b d"}},
		{"what often changes is not with what is large and quiet", []Component{small("hot", 0, 1, 2, 3, 4, 5, 6, 7), big("quiet"), big("still")}, 2, []string{"hot", "quiet still"}},
		{
			"exclusive", []Component{{Name: "alone", Size: 1, Exclusive: true}, small("a"), small("b"), small("c")},
			2, []string{"a b c", "alone"},
		},
		{
			"an interval", []Component{{Name: "weekly", Size: 1 << 20, Interval: Step}, big("a"), big("b")},
			2, []string{"a b", "weekly"},
		},
		{
			"an interval shorter than a step", []Component{{Name: "always", Size: 1 << 20, Interval: 1}, big("a"), big("b")},
			2, []string{"a b", "always"},
		},
		{"all empty", []Component{{Name: "a"}, {Name: "b"}, {Name: "c"}}, 2, nil},
		{"larger than anything", []Component{{Name: "a", Size: 1 << 62}, {Name: "b", Size: 1 << 62}, {Name: "c", Size: -5}}, 2, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := mustPlan(t, test.cs, PlanOptions{MaxLayers: test.n})
			if got := layers(p); test.wants != nil && !slices.Equal(got, test.wants) {
				t.Errorf("layers %q, want %q", got, test.wants)
			}
			for _, l := range p.Layers {
				if l.Cost < 0 || l.Chance < 0 || l.Chance > 1_000_000 {
					t.Errorf("layer %s: cost %d, chance %d", layerName(l), l.Cost, l.Chance)
				}
			}
		})
	}
}

func TestRefusedPlans(t *testing.T) {
	alone := func(names ...string) (cs []Component) {
		for _, n := range names {
			cs = append(cs, Component{Name: n, Exclusive: true})
		}
		return cs
	}
	for _, test := range []struct {
		name string
		cs   []Component
		n    int
		want string
	}{
		{"none", nil, 4, "nothing to put"},
		{"one layer", alone("a"), 1, "2 to 120"},
		{"many layers", alone("a"), 121, "2 to 120"},
		{"negative", alone("a"), -1, "2 to 120"},
		{"one name", alone("a", "a"), 4, `two components have the name "a"`},
		{"exclusive", alone("a", "b", "c"), 2, "3 layers are needed"},
		{"exclusive and others", append(alone("a", "b"), Component{Name: "c"}), 2, "3 layers are needed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := NewPlan(test.cs, PlanOptions{MaxLayers: test.n})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestPlansAreEqualInAnyOrder(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		cs := random(r, 40)
		want := mustPlan(t, cs, PlanOptions{MaxLayers: 8})
		previous := want.Record()
		change(r, cs, 5)
		next := mustPlan(t, cs, PlanOptions{MaxLayers: 8, Previous: previous})
		r.Shuffle(len(cs), func(i, j int) { cs[i], cs[j] = cs[j], cs[i] })
		if got := mustPlan(t, cs, PlanOptions{MaxLayers: 8, Previous: previous}); !reflect.DeepEqual(got, next) {
			t.Errorf("seed %d: the plan depends on the order of components", seed)
		}
	}
}

// change gives some components another content.
func change(r *rand.Rand, cs []Component, n int) {
	for _, i := range r.Perm(len(cs))[:n] {
		cs[i].Digest = digest.FromString(cs[i].Digest).Encoded()
	}
}

// TestPlansAreNearlyOptimal compares plans of a few components with the best of all that there are.
func TestPlansAreNearlyOptimal(t *testing.T) {
	const n, most = 8, 3
	var ours, best cost
	for seed := range uint64(60) {
		cs := random(rand.New(rand.NewPCG(seed, 2)), n)
		p := &planner{o: PlanOptions{MaxLayers: most, Now: now}, components: cs, model: newModel()}
		if err := p.check(); err != nil {
			t.Fatal(err)
		}
		p.weigh()
		b := p.costOf(bestPartition(p, n, most))
		best += b
		p.pack()
		var c cost
		for _, l := range p.layers {
			c += p.model.cost(p.sum(l.members))
		}
		if c < b {
			t.Fatalf("seed %d: a plan is better than the best", seed)
		}
		ours += c
	}
	if ours > best+best/100 {
		t.Errorf("plans cost %d bytes, the best ones %d: more than a percent less", ours.bytes(), best.bytes())
	}
}

func bestPartition(p *planner, n, most int) (best [][]int) {
	var try func(i int, groups [][]int)
	try = func(i int, groups [][]int) {
		if i == n {
			if best == nil || p.costOf(groups) < p.costOf(best) {
				best = nil
				for _, g := range groups {
					best = append(best, slices.Clone(g))
				}
			}
			return
		}
		for k := range groups {
			groups[k] = append(groups[k], i)
			try(i+1, groups)
			groups[k] = groups[k][:len(groups[k])-1]
		}
		if len(groups) < most {
			try(i+1, append(groups, []int{i}))
		}
	}
	try(0, nil)
	return best
}

// TestCleanLayersStay: whatever else changes, a layer of which nothing has changed is there again.
func TestCleanLayersStay(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 3))
		cs := random(r, 60)
		before := mustPlan(t, cs, PlanOptions{MaxLayers: 12})
		previous := before.Record()
		old := map[string]string{}
		for _, c := range cs {
			old[c.Name] = c.Digest
		}
		gone := cs[r.IntN(len(cs))].Name
		cs = slices.DeleteFunc(cs, func(c Component) bool { return c.Name == gone })
		change(r, cs, r.IntN(4))
		cs = append(cs, Component{Name: "new", Size: 1 << 20, Digest: "new"})
		after := layers(mustPlan(t, cs, PlanOptions{MaxLayers: 12, Previous: previous}))
		changed := map[string]bool{gone: true}
		for _, c := range cs {
			changed[c.Name] = old[c.Name] != c.Digest
		}
		for _, l := range before.Layers {
			clean := !slices.ContainsFunc(l.Components, func(c Component) bool { return changed[c.Name] })
			if clean && !slices.Contains(after, layerName(l)) {
				t.Errorf("seed %d: layer %s has not changed, but is no more; there are %q", seed, layerName(l), after)
			}
		}
	}
}

// TestChangedLayersArePackedAnew: what is fetched anyhow is put together better than it was, what is not stays, however badly.
func TestChangedLayersArePackedAnew(t *testing.T) {
	const mb = 1 << 20
	cs := []Component{
		{Name: "hot", Size: 4 * mb, Digest: "2", Changes: weeksAgo(0, 1, 2, 3)}, {Name: "quiet", Size: 40 * mb, Digest: "1"},
		{Name: "hot too", Size: 4 * mb, Digest: "2", Changes: weeksAgo(0, 1, 2, 3)}, {Name: "still", Size: 40 * mb, Digest: "1"},
		{Name: "not now", Size: 4 * mb, Digest: "1", Changes: weeksAgo(1, 2, 3)}, {Name: "never", Size: 40 * mb, Digest: "1"},
	}
	together := func(names ...string) (l RecordedLayer) {
		for _, n := range names {
			l.Components = append(l.Components, Recorded{Name: n, Digest: "1"})
		}
		return l
	}
	previous := &Previous{Layers: []RecordedLayer{together("hot", "quiet"), together("hot too", "still"), together("never", "not now")}}
	p := mustPlan(t, cs, PlanOptions{MaxLayers: 3, Previous: previous})
	if got, want := layers(p), []string{"hot hot too", "never not now", "quiet still"}; !slices.Equal(got, want) {
		t.Errorf("layers %q, want %q", got, want)
	}
	for _, l := range p.Layers {
		if clean := layerName(l) == "never not now"; l.Kept != clean {
			t.Errorf("layer %s: kept is %v", layerName(l), l.Kept)
		}
	}
}

// TestNewComponentsOpenLittle: where all layers are taken, something new costs one of the old ones, the smallest.
func TestNewComponentsOpenLittle(t *testing.T) {
	cs := random(rand.New(rand.NewPCG(4, 4)), 60)
	before := mustPlan(t, cs, PlanOptions{MaxLayers: 12})
	cs = append(cs, Component{Name: "new", Size: 30 << 20, Digest: "new"})
	after := mustPlan(t, cs, PlanOptions{MaxLayers: 12, Previous: before.Record()})
	lost := 0
	for _, l := range before.Layers {
		if !slices.Contains(layers(after), layerName(l)) {
			lost++
		}
	}
	if lost != 1 {
		t.Errorf("%d of the old layers are no more, want 1", lost)
	}
}

func TestFewerLayersThanBefore(t *testing.T) {
	cs := random(rand.New(rand.NewPCG(5, 5)), 60)
	cs[7].Exclusive = true
	before := mustPlan(t, cs, PlanOptions{MaxLayers: 20})
	after := mustPlan(t, cs, PlanOptions{MaxLayers: 10, Previous: before.Record()})
	kept := 0
	for _, l := range after.Layers {
		if l.Kept {
			kept++
		}
	}
	if kept != 9 {
		t.Errorf("%d layers are kept, want 9 of 10", kept)
	}
}

func TestNowExclusiveIsNotKept(t *testing.T) {
	cs := []Component{{Name: "a", Digest: "1"}, {Name: "b", Digest: "1"}, {Name: "c", Digest: "1"}}
	previous := &Previous{Layers: []RecordedLayer{
		{Components: []Recorded{{Name: "a", Digest: "1"}, {Name: "b", Digest: "1"}}}, {Components: []Recorded{{Name: "c", Digest: "1"}}},
	}}
	cs[0].Exclusive = true
	p := mustPlan(t, cs, PlanOptions{MaxLayers: 3, Previous: previous})
	if got, want := layers(p), []string{"a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("layers %q, want %q", got, want)
	}
}

// TestSeenChangesCount: a component without known changes, which builds have seen to change each time, gets apart.
func TestSeenChangesCount(t *testing.T) {
	cs := []Component{{Name: "hot", Size: 20 << 20}, {Name: "a", Size: 20 << 20, Digest: "1"}, {Name: "b", Size: 20 << 20, Digest: "1"}}
	var previous *Previous
	for build := range 6 {
		cs[0].Digest = fmt.Sprint(build)
		p := mustPlan(t, cs, PlanOptions{MaxLayers: 2, Previous: previous, Now: now.Add(time.Duration(build) * Step)})
		label, err := p.Record().Label()
		if err != nil {
			t.Fatal(err)
		}
		if previous, err = ReadPrevious(map[string]string{PlanLabel: label}, nil); err != nil {
			t.Fatal(err)
		}
		if n := len(previous.component("hot").Changes); n != build {
			t.Errorf("build %d: %d changes are recorded", build, n)
		}
		if build == 5 && !slices.Contains(layers(p), "hot") {
			t.Errorf("layers %q, want one of hot alone", layers(p))
		}
	}
}

func (r *Previous) component(name string) Recorded {
	for _, l := range r.Layers {
		for _, c := range l.Components {
			if c.Name == name {
				return c
			}
		}
	}
	return Recorded{}
}

func TestRecordsReadBack(t *testing.T) {
	p := mustPlan(t, random(rand.New(rand.NewPCG(6, 6)), 50), PlanOptions{MaxLayers: 10})
	want := p.Record()
	label, err := want.Label()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadPrevious(map[string]string{PlanLabel: label}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read back %v, want %v", got, want)
	}
}

// TestSameLayers: a layer is the same if all of its components are, and their digests are known.
func TestSameLayers(t *testing.T) {
	p := mustPlan(t, random(rand.New(rand.NewPCG(6, 7)), 50), PlanOptions{MaxLayers: 10})
	var now []Component
	for _, l := range p.Layers {
		now = append(now, l.Components...)
	}
	changed, gone, unknown := p.Layers[1].Components[0].Name, p.Layers[3].Components[0].Name, p.Layers[4].Components[0].Name
	for i := range now {
		switch now[i].Name {
		case changed:
			now[i].Digest = "another"
		case unknown:
			now[i].Digest = ""
		}
	}
	now = slices.DeleteFunc(now, func(c Component) bool { return c.Name == gone })
	before := p.Record()
	for i, c := range before.Layers[4].Components {
		if c.Name == unknown {
			before.Layers[4].Components[i].Digest = ""
		}
	}
	for n, same := range before.Same(now) {
		if want := n != 1 && n != 3 && n != 4; same != want {
			t.Errorf("layer %d: %t, want %t", n, same, want)
		}
	}
}

func annotated(key string, values ...string) (ds []ocispec.Descriptor) {
	for _, v := range values {
		ds = append(ds, ocispec.Descriptor{Annotations: map[string]string{key: v}})
	}
	return append(ds, ocispec.Descriptor{})
}

func TestReadPrevious(t *testing.T) {
	for _, test := range []struct {
		name   string
		labels map[string]string
		layers []ocispec.Descriptor
		want   string // tool and layers, or an error
	}{
		{"nothing", map[string]string{"a": "b"}, annotated("c", "d"), "error: no plan is recorded in it"},
		{"ours", map[string]string{PlanLabel: `{"version":1,"now":5,"layers":[{"p":7,"c":[{"n":"a","d":"1","z":9,"s":[2]},{"n":"b","d":"2"}]},{"c":[{"n":"c","d":"3"}]}]}`}, nil, "flatroot [a@1 b@2] [c@3]"},
		{"another version", map[string]string{PlanLabel: `{"version":2}`}, nil, "error: label org.flatroot.chunk.plan: it has version 2"},
		{"no JSON", map[string]string{PlanLabel: `x`}, nil, "error: label org.flatroot.chunk.plan: invalid character"},
		{"no components", map[string]string{PlanLabel: `{"version":1}`}, nil, "no components"},
		{"twice", map[string]string{PlanLabel: `{"version":1,"layers":[{"c":[{"n":"a"}]},{"c":[{"n":"a"}]}]}`}, nil, `"a" is in two layers`},
		{"no name", map[string]string{PlanLabel: `{"version":1,"layers":[{"c":[{"d":"1"}]}]}`}, nil, "has no name"},
		{"long name", map[string]string{PlanLabel: `{"version":1,"layers":[{"c":[{"n":"` + strings.Repeat("x", nameMax+1) + `"}]}]}`}, nil, "4097 bytes"},
		{"many changes", map[string]string{PlanLabel: `{"version":1,"layers":[{"c":[{"n":"a","s":[` + strings.Repeat("1,", seenMax) + `1]}]}]}`}, nil, "65 changes"},
		{"long", map[string]string{PlanLabel: strings.Repeat(" ", recordMax+1)}, nil, "more than"},
		{"many layers", map[string]string{PlanLabel: `{"version":1,"layers":[` + strings.Repeat("{},", previousLayersMax) + `{}]}`}, nil, "1025 layers"},
		{"chunkah", nil, annotated(chunkahAnnotation, "rpm/glibc rpm/bash", "bigfiles/usr/x"), "chunkah [rpm/glibc@ rpm/bash@] [bigfiles/usr/x@]"},
		{"rpm-ostree", nil, annotated(ostreeAnnotation, "glibc,bash", "kernel"), "rpm-ostree [rpm/glibc@ rpm/bash@] [rpm/kernel@]"},
		{"rpm-ostree, twice", nil, annotated(ostreeAnnotation, "glibc,bash", "bash"), `error: annotation ostree.components: the component "rpm/bash" is in two layers`},
		{"rechunk", map[string]string{rechunkLabel: `{"version":2,"uniq":"u","layers":[["dedi:kernel"],["meta:fonts","bash","null",""]]}`}, nil, "rechunk [rpm/kernel@] [rpm/fonts@ rpm/bash@]"},
		{"rechunk, the first version", map[string]string{rechunkLabel: `{"version":1,"uniq":"u"}`}, nil, "no components"},
		{"rechunk, damaged", map[string]string{rechunkLabel: `{`}, nil, "error: label dev.hhd.rechunk.info"},
		{"rechunk, long", map[string]string{rechunkLabel: strings.Repeat(" ", recordMax+1)}, nil, "more than"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := ReadPrevious(test.labels, test.layers)
			got := fmt.Sprint("error: ", err)
			if err == nil {
				got = p.Tool
				for _, l := range p.Layers {
					var names []string
					for _, c := range l.Components {
						names = append(names, c.Name+"@"+c.Digest)
					}
					got += fmt.Sprint(" ", names)
				}
			}
			if err == nil && got != test.want || err != nil && !strings.Contains(got, test.want) {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

// TestForeignPlans: of another tool's layers, none is kept.
func TestForeignPlans(t *testing.T) {
	cs := random(rand.New(rand.NewPCG(7, 7)), 30)
	previous := &Previous{Tool: "chunkah"}
	for _, c := range cs {
		previous.Layers = append(previous.Layers, RecordedLayer{Components: []Recorded{{Name: c.Name}}})
	}
	p := mustPlan(t, cs, PlanOptions{MaxLayers: 8, Previous: previous})
	for _, l := range p.Layers {
		if l.Kept {
			t.Errorf("layer %s is kept", layerName(l))
		}
	}
	if fresh := mustPlan(t, cs, PlanOptions{MaxLayers: 8}); !slices.Equal(layers(p), layers(fresh)) {
		t.Error("a plan of single components is not a fresh one")
	}
}

// TestManyComponents: merging is quadratic, so what costs least is put together first.
func TestManyComponents(t *testing.T) {
	testenv.OneGoroutine(t)
	cs := random(rand.New(rand.NewPCG(8, 8)), 3*mergedMax)
	start := time.Now()
	mustPlan(t, cs, PlanOptions{MaxLayers: 64})
	t.Logf("%d components in %v", len(cs), time.Since(start))
}

func FuzzReadPrevious(f *testing.F) {
	f.Add(`{"version":1,"now":5,"layers":[{"p":7,"c":[{"n":"a","d":"1","z":9,"s":[2]},{"n":"b","d":"2"}]},{"c":[{"n":"c","d":"3"}]}]}`, `{"layers":[["a"]]}`, "a,b")
	f.Fuzz(func(t *testing.T, label, rechunk, annotation string) {
		for _, labels := range []map[string]string{{PlanLabel: label}, {rechunkLabel: rechunk}, nil} {
			p, err := ReadPrevious(labels, annotated(ostreeAnnotation, annotation))
			if err != nil {
				continue
			}
			cs := []Component{{Name: "a", Digest: "1", Size: 5}, {Name: "b"}, {Name: "new"}}
			mustPlan(t, cs, PlanOptions{MaxLayers: 2, Previous: p})
			if text, err := p.Label(); err == nil && !json.Valid([]byte(text)) {
				t.Errorf("label %s", text)
			}
		}
	})
}
