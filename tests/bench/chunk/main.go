package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/flatroot/flatroot/chunk"
	"github.com/flatroot/flatroot/tests/bench/chunk/replay"
)

func main() {
	step := flag.Int("step", 0, "")
	only := flag.Bool("only", false, "")
	flag.Parse()
	b, err := os.ReadFile(flag.Arg(0))
	if err != nil {
		panic(err)
	}
	tr, err := replay.Parse(b)
	if err != nil {
		panic(err)
	}
	for _, c := range []replay.Config{
		{N: 64, Step: 7, Steps: 78}, {N: 32, Step: 7, Steps: 78}, {N: 64, Step: 7, Steps: 78, Churn: true, Seed: 1}, {N: 64, Step: 7, Steps: 78, Churn: true, Seed: 2},
		{N: 32, Step: 7, Steps: 78, Churn: true, Seed: 1}, {N: 32, Step: 7, Steps: 78, Churn: true, Seed: 2},
		{N: 64, Step: 1, Steps: 146}, {N: 64, Step: 28, Steps: 39}, {N: 16, Step: 7, Steps: 78},
	} {
		fmt.Printf("%+v", c)
		floor := replay.Run(tr, c, replay.PolicyFunc(replay.Floor)).Bytes
		best := 1e18
		if !*only {
			for _, p := range []struct {
				n string
				p replay.PolicyFunc
			}{{"single", replay.Single}, {"size", replay.SizeTop}, {"hash", replay.HashTiers}, {"frozen", replay.FrozenBins}, {"matrix", replay.Matrix}} {
				r := replay.Run(tr, c, p.p)
				best = min(best, r.Bytes)
				fmt.Printf(" %s %.1f", p.n, r.Bytes/1e6)
			}
		}
		r := replay.Run(tr, c, &replay.Ours{Options: chunk.PlanOptions{Step: time.Duration(max(7, *step*c.Step)) * 24 * time.Hour}})
		fmt.Printf(" floor %.1f OURS %.1f (%.1f layers) ratio %.2f %v\n", floor/1e6, r.Bytes/1e6, r.Layers, (r.Bytes-floor)/(best-floor), r.Took.Round(time.Millisecond))
	}
}
