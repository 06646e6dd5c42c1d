package index

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
	"github.com/flatroot/flatroot/tree"
	"github.com/flatroot/flatroot/tree/dump"
)

// ruleCase is a case of the rule's page.
type ruleCase struct {
	line   int // in the page, of the fence
	shows  string
	rules  Rules
	layers []string // in the text form
	tree   string   // the dump that must come of it
	err    string   // or a part of the error
}

const rulesPage = "../doc/formats/oci-1.md"

// readCases reads the fenced blocks of the rule's page. The paragraph before one says what it shows.
func readCases(t *testing.T) []ruleCase {
	t.Helper()
	page, err := os.ReadFile(rulesPage)
	if err != nil {
		t.Fatal(err)
	}
	var cases []ruleCase
	var block []string
	var at *ruleCase
	text := ""
	for i, line := range strings.Split(string(page), "\n") {
		info, isFence := strings.CutPrefix(line, "```")
		switch {
		case at != nil && isFence:
			at.parse(t, block)
			cases = append(cases, *at)
			at = nil
		case at != nil:
			block = append(block, line)
		case info == string(OCI1) || info == string(Faithful1):
			at, block = &ruleCase{line: i + 1, shows: text, rules: Rules(info)}, nil
		case line != "":
			text = line
		}
	}
	return cases
}

// parse reads a block's lines: "layer", "tree" and what is indented below them, or "error" with its text.
func (c *ruleCase) parse(t *testing.T, lines []string) {
	t.Helper()
	var into *string
	for _, line := range lines {
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case word == "" && into != nil:
			*into += strings.TrimPrefix(line, "  ") + "\n"
		case line == "layer":
			c.layers = append(c.layers, "")
			into = &c.layers[len(c.layers)-1]
		case line == "tree":
			into = &c.tree
		case word == "error":
			c.err, into = rest, nil
		default:
			t.Fatalf("%s: case at line %d: %q is no layer, tree or error", rulesPage, c.line, line)
		}
	}
	if (c.tree == "") == (c.err == "") || len(c.layers) == 0 {
		t.Fatalf("%s: case at line %d needs layers, and either a tree or an error", rulesPage, c.line)
	}
}

// TestRule holds the importer against every case of the rule's page.
func TestRule(t *testing.T) {
	cases := readCases(t)
	if len(cases) < 40 {
		t.Errorf("only %d cases in %s", len(cases), rulesPage)
	}
	for i, c := range cases {
		t.Run(fmt.Sprintf("line %d", c.line), func(t *testing.T) {
			t.Parallel()
			m := ocitest.Image{Compression: []ocitest.Compression{ocitest.Compression(i % 3)}}
			for n, text := range c.layers {
				tar, err := tarOf(text)
				if err != nil {
					t.Fatalf("layer %d: %v", n+1, err)
				}
				m.Layers = append(m.Layers, tar)
			}
			defer func() {
				if t.Failed() {
					t.Logf("%s:%d: %s", rulesPage, c.line, c.shows)
				}
			}()
			if c.err != "" {
				c.checkError(t, m)
			} else {
				c.checkTree(t, m)
			}
		})
	}
}

func (c *ruleCase) checkError(t *testing.T, m ocitest.Image) {
	ctx := context.Background()
	src := openLayout(t, m)
	o := ImportOptions{Image: writeImage, Name: "case", Rules: c.rules}
	s := storetest.New(t, store.InitOptions{})
	if _, err := Import(ctx, s, src, o); !errorIs(err, c.err) {
		t.Errorf("import: %v; want %q", err, c.err)
	}
	checkUnnamed(t, s)
	if _, err := Digest(ctx, src, fsverity.SHA256, o); !errorIs(err, c.err) {
		t.Errorf("digest: %v; want %q", err, c.err)
	}
}

func (c *ruleCase) checkTree(t *testing.T, m ocitest.Image) {
	ctx := context.Background()
	src := openLayout(t, m)
	o := ImportOptions{Image: writeImage, Name: "case", Rules: c.rules}
	s := storetest.New(t, store.InitOptions{})
	r, err := Import(ctx, s, src, o)
	if err != nil {
		t.Fatal(err)
	}
	compareDump(t, "tree in the store", dumpTree(t, imageTree(t, s, r.Image)), c.tree)
	apart, err := ReadTree(ctx, src, s.Algorithm(), o)
	if err != nil {
		t.Fatal(err)
	}
	compareDump(t, "tree without a store", dumpTree(t, apart), c.tree)
	d, err := Digest(ctx, src, s.Algorithm(), o)
	if err != nil || d.Image != r.Image {
		t.Errorf("digest without a store %s, %v; with one %s", d.Image, err, r.Image)
	}
	checkTars(t, s, src, m)
	c.checkReloaded(t, s, src)
}

// checkReloaded makes the tree once more, of the layers as the store has them.
func (c *ruleCase) checkReloaded(t *testing.T, s *store.Store, src oci.Source) {
	t.Helper()
	ctx := context.Background()
	img, err := src.Image(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var layers []*Layer
	for _, d := range img.DiffIDs() {
		id, err := s.Entry(store.Streams, LayerEntry(d))
		if err != nil {
			t.Fatal(err)
		}
		l, err := loadLayer(ctx, s, d, id, Limits{}, newBounds(Limits{}))
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, l)
	}
	tr, err := Flatten(ctx, layers, FlattenOptions{Rules: c.rules, Algorithm: s.Algorithm()})
	if err != nil {
		t.Fatal(err)
	}
	compareDump(t, "tree of stored layers", dumpTree(t, tr), c.tree)
}

// checkTars compares the tars that a store gives back with those of the image.
func checkTars(t *testing.T, s *store.Store, src oci.Source, m ocitest.Image) {
	t.Helper()
	img, err := src.Image(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range img.Layers {
		var b bytes.Buffer
		if err := WriteTar(context.Background(), s, l.DiffID, &b); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), m.Layers[i]) {
			t.Errorf("layer %d: the store gives back another tar", i+1)
		}
	}
}

// imageTree reads the tree back from an image in the store. A directory's size, which only an image has, is left out.
func imageTree(t *testing.T, s *store.Store, d fsverity.Digest) *tree.Tree {
	t.Helper()
	f, err := s.OpenObject(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	m, err := erofs.Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	tr, err := erofs.ReadTree(m, erofs.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for n := range tree.Node(tr.Len()) {
		if a := tr.Attr(n); tr.IsDir(n) {
			a.Size = 0
			if err := tr.SetAttr(n, a); err != nil {
				t.Fatal(err)
			}
		}
	}
	return tr
}

func dumpTree(t *testing.T, tr *tree.Tree) string {
	t.Helper()
	var b strings.Builder
	if err := dump.Write(&b, tr); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func compareDump(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, strings.ReplaceAll(got, "\n", "\n     "), strings.ReplaceAll(want, "\n", "\n     "))
	}
}

// checkUnnamed checks that a store names no image: no refs, no images, no manifests and configs, and of layers only
// those that were read whole.
func checkUnnamed(t *testing.T, s *store.Store) {
	t.Helper()
	for _, pattern := range []string{
		"images/*", "streams/refs/*", "streams/oci-manifest-*", "streams/oci-config-*",
		"flatroot/indexes/*", "flatroot/tmp/*", "*/.*",
	} {
		left, err := filepath.Glob(filepath.Join(s.Dir(), pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range left {
			t.Errorf("%s was left", strings.TrimPrefix(path, s.Dir()))
		}
	}
}
