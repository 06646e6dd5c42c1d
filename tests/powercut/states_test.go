package powercut

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// recording is all that happened to a disk.
type recording struct {
	base   *blocks
	events []event
	begin  int   // cuts come after this event
	intact int64 // a block here is not torn; 0: none
}

// The ways in which the writes since the last flush may have come to the disk.
const (
	inOrder = iota // all of them
	subset         // some
	torn           // some, and of the last of these only some sectors
	numWays
)

var wayNames = [numWays]string{"in order", "subset", "torn"}

// state is what a power cut may have left of a disk, made from a recording alone.
type state struct {
	number int
	cut    int // how many events came before it
	way    int
	seed   uint64
}

func (s state) String() string {
	return fmt.Sprintf("state %d (cut after event %d, %s)", s.number, s.cut, wayNames[s.way])
}

// marks is how many announcements came before the cut.
func (r *recording) marks(s state) int {
	for i := s.cut - 1; i >= 0; i-- {
		if r.events[i].Kind == eventMark {
			return r.events[i].Mark
		}
	}
	return 0
}

// position is where a mark is.
func (r *recording) position(mark int) int {
	return slices.IndexFunc(r.events, func(e event) bool { return e.Mark == mark })
}

// states chooses n states, spread over the recording; the ways take turns. Where nothing is pending, a cut comes later, after
// the next write.
func (r *recording) states(n int, seed uint64) []state {
	rng := rand.New(rand.NewPCG(seed, 0))
	out := make([]state, n)
	all := len(r.events) - r.begin
	for i := range out {
		from, to := r.begin+i*all/n, r.begin+(i+1)*all/n
		cut := from + 1 + rng.IntN(max(1, to-from))
		way := i % numWays
		if way != inOrder {
			cut = r.toWrite(cut)
		}
		out[i] = state{number: i, cut: cut, way: way, seed: rng.Uint64()}
	}
	return out
}

// toWrite moves a cut to where the last event is a write.
func (r *recording) toWrite(cut int) int {
	for i := max(0, cut-1); i < len(r.events); i++ {
		if r.events[i].changes() {
			return i + 1
		}
	}
	return cut
}

// builder makes the disks of states, of which the cuts come in ascending order.
type builder struct {
	*recording
	durable *blocks // all up to the last flush that was seen
	next    int     // event that is not in durable
}

func (r *recording) builder() *builder { return &builder{recording: r, durable: r.base.clone()} }

// build makes the disk of a state.
func (b *builder) build(s state) *blocks {
	flush := s.cut
	for flush > b.next && b.events[flush-1].Kind != eventFlush {
		flush--
	}
	for ; b.next < flush; b.next++ {
		b.events[b.next].apply(b.durable)
	}
	disk := b.durable.clone()
	for _, e := range b.choose(b.events[flush:s.cut], s) {
		e.apply(disk)
	}
	return disk
}

// choose gives those of the pending writes that came to the disk.
func (r *recording) choose(pending []event, s state) []event {
	if s.way == inOrder {
		return pending
	}
	rng := rand.New(rand.NewPCG(s.seed, 1))
	share := rng.Float64()
	var chosen []event
	last := -1 // that can be torn
	for _, e := range pending {
		if !e.changes() || rng.Float64() >= share {
			continue
		}
		if e.Off != r.intact {
			last = len(chosen)
		}
		chosen = append(chosen, e)
	}
	if s.way == torn && last >= 0 {
		chosen = slices.Replace(chosen, last, last+1, tear(chosen[last], rng)...)
	}
	return chosen
}

// tear gives some sectors of a write: in one half of the cases the first ones, else any.
func tear(e event, rng *rand.Rand) []event {
	n := int(e.Len+sectorSize-1) / sectorSize
	first, some := 1+rng.IntN(max(1, n-1)), rng.IntN(2) == 0
	var parts []event
	for i := range n {
		if keep := i < first; !some && keep || some && rng.IntN(2) == 0 {
			parts = append(parts, e.part(int64(i)*sectorSize, sectorSize))
		}
	}
	return parts
}

// part is a write of n bytes of e's.
func (e event) part(at, n int64) event {
	n = min(n, e.Len-at)
	p := event{Kind: e.Kind, Off: e.Off + at, Len: n}
	if e.Data != nil {
		p.Data = e.Data[at : at+n]
	}
	return p
}
