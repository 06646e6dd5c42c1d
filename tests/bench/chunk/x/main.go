package main

import (
	"fmt"
	"os"
	"regexp"
	"sync"

	"github.com/flatroot/flatroot/tests/bench/chunk/replay"
)

func main() {
	match := regexp.MustCompile(os.Args[1])
	var wg sync.WaitGroup
	sem := make(chan bool, 2)
	var lines []*string
	for _, name := range os.Args[2:] {
		t, err := replay.ReadTrace("tests/bench/chunk/testdata/" + name + ".json.gz")
		if err != nil {
			panic(err)
		}
		for _, r := range replay.Rows(name) {
			if !match.MatchString(r.String()) {
				continue
			}
			s := new(string)
			lines = append(lines, s)
			wg.Add(1)
			go func() {
				defer wg.Done()
				sem <- true
				x := r.Run(t, replay.Ours())
				*s = fmt.Sprintf("%-28s %8.1f  skip4 %8.1f  %.1f layers %.1f ms", r, x.Mean/1e6, x.Skip4/1e6, x.Layers, x.PlanMS)
				<-sem
			}()
		}
	}
	wg.Wait()
	for _, s := range lines {
		fmt.Println(*s)
	}
}
