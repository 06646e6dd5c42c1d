package main

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/flatroot/flatroot/fsck"
)

// checkMeter is a Progress that has to be stopped.
type checkMeter interface {
	fsck.Progress
	stop()
}

// startCheckProgress is the meter that the user asked for.
func (c *console) startCheckProgress() checkMeter {
	switch {
	case c.progress == progressNone:
		return noCheckMeter{}
	case c.progress == progressAuto && isTerminal(c.stderr):
		return &checkBars{progress: mpb.New(mpb.WithOutput(c.stderr), mpb.WithWidth(48))}
	}
	return &plainCheckMeter{w: c.stderr, now: time.Now}
}

type noCheckMeter struct{}

func (noCheckMeter) Step(string)   {}
func (noCheckMeter) Objects(int)   {}
func (noCheckMeter) Checked(int64) {}
func (noCheckMeter) stop()         {}

// plainCheckMeter prints a line every few seconds.
type plainCheckMeter struct {
	w   io.Writer
	now func() time.Time

	mu            sync.Mutex
	last          time.Time
	total         int
	objects, read int64
}

func (p *plainCheckMeter) Step(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = p.now()
	fmt.Fprintf(p.w, "flatroot: %s\n", what)
}

func (p *plainCheckMeter) Objects(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total = n
}

func (p *plainCheckMeter) Checked(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.objects++
	p.read += n
	if now := p.now(); now.Sub(p.last) >= plainInterval {
		p.last = now
		fmt.Fprintf(p.w, "flatroot: %d of %s checked, %s read\n", p.objects, counted(p.total, "object"), size(p.read))
	}
}

func (p *plainCheckMeter) stop() {}

// checkBars draws a bar over all objects. The bar's own goroutine asks for what it shows, so that no lock may be held while
// the bar is told something.
type checkBars struct {
	progress   *mpb.Progress
	done, read atomic.Int64 // objects, and bytes of them
	bar        atomic.Pointer[mpb.Bar]
}

func (b *checkBars) Step(what string) { fmt.Fprintf(b.progress, "flatroot: %s\n", what) }

// Objects is called once for each check of a repair; what comes is more of the same.
func (b *checkBars) Objects(n int) {
	if bar := b.bar.Load(); bar != nil {
		bar.SetTotal(b.done.Load()+int64(n), false)
		return
	}
	bar := b.progress.AddBar(0, mpb.PrependDecorators(decor.Name("objects ")),
		mpb.AppendDecorators(decor.CountersNoUnit("%d / %d "), decor.Any(func(decor.Statistics) string {
			return size(b.read.Load())
		})))
	bar.SetTotal(int64(n), false) // it can be set again then
	b.bar.Store(bar)
}

func (b *checkBars) Checked(n int64) {
	b.read.Add(n)
	b.done.Add(1)
	if bar := b.bar.Load(); bar != nil {
		bar.SetCurrent(b.done.Load())
	}
}

func (b *checkBars) stop() {
	if bar := b.bar.Load(); bar != nil {
		bar.Abort(false)
	}
	b.progress.Wait()
}
