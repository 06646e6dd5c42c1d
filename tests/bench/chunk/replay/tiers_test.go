package replay

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/tests/testenv"
)

// chunkahLayers are what the program made of the traces' last releases (4c8abc3). To record them anew:
//
//	FLATROOT_UPDATE=1 FLATROOT_CHUNKAH=PROGRAM go test ./tests/bench/chunk/replay -run TestHashTiers
const chunkahLayers = "../testdata/chunkah.json"

// TestHashTiers: the policy cuts as the program does that it follows.
func TestHashTiers(t *testing.T) {
	recorded := map[string][]string{}
	if err := readJSON(chunkahLayers, &recorded); err != nil {
		t.Fatal(err)
	}
	program := os.Getenv("FLATROOT_CHUNKAH")
	update := testenv.Update() && program != ""
	for _, r := range []Row{{Trace: "minimal", N: 16}, {Trace: "minimal", N: 32}, {Trace: "server", N: 64}} {
		name := fmt.Sprintf("%s %d", r.Trace, r.N)
		v := lastRelease(trace(t, r.Trace), r.N)
		if update {
			recorded[name] = runChunkah(t, v, program)
		}
		if got, want := v.names(hashTiers(v)), recorded[name]; !slices.Equal(got, want) {
			t.Errorf("%s: layers\n%s\nchunkah's are\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if update {
		writeJSON(t, chunkahLayers, recorded)
	}
}

// lastRelease has all components of a trace.
func lastRelease(tr *Trace, n int) *View {
	v := &View{Trace: tr, Days: 7, N: n, Now: tr.End}
	for id, c := range tr.Components {
		v.IDs, v.Version = append(v.IDs, id), append(v.Version, len(c.Changes))
	}
	return v
}

// names are layers, each in a line, in order.
func (v *View) names(groups [][]int) (lines []string) {
	for _, g := range groups {
		var names []string
		for _, id := range g {
			names = append(names, v.Components[id].Name)
		}
		slices.Sort(names)
		lines = append(lines, strings.Join(names, " "))
	}
	slices.Sort(lines)
	return lines
}

func runChunkah(t *testing.T, v *View, program string) []string {
	t.Helper()
	p := Chunkah{Program: program}
	groups := p.Policy().New()(v)
	if p.Err != nil {
		t.Fatal(p.Err)
	}
	return v.names(groups)
}
