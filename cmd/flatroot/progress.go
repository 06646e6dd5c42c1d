package main

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

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

// listener hears why it takes longer to come to an image.
type listener interface {
	// note tells what is asked once more of a registry.
	note(n registry.Notice)
	// inflating begins with an archive of some bytes; what it returns is told those that are done, and 0 at the end.
	inflating(total int64) func(n int64)
}

// meter is a Progress that has to be stopped, when all that it was told of is done or failed.
type meter interface {
	index.Progress
	listener
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
	return newPlainMeter(c.stderr)
}

type noMeter struct{}

func (noMeter) Start(index.Work, oci.Layer) func(int64) { return nil }
func (noMeter) Reused(oci.Layer)                        {}
func (noMeter) Step(string)                             {}
func (noMeter) note(registry.Notice)                    {}
func (noMeter) inflating(int64) func(int64)             { return nil }
func (noMeter) stop()                                   {}

// layerLabel is what a layer is called while it is worked on. One that is built has no digest yet, but may have a title.
func layerLabel(l oci.Layer) string {
	if title := l.Descriptor.Annotations[ocispec.AnnotationTitle]; title != "" {
		return oneLine(title)
	}
	if l.DiffID == "" {
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

func newPlainMeter(w io.Writer) *plainMeter { return &plainMeter{w: w, now: time.Now} }

func (p *plainMeter) line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "flatroot: "+format+"\n", args...)
}

func (p *plainMeter) Start(w index.Work, l oci.Layer) func(int64) {
	label, total := layerLabel(l), l.Descriptor.Size
	p.line("%s: %s%s", label, w, strings.TrimPrefix(ofTotal(total), " of"))
	return p.counting(label, total, true)
}

// inflating says nothing of what takes no longer than a few seconds.
func (p *plainMeter) inflating(total int64) func(int64) {
	return p.counting("inflating the archive", total, false)
}

// ofTotal is " of SIZE"; "" if there is none.
func ofTotal(total int64) string {
	if total <= 0 {
		return ""
	}
	return " of " + size(total)
}

// counting prints every few seconds how much is done of something, and at the end if something was said of it before.
func (p *plainMeter) counting(label string, total int64, said bool) func(int64) {
	var mu sync.Mutex
	var done int64
	last := p.now()
	return func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		done += n
		switch now := p.now(); {
		case n == 0 && said:
			p.line("%s: done, %s", label, size(done))
		case n > 0 && now.Sub(last) >= plainInterval:
			last, said = now, true
			p.line("%s: %s%s", label, size(done), ofTotal(total))
		}
	}
}

func (p *plainMeter) Reused(l oci.Layer)     { p.line("%s: is here already", layerLabel(l)) }
func (p *plainMeter) Step(what string)       { p.line("%s", what) }
func (p *plainMeter) note(n registry.Notice) { p.line("%s", oneLine(n.String())) }
func (p *plainMeter) stop()                  {}
