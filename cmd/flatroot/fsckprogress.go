package main

import (
	"fmt"
	"io"
	"sync"
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

// checkBars draws a bar over all objects.
type checkBars struct {
	progress *mpb.Progress
	mu       sync.Mutex
	bar      *mpb.Bar
	early    int64 // objects checked before their number was known
	read     int64
}

func (b *checkBars) Step(what string) { fmt.Fprintf(b.progress, "flatroot: %s\n", what) }

func (b *checkBars) Objects(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bar = b.progress.AddBar(int64(n), mpb.PrependDecorators(decor.Name("objects ")),
		mpb.AppendDecorators(decor.CountersNoUnit("%d / %d "), decor.Any(func(decor.Statistics) string {
			b.mu.Lock()
			defer b.mu.Unlock()
			return size(b.read)
		})))
	b.bar.IncrInt64(b.early)
}

func (b *checkBars) Checked(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read += n
	if b.bar == nil {
		b.early++
		return
	}
	b.bar.Increment()
}

func (b *checkBars) stop() {
	b.mu.Lock()
	bar := b.bar
	b.mu.Unlock()
	if bar != nil {
		bar.Abort(false)
	}
	b.progress.Wait()
}
