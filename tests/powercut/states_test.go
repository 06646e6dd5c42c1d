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
	sector int64 // what the disk writes as a whole or not at all, bytes
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

// choose chooses n states: half of them spread over all events; one in four during one of the commands, of which some have
// few events; and one in four just when a command has announced success. The ways take turns.
func (r *recording) choose(n int, seed uint64) []state {
	rng := rand.New(rand.NewPCG(seed, 0))
	marks := r.markPlaces()
	out := make([]state, n)
	for i := range out {
		s := state{way: i % numWays}
		switch i % 4 {
		case 1:
			c := i / 4 % max(1, len(marks)-1)
			s.cut = r.within(marks[c], marks[min(c+1, len(marks)-1)], s.way, rng)
		case 3:
			s.cut = marks[min(1+i/4%max(1, len(marks)-1), len(marks)-1)] + 1
		default:
			all := len(r.events) - r.begin
			s.cut = r.within(r.begin+i*all/n, r.begin+(i+1)*all/n, s.way, rng)
		}
		s.seed = rng.Uint64()
		out[i] = s
	}
	slices.SortStableFunc(out, func(a, b state) int { return a.cut - b.cut })
	for i := range out {
		out[i].number = i
	}
	return out
}

// markPlaces gives the events that are marks, after where cuts may begin.
func (r *recording) markPlaces() []int {
	places := []int{r.begin}
	for n, e := range r.events {
		if e.Kind == eventMark && n > r.begin {
			places = append(places, n)
		}
	}
	return places
}

// within cuts after one of the events from the one that follows from. Where writes are to be chosen from, it is a write, if
// need be a later one.
func (r *recording) within(from, to, way int, rng *rand.Rand) int {
	cut := from + 1 + rng.IntN(max(1, to-from))
	if way != inOrder {
		cut = r.toWrite(cut)
	}
	return min(cut, len(r.events))
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
	for _, e := range b.arrived(b.events[flush:s.cut], s) {
		e.apply(disk)
	}
	return disk
}

// arrived gives those of the pending writes that came to the disk.
func (r *recording) arrived(pending []event, s state) []event {
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
		chosen = slices.Replace(chosen, last, last+1, tear(chosen[last], r.sector, rng)...)
	}
	return chosen
}

// tear gives some sectors of a write: in one half of the cases the first ones, else any.
func tear(e event, sector int64, rng *rand.Rand) []event {
	all := sectors(e, sector)
	if rng.IntN(2) == 0 {
		return all[:1+rng.IntN(max(1, len(all)-1))]
	}
	return slices.DeleteFunc(all, func(event) bool { return rng.IntN(2) == 0 })
}

// sectors cuts a write at the ends of sectors.
func sectors(e event, sector int64) (all []event) {
	for at := int64(0); at < e.Len; {
		n := sector - (e.Off+at)%sector
		all = append(all, e.part(at, n))
		at += n
	}
	return all
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
