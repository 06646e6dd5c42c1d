package keeper

import (
	"context"
	"testing"
	"time"

	"github.com/flatroot/flatroot/mount"
)

// BenchmarkStart is the time from a mount without a server to its INIT answered.
// With it, the start of the command itself and the mount have to fit into 5 ms.
func BenchmarkStart(b *testing.B) {
	needSessions(b)
	s := newSample(b)
	best := time.Hour // what a machine with other work to do still tells
	for range b.N {
		b.StopTimer()
		dev := rawMount(b)
		v := s.serving(b, dev)
		v.Service.Image = mount.ImageUnchecked
		l := NewLauncher(Options{})
		begin := time.Now()
		b.StartTimer()
		if err := l.Start(context.Background(), v); err != nil {
			b.Fatal(err)
		}
		best = min(best, time.Since(begin))
	}
	b.ReportMetric(float64(best.Microseconds()), "µs-at-best")
}
