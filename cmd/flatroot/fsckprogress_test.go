package main

import (
	"io"
	"sync"
	"testing"
	"time"

	"github.com/vbauerster/mpb/v8"
)

// TestCheckBars has bars that are drawn all the time while objects are checked: none waits for the other.
func TestCheckBars(t *testing.T) {
	b := &checkBars{progress: mpb.New(mpb.WithOutput(io.Discard), mpb.WithAutoRefresh(), mpb.WithRefreshRate(time.Millisecond))}
	ended := make(chan bool)
	go func() {
		defer close(ended)
		const rounds, objects = 3, 20000
		b.Checked(1) // before their number is known
		for range rounds {
			b.Step("check objects")
			b.Objects(2 * objects)
			var g sync.WaitGroup
			for range 2 {
				g.Go(func() {
					for range objects {
						b.Checked(100)
					}
				})
			}
			g.Wait()
		}
		b.stop()
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("it hangs")
	}
}
