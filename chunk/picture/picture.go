// Package picture draws the layers of an image: one HTML page that needs nothing else.
package picture

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"

	"github.com/flatroot/flatroot/chunk"
)

// Options are Write's.
type Options struct {
	Title string // the image
	// Bytes writes a number of bytes for people.
	Bytes func(int64) string
}

// The picture's size, in units that are pixels at full width.
const (
	width, height = 1200, 640
	labelHeight   = 15 // of a layer's caption
	letterWidth   = 6.2
)

// partsMax is how many components of a layer are drawn; the rest is one part.
const partsMax = 400

//go:embed picture.tmpl
var text string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"px":     func(f float64) string { return fmt.Sprintf("%.1f", f) },
	"number": func(i int) int { return i + 1 },
}).Parse(text))

// Write writes the page.
func Write(w io.Writer, e *chunk.Explanation, o Options) error {
	return page.Execute(w, newView(e, o))
}

// view is what the template shows.
type view struct {
	*chunk.Explanation
	Title         string
	Width, Height int
	Boxes         []box
	Bars          []bar
	BarsTop       string // the number of bytes at the top
	Layers        []row
	bytes         func(int64) string
}

// Human is for the template.
func (v *view) Human(n int64) string { return v.bytes(n) }

// NextLayersText is a number with a decimal.
func (v *view) NextLayersText() string { return fmt.Sprintf("%.1f", float64(v.NextLayers)/1000) }

// box is a layer in the treemap.
type box struct {
	rect
	Number int
	Label  string
	Tip    string
	Heat   int // class of colour, 0 to 9
	Parts  []part
}

// part is a component in a box.
type part struct {
	rect
	Label string
	Tip   string
	State chunk.State
}

// bar is an update of the past; heights are in percent.
type bar struct {
	Tip          string
	Bytes, Least float64
}

// row is a layer in the table.
type row struct {
	chunk.ExplainedLayer
	Number int
	Heat   int
	Size   string
	Cost   string
	Chance string
}

func newView(e *chunk.Explanation, o Options) *view {
	if o.Bytes == nil {
		o.Bytes = func(n int64) string { return fmt.Sprintf("%d B", n) }
	}
	v := &view{Explanation: e, Title: o.Title, Width: width, Height: height, bytes: o.Bytes}
	for i, l := range e.Layers {
		v.Layers = append(v.Layers, row{
			ExplainedLayer: l, Number: i + 1, Heat: heat(l.Chance), Size: o.Bytes(l.Size), Cost: o.Bytes(l.Cost), Chance: percent(l.Chance),
		})
	}
	v.boxes()
	v.bars()
	return v
}

func percent(perMillion int64) string { return fmt.Sprintf("%.1f %%", float64(perMillion)/10_000) }

// heat is a class of colour: a layer that changes in each step has the last one.
func heat(perMillion int64) int {
	return min(int(math.Sqrt(float64(max(perMillion, 0))/1_000_000)*10), 9)
}

func (v *view) boxes() {
	order := slices.Clone(v.Layers)
	slices.SortStableFunc(order, func(a, b row) int { return cmp.Compare(b.ExplainedLayer.Size, a.ExplainedLayer.Size) })
	sizes := make([]float64, len(order))
	for i, l := range order {
		sizes[i] = float64(l.ExplainedLayer.Size)
	}
	for i, r := range squarify(sizes, rect{0, 0, width, height}) {
		l := order[i]
		b := box{
			rect: r.inset(1, 1, 1, 1), Number: l.Number, Heat: l.Heat,
			Tip: fmt.Sprintf("layer %d: %s, fetched by %s of updates", l.Number, l.Size, l.Chance),
		}
		b.Label = fit(fmt.Sprintf("%d · %s · %s", l.Number, l.Size, l.Chance), b.rect)
		inner := b.rect.inset(2, 2, 2, 2)
		if b.Label != "" {
			inner = b.rect.inset(2, labelHeight, 2, 2)
		}
		b.Parts = v.parts(l.Components, inner)
		v.Boxes = append(v.Boxes, b)
	}
}

func (v *view) parts(cs []chunk.ExplainedComponent, in rect) (parts []part) {
	if n := len(cs); n > partsMax {
		rest := chunk.ExplainedComponent{Name: fmt.Sprintf("%d more", n-partsMax), State: chunk.Unknown}
		for _, c := range cs[partsMax:] {
			rest.Size += c.Size
		}
		cs = append(slices.Clone(cs[:partsMax]), rest)
		slices.SortStableFunc(cs, func(a, b chunk.ExplainedComponent) int { return cmp.Compare(b.Size, a.Size) })
	}
	sizes := make([]float64, len(cs))
	for i, c := range cs {
		sizes[i] = float64(c.Size)
	}
	for i, r := range squarify(sizes, in) {
		c := cs[i]
		tip := c.Name + ": " + v.bytes(c.Size)
		if c.Last != nil {
			tip += ", last changed " + c.Last.Format("2006-01-02")
		}
		parts = append(parts, part{rect: r, Label: fit(c.Name, r), Tip: tip, State: c.State})
	}
	return parts
}

// fit shortens a text to what there is room for; where that would say nothing it is empty.
func fit(s string, in rect) string {
	n := int((in.W - 6) / letterWidth)
	r := []rune(s)
	switch {
	case in.H < labelHeight || n < 4:
		return ""
	case len(r) <= n:
		return s
	}
	return string(r[:n-1]) + "…"
}

func (v *view) bars() {
	var top int64 = 1
	for _, u := range v.Past {
		top = max(top, u.Bytes)
	}
	v.BarsTop = v.bytes(top)
	for _, u := range slices.Backward(v.Past) {
		v.Bars = append(v.Bars, bar{
			Tip: fmt.Sprintf("until %s: %s in %d layers, of which %s had changed",
				u.Until.Format("2006-01-02"), v.bytes(u.Bytes), u.Layers, v.bytes(u.Least)),
			Bytes: 100 * float64(u.Bytes-u.Least) / float64(top), Least: 100 * float64(u.Least) / float64(top),
		})
	}
}
