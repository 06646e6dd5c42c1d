package main

import (
	"fmt"
	"io"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/registry"
)

// bars draws a bar for all work on a layer on a terminal.
type bars struct {
	progress *mpb.Progress
	mu       sync.Mutex
	all      []*mpb.Bar
}

func newBars(w io.Writer) *bars {
	return &bars{progress: mpb.New(mpb.WithOutput(w), mpb.WithWidth(48))}
}

func (b *bars) Start(w index.Work, l oci.Layer) func(int64) {
	label := layerLabel(l) + " "
	if w != index.Reading {
		label += string(w) + " "
	}
	return b.start(label, l.Descriptor.Size)
}

func (b *bars) inflating(total int64) func(int64) { return b.start("archive: inflating ", total) }

func (b *bars) start(label string, total int64) func(int64) {
	bar := b.add(label, total)
	b.mu.Lock()
	b.all = append(b.all, bar)
	b.mu.Unlock()
	return func(n int64) {
		if n == 0 {
			bar.SetTotal(-1, true)
			return
		}
		bar.IncrInt64(n)
	}
}

// add adds a bar; of what has no known size it shows just that something moves.
func (b *bars) add(label string, total int64) *mpb.Bar {
	name := mpb.PrependDecorators(decor.Name(label))
	if total <= 0 {
		return b.progress.AddSpinner(0, name, mpb.AppendDecorators(decor.CurrentKiloByte("% .1f")))
	}
	return b.progress.AddBar(total, name, mpb.AppendDecorators(decor.CountersKiloByte("% .1f / % .1f")))
}

func (b *bars) Reused(l oci.Layer) { b.write("%s: is here already", layerLabel(l)) }
func (b *bars) Step(what string)   { b.write("%s", what) }

func (b *bars) note(n registry.Notice) { b.write("%s", oneLine(n.String())) }

// write puts a line above the bars.
func (b *bars) write(format string, args ...any) {
	fmt.Fprintf(b.progress, "flatroot: "+format+"\n", args...)
}

// stop leaves the bars as they are: those that came to no end too.
func (b *bars) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, bar := range b.all {
		bar.Abort(false)
	}
	b.progress.Wait()
}
