package picture

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flatroot/flatroot/chunk"
	"github.com/flatroot/flatroot/tests/testenv"
)

func TestSquarify(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		in := rect{r.Float64() * 10, r.Float64() * 10, 1 + r.Float64()*1000, 1 + r.Float64()*1000}
		sizes := make([]float64, 1+r.IntN(60))
		var total float64
		for i := range sizes {
			sizes[i] = float64(r.IntN(1 << r.IntN(20)))
			total += sizes[i]
		}
		slices.SortFunc(sizes, func(a, b float64) int { return int(b - a) })
		out := squarify(sizes, in)
		if len(out) != len(sizes) {
			t.Fatalf("%d rectangles of %d", len(out), len(sizes))
		}
		for i, o := range out {
			if want := sizes[i] / max(total, 1) * in.W * in.H; math.Abs(o.W*o.H-want) > 1e-6*in.W*in.H {
				t.Fatalf("area %v, want %v", o.W*o.H, want)
			}
			if total > 0 && (o.X < in.X-1e-6 || o.Y < in.Y-1e-6 || o.X+o.W > in.X+in.W+1e-6 || o.Y+o.H > in.Y+in.H+1e-6) {
				t.Fatalf("%v is not in %v", o, in)
			}
			for _, other := range out[:i] {
				if total > 0 && overlap(o, other) > 1e-6*in.W*in.H {
					t.Fatalf("%v and %v overlap", o, other)
				}
			}
		}
	}
}

func overlap(a, b rect) float64 {
	w := min(a.X+a.W, b.X+b.W) - max(a.X, b.X)
	h := min(a.Y+a.H, b.Y+b.H) - max(a.Y, b.Y)
	return max(w, 0) * max(h, 0)
}

func explanation(t *testing.T) *chunk.Explanation {
	now := time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)
	cs := []chunk.Component{{Name: "<script>alert(1)</script>", Size: 1 << 20}, {Name: "empty"}}
	for i := range 500 {
		cs = append(cs, chunk.Component{
			Name: "dpkg/component-" + strings.Repeat("x", i%9) + string(rune('a'+i%26)) + string(rune('a'+i/26)), Size: int64(i) << 10,
			Changes: []time.Time{now.Add(-time.Duration(i%60) * chunk.Step)},
		})
	}
	p, err := chunk.NewPlan(cs, chunk.PlanOptions{MaxLayers: 8, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return p.Explain(p.Record())
}

func TestWrite(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, explanation(t), Options{Title: "web & <b>"}); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	for _, want := range []string{"web &amp; &lt;b&gt;", "&lt;script&gt;", "The last 26 updates", "<svg viewBox"} {
		if !strings.Contains(got, want) {
			t.Errorf("the page does not have %q", want)
		}
	}
	for _, bad := range []string{"<script", "http:", "https:", "src=", "href=", "NaN", "Inf", "ZgotmplZ"} {
		if strings.Contains(got, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
}

func TestWriteOfARecord(t *testing.T) {
	var b bytes.Buffer
	e := (&chunk.Previous{Layers: []chunk.RecordedLayer{{Components: []chunk.Recorded{{Name: "a"}}}}}).Explain()
	if err := Write(&b, e, Options{Title: "a"}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "updates, had the layers") || strings.Contains(b.String(), "NaN") {
		t.Error("a record without changes has a history, or no numbers")
	}
}

// TestScreenshot has the page drawn by a browser, and looks for the layers in their colours.
func TestScreenshot(t *testing.T) {
	chromium := testenv.Peer(t, "chromium")
	e := explanation(t)
	var b bytes.Buffer
	if err := Write(&b, e, Options{Title: "web"}); err != nil {
		t.Fatal(err)
	}
	img := screenshot(t, chromium, b.Bytes())
	if got := img.Bounds().Size(); got != image.Pt(1280, 1000) {
		t.Fatalf("the screenshot has %v", got)
	}
	pixels := map[color.RGBA]int{}
	all := image.Rect(60, 260, 1220, 820) // in the picture, wherever the fonts put it: above the legend, which has the colours too
	for y := all.Min.Y; y < all.Max.Y; y++ {
		for x := all.Min.X; x < all.Max.X; x++ {
			pixels[color.RGBAModel.Convert(img.At(x, y)).(color.RGBA)]++
		}
	}
	if paper := pixels[color.RGBA{0xfb, 0xfa, 0xf7, 0xff}]; paper > all.Dx()*all.Dy()/10 || len(pixels) < 100 {
		t.Errorf("%d pixels of %d are background, and there are %d colours", paper, all.Dx()*all.Dy(), len(pixels))
	}
	for n, l := range e.Layers {
		// Captions and margins have the colour itself; there are some of each layer that is not tiny.
		if c := heatColour(t, heat(l.Chance)); l.Size > e.Size/100 && pixels[c] < 100 {
			t.Errorf("layer %d: %d pixels have its colour %v", n+1, pixels[c], c)
		}
	}
}

func screenshot(t *testing.T, chromium string, page []byte) image.Image {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "page.html"), filepath.Join(dir, "page.png")
	if err := os.WriteFile(in, page, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
		"--user-data-dir="+dir+"/profile", "--window-size=1280,1000", "--screenshot="+out, "file://"+in)
	cmd.Env = append(os.Environ(), "HOME="+dir)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("chromium: %v\n%s", err, text)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// heatColour is that of a class, as the style sheet has it.
func heatColour(t *testing.T, class int) color.RGBA {
	t.Helper()
	m := regexp.MustCompile(`\.h` + strconv.Itoa(class) + ` { fill: #([0-9a-f]{6});`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("class h%d has no colour", class)
	}
	rgb, err := strconv.ParseUint(m[1], 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	return color.RGBA{uint8(rgb >> 16), uint8(rgb >> 8), uint8(rgb), 0xff}
}
