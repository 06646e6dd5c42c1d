package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/registry"
)

// progressMode says how progress is told.
type progressMode string

const (
	progressAuto  progressMode = "auto"
	progressPlain progressMode = "plain"
	progressNone  progressMode = "none"
)

func parseProgressMode(s string) (progressMode, error) {
	switch m := progressMode(s); m {
	case progressAuto, progressPlain, progressNone:
		return m, nil
	}
	return "", &usageError{msg: fmt.Sprintf("--progress=%s: want auto, plain or none", s)}
}

// meter is a Progress that has to be stopped, when all that it was told of is done or failed.
type meter interface {
	index.Progress
	note(n registry.Notice)
	stop()
}

// startProgress is the meter that the user asked for.
func (c *console) startProgress() meter {
	switch {
	case c.progress == progressNone:
		return noMeter{}
	case c.progress == progressAuto && isTerminal(c.stderr):
		return newBars(c.stderr)
	}
	return &plainMeter{w: c.stderr, now: time.Now}
}

type noMeter struct{}

func (noMeter) Start(oci.Layer) func(int64) { return nil }
func (noMeter) Reused(oci.Layer)            {}
func (noMeter) Step(string)                 {}
func (noMeter) note(registry.Notice)        {}
func (noMeter) stop()                       {}

// layerLabel is what a layer is called while it is worked on. One that is built has no digest yet.
func layerLabel(l oci.Layer) string {
	d := l.DiffID.String()
	if d == "" {
		return "layer"
	}
	return "layer " + short(l.DiffID.Hex())
}

// plainInterval is the time between two lines about one layer.
const plainInterval = 5 * time.Second

// plainMeter prints lines: one when a layer begins, one when it ends, and between them one every few seconds.
type plainMeter struct {
	mu  sync.Mutex
	w   io.Writer
	now func() time.Time
}

func (p *plainMeter) line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "flatroot: "+format+"\n", args...)
}

func (p *plainMeter) Start(l oci.Layer) func(int64) {
	label, total, last := layerLabel(l), l.Descriptor.Size, p.now()
	of := ""
	if total > 0 {
		of = " of " + size(total)
	}
	p.line("%s: reading%s", label, strings.TrimPrefix(of, " of"))
	var done int64
	var mu sync.Mutex
	return func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		done += n
		switch now := p.now(); {
		case n == 0:
			p.line("%s: done, %s", label, size(done))
		case now.Sub(last) >= plainInterval:
			last = now
			p.line("%s: %s%s", label, size(done), of)
		}
	}
}

func (p *plainMeter) Reused(l oci.Layer)     { p.line("%s: is here already", layerLabel(l)) }
func (p *plainMeter) Step(what string)       { p.line("%s", what) }
func (p *plainMeter) note(n registry.Notice) { p.line("%s", oneLine(n.String())) }
func (p *plainMeter) stop()                  {}
