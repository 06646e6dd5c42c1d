package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/chunk"
	"github.com/flatroot/flatroot/chunk/picture"
	"github.com/flatroot/flatroot/oci"
)

func chunksCommand() *command {
	return &command{
		name: "chunks", args: "IMAGE", min: 1, max: 1,
		usage: "show what is in the layers of an image, and what updates cost",
		about: `Lists the layers of an image with the components in them, as the image's plan records them: how large they are, how likely the next update fetches them, and what it is expected to fetch of each. IMAGE is a name in the store or an image elsewhere, of which manifest and config are read. Of an image that flatroot chunk has not cut the layers are listed from the lowest up, with their sizes as they are stored, compressed, and the components that chunkah, rpm-ostree or rechunk say are in them, else what the history says.`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "html", Usage: "write a page that shows the layers to `FILE`"}, platformFlag(),
		},
		examples: []example{{"what an image's layers are", "flatroot chunks docker://registry.example.com/os:latest"}},
		run: func(ctx context.Context, v *invocation) error {
			p, err := v.platform()
			if err != nil {
				return err
			}
			return runChunks(ctx, v.console, v.Args().First(), p, v.String("html"), v.stdout)
		},
	}
}

func runChunks(ctx context.Context, c console, arg string, p oci.Platform, html string, stdout io.Writer) error {
	f, err := c.find(arg, treeOptions{reading: reading{platform: p}})
	if err != nil {
		return err
	}
	defer f.Close()
	img, err := f.documents(ctx)
	if err != nil {
		return err
	}
	labels, err := labelsOf(img.Config)
	if err != nil {
		return fmt.Errorf("%s: %w", arg, err)
	}
	if _, own := labels[chunk.PlanLabel]; !own {
		return c.survey(stdout, arg, img, html)
	}
	plan, err := chunk.ReadPrevious(labels, descriptorsOf(img))
	if err != nil {
		return fmt.Errorf("%s: %w", arg, err)
	}
	e := plan.Explain()
	if err := writePage(html, arg, e); err != nil {
		return err
	}
	return printExplanation(c, stdout, e)
}

// survey lists the layers of an image that flatroot has not cut, lowest first, as far as it says what is in them.
func (c *console) survey(stdout io.Writer, arg string, img *oci.Image, html string) error {
	if html != "" {
		return &hintError{
			fmt.Errorf("--html=%s: flatroot chunk has not cut %s, so that no sizes are known that a page could show", html, arg),
			"flatroot chunk --dry-run --html shows how it would cut it",
		}
	}
	s, err := chunk.NewSurvey(img)
	if err != nil {
		return fmt.Errorf("%s: %w", arg, err)
	}
	if c.json {
		return printJSON(stdout, s)
	}
	rows := [][]string{{"LAYER", "COMPRESSED", "COMPONENTS"}}
	for n, l := range s.Layers {
		what := nameList(l.Components)
		if what == "" && l.History != "" {
			what = "history: " + oci.Printable(l.History, maxHistory)
		}
		rows = append(rows, []string{fmt.Sprint(n + 1), size(l.Size), what})
	}
	if err := table(stdout, rows); err != nil {
		return err
	}
	if err := printGroups(stdout, s.Groups); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "\n%s, %s compressed; %s: what updates fetch is not known\n",
		counted(len(s.Layers), "layer"), size(s.Size), cutBy(s.Tool))
	return err
}

// maxHistory is how much of a command in the history is shown, in bytes.
const maxHistory = 80

func printGroups(w io.Writer, groups [][]string) error {
	if len(groups) == 0 {
		return nil
	}
	rows := [][]string{{"GROUP", "COMPONENTS (which layer has a group is not said)"}}
	for n, names := range groups {
		rows = append(rows, []string{fmt.Sprint(n + 1), nameList(names)})
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return table(w, rows)
}

func cutBy(tool string) string {
	if tool == "" {
		return "not cut by flatroot chunk"
	}
	return "cut by " + tool
}

// layered is what an argument leads to, if it has layers.
func (f *found) layered() (oci.Source, error) {
	switch {
	case f.source != nil:
		return f.source, nil
	case f.info != nil && f.info.Manifest != "":
		return newStoredSource(f.store, f.info), nil
	}
	return nil, fmt.Errorf("%s is no image with layers", f.arg)
}

// documents are manifest and config of what an argument leads to, with the layers as these list them.
func (f *found) documents(ctx context.Context) (*oci.Image, error) {
	src, err := f.layered()
	if err != nil {
		return nil, err
	}
	if f.source == nil {
		return documentsOf(f.info)
	}
	return src.Image(ctx)
}

func labelsOf(config []byte) (map[string]string, error) {
	var c struct {
		Config struct{ Labels map[string]string } `json:"config"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return c.Config.Labels, nil
}

func descriptorsOf(img *oci.Image) (ds []ocispec.Descriptor) {
	for _, l := range img.Layers {
		ds = append(ds, l.Descriptor)
	}
	return ds
}

// writePage writes an explanation as HTML.
func writePage(path, title string, e *chunk.Explanation) error {
	if path == "" {
		return nil
	}
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(picture.Write(f, e, picture.Options{Title: title, Bytes: size}), f.Close())
	}
	if err != nil {
		return fmt.Errorf("--html: %w", err)
	}
	return nil
}

// printExplanation lists layers, the least likely to change first, and then what updates come to.
func printExplanation(c console, stdout io.Writer, e *chunk.Explanation) error {
	if c.json {
		return printJSON(stdout, e)
	}
	rows := [][]string{{"LAYER", "SIZE", "CHANCE", "COST", "", "COMPONENTS"}}
	for n, l := range e.Layers {
		rows = append(rows, []string{fmt.Sprint(n + 1), size(l.Size), chance(l.Chance), size(l.Cost), kept(l), componentList(l)})
	}
	if err := table(stdout, rows); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\n%s, %s; the next update is expected to fetch %s in %.1f layers\n",
		counted(len(e.Layers), "layer"), size(e.Size), size(e.NextBytes), float64(e.NextLayers)/1000)
	return printUpdate(stdout, e.Update)
}

func chance(perMillion int64) string { return fmt.Sprintf("%.1f %%", float64(perMillion)/10_000) }

func kept(l chunk.ExplainedLayer) string {
	if l.Kept {
		return "kept"
	}
	return ""
}

// listedComponents is how many components of a layer are listed; the page and --json have all.
const listedComponents = 4

func componentList(l chunk.ExplainedLayer) string {
	var names []string
	for _, c := range l.Components {
		names = append(names, c.Name)
	}
	return nameList(names)
}

func nameList(names []string) string {
	if more := len(names) - listedComponents; more > 0 {
		names = append(slices.Clone(names[:listedComponents]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, " ")
}

func printUpdate(w io.Writer, u *chunk.Update) error {
	if u == nil {
		return nil
	}
	_, err := fmt.Fprintf(w, "from the build before (%s): %s kept (%s), %d to fetch (%s), of which %s changed: %s changed, %d added, %d removed\n",
		u.From, counted(u.KeptLayers, "layer"), size(u.KeptBytes), u.Layers, size(u.Bytes), size(u.Least),
		counted(len(u.Changed), "component"), len(u.Added), len(u.Removed))
	return err
}
