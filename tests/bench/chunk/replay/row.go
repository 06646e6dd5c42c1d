package replay

import (
	"fmt"
	"math"
	"reflect"
)

// seeds of churn. A row is their median.
const seeds = 5

// Row is a line of the tables.
type Row struct {
	Trace string
	Pace
	Churn bool
	N     int
}

// Rows are those of a trace.
func Rows(trace string) (rows []Row) {
	for _, p := range Paces() {
		for _, churn := range []bool{false, true} {
			for _, n := range []int{16, 32, 64, 120} {
				rows = append(rows, Row{trace, p, churn, n})
			}
		}
	}
	return rows
}

// String is a row's name, "server weekly churn 64" for example.
func (r Row) String() string {
	churn := "still"
	if r.Churn {
		churn = "churn"
	}
	return fmt.Sprintf("%s %s %s %d", r.Trace, r.Pace.Name, churn, r.N)
}

// Run has the median of all seeds.
func (r Row) Run(t *Trace, p Policy) Result {
	c := Case{Pace: r.Pace, N: r.N, Churn: r.Churn}
	if !r.Churn {
		return Run(t, c, p.New())
	}
	var all []Result
	for c.Seed = 1; c.Seed <= seeds; c.Seed++ {
		all = append(all, Run(t, c, p.New()))
	}
	return medianResult(all)
}

// medianResult has the median of each figure.
func medianResult(all []Result) (m Result) {
	to := reflect.ValueOf(&m).Elem()
	for i := range to.NumField() {
		var x []float64
		for _, r := range all {
			x = append(x, reflect.ValueOf(r).Field(i).Float())
		}
		to.Field(i).SetFloat(median(x))
	}
	return m
}

// Compared are the results of a row.
type Compared struct {
	Row    string            `json:"row"`
	Ours   Result            `json:"flatroot"`
	Floor  Result            `json:"floor"`
	Rivals map[string]Result `json:"rivals"`

	Chunkah *ChunkahResult `json:"chunkah,omitempty"` // if it has been run
}

// ChunkahResult is that of the program itself.
type ChunkahResult struct {
	Result
	Releases int `json:"releases"` // of all seeds
	Apart    int `json:"apart"`    // of these, those that the policy name-hash tiers cuts otherwise
}

// Compare runs all policies.
func (r Row) Compare(t *Trace) Compared {
	c := Compared{Row: r.String(), Ours: r.Run(t, Ours()), Floor: r.Run(t, Floor()), Rivals: map[string]Result{}}
	for _, p := range Rivals() {
		c.Rivals[p.Name] = r.Run(t, p)
	}
	return c
}

// RunChunkah adds what the program chunkah itself makes of the row.
func (c *Compared) RunChunkah(r Row, t *Trace, program string) error {
	p := Chunkah{Program: program}
	result := r.Run(t, p.Policy())
	c.Chunkah = &ChunkahResult{result, p.Releases, p.Apart}
	if p.Err != nil {
		return fmt.Errorf("chunkah in %s: %w", r, p.Err)
	}
	return nil
}

// Best is the rival that fetches least.
func (c Compared) Best() (name string, best Result) {
	for _, p := range Rivals() {
		if r, ok := c.Rivals[p.Name]; ok && (name == "" || r.Mean < best.Mean) {
			name, best = p.Name, r
		}
	}
	return name, best
}

// LeastSkip4 are the bytes of the rival that fetches least in an update to the fourth release after, often not Best.
func (c Compared) LeastSkip4() float64 {
	least := math.Inf(1)
	for _, r := range c.Rivals {
		least = min(least, r.Skip4)
	}
	return least
}

// Excess is what we fetch beyond the floor, by what the best rival does; ok if it does.
func (c Compared) Excess() (ratio float64, ok bool) {
	_, best := c.Best()
	if best.Mean-c.Floor.Mean < 1 {
		return 0, false
	}
	return (c.Ours.Mean - c.Floor.Mean) / (best.Mean - c.Floor.Mean), true
}
