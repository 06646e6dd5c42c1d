package picture

import "slices"

// rect is a rectangle of the picture, in its units.
type rect struct{ X, Y, W, H float64 }

// inset is r with a margin inside, as far as there is room.
func (r rect) inset(left, top, right, bottom float64) rect {
	if r.W <= left+right || r.H <= top+bottom {
		return r
	}
	return rect{r.X + left, r.Y + top, r.W - left - right, r.H - top - bottom}
}

// squarify divides a rectangle in the ratio of sizes, which are in descending order and not negative, so that the parts are
// not much longer than wide (Bruls, Huizing, van Wijk: Squarified Treemaps, 2000).
func squarify(sizes []float64, in rect) []rect {
	var total float64
	for _, s := range sizes {
		total += s
	}
	out := make([]rect, 0, len(sizes))
	if total <= 0 {
		return slices.Grow(out, len(sizes))[:len(sizes)]
	}
	scale := in.W * in.H / total
	for len(sizes) > 0 {
		n := rowLength(sizes, scale, min(in.W, in.H))
		var row []rect
		row, in = layRow(sizes[:n], scale, in)
		out = append(out, row...)
		sizes = sizes[n:]
	}
	return out
}

// rowLength is how many of the sizes make the best row along a side.
func rowLength(sizes []float64, scale, side float64) int {
	sum := sizes[0]
	best := worst(sizes[:1], sum, scale, side)
	for n := 1; n < len(sizes); n++ {
		sum += sizes[n]
		w := worst(sizes[:n+1], sum, scale, side)
		if w > best {
			return n
		}
		best = w
	}
	return len(sizes)
}

// worst is the greatest ratio of length to width in a row.
func worst(row []float64, sum, scale, side float64) float64 {
	largest, smallest := row[0]*scale, row[len(row)-1]*scale
	area := sum * scale
	if smallest <= 0 || area <= 0 || side <= 0 {
		return 1e18
	}
	return max(side*side*largest/(area*area), area*area/(side*side*smallest))
}

// layRow puts a row along the shorter side, and gives what is left of the rectangle.
func layRow(row []float64, scale float64, in rect) ([]rect, rect) {
	var area float64
	for _, s := range row {
		area += s * scale
	}
	out := make([]rect, len(row))
	if in.W >= in.H {
		w := 0.0
		if in.H > 0 {
			w = min(area/in.H, in.W)
		}
		at := in.Y
		for i, s := range row {
			h := share(s*scale, area, in.H)
			out[i] = rect{in.X, at, w, h}
			at += h
		}
		return out, rect{in.X + w, in.Y, in.W - w, in.H}
	}
	h := 0.0
	if in.W > 0 {
		h = min(area/in.W, in.H)
	}
	at := in.X
	for i, s := range row {
		w := share(s*scale, area, in.W)
		out[i] = rect{at, in.Y, w, h}
		at += w
	}
	return out, rect{in.X, in.Y + h, in.W, in.H - h}
}

func share(part, whole, length float64) float64 {
	if whole <= 0 {
		return 0
	}
	return length * part / whole
}
