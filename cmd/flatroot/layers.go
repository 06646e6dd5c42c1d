package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

func layersCommand() *command {
	return &command{
		name: "layers", args: "[NAME]", max: 1,
		usage: "list the layers of all images or of one",
		about: `Lists layers by their diffIDs, the digests of their tars: of all images in byte order, of one image from the lowest up. BLOB is the layer's size at the source, TAR its size uncompressed, OBJECTS the number of objects that it refers to, IMAGES the number of names that have it.`,
		examples: []example{
			{"layers that several images share", "flatroot layers --json | jq 'select(.images | length > 1)'"},
		},
		run: func(_ context.Context, v *invocation) error { return runLayers(v.console, v.Args().First(), v.stdout) },
	}
}

// layerLine is a layer in a listing.
type layerLine struct {
	DiffID    oci.DiffID      `json:"diff_id"`
	Blob      digest.Digest   `json:"blob"`
	BlobBytes int64           `json:"blob_bytes"`
	MediaType string          `json:"media_type"`
	Stream    fsverity.Digest `json:"stream"`
	TarBytes  int64           `json:"tar_bytes"`
	Objects   int             `json:"objects"`
	BlobKept  bool            `json:"blob_kept"`
	Images    []string        `json:"images"`
}

func layerLineOf(l index.LayerInfo, images ...string) layerLine {
	return layerLine{l.DiffID, l.Blob, l.BlobSize, l.MediaType, l.Stream, l.TarSize, l.Objects, !l.Kept.IsZero(), images}
}

func (l *layerLine) row() []string {
	return []string{l.DiffID.String(), size(l.BlobBytes), size(l.TarBytes), strconv.Itoa(l.Objects), strconv.Itoa(len(l.Images))}
}

func runLayers(c console, name string, stdout io.Writer) error {
	s, err := c.readStore()
	if err != nil {
		return err
	}
	defer s.Close()
	lines, err := listLayers(s, name)
	if err != nil {
		return err
	}
	rows := [][]string{{"DIFFID", "BLOB", "TAR", "OBJECTS", "IMAGES"}}
	for _, l := range lines {
		rows = append(rows, l.row())
		if c.json {
			if err := printJSON(stdout, l); err != nil {
				return err
			}
		}
	}
	if c.json || len(lines) == 0 {
		return nil
	}
	return table(stdout, rows)
}

// addLayers adds those of an image.
func addLayers(all map[oci.DiffID]*layerLine, i *index.Info) {
	for _, l := range i.Layers {
		line := all[l.DiffID]
		if line == nil {
			line = new(layerLineOf(l))
			all[l.DiffID] = line
		}
		line.BlobKept = line.BlobKept || !l.Kept.IsZero()
		if !slices.Contains(line.Images, i.Name) {
			line.Images = append(line.Images, i.Name)
		}
	}
}

// listLayers collects the layers of all images, or those of the one with a name, each with all images that have it.
func listLayers(s *store.Store, name string) ([]*layerLine, error) {
	all := map[oci.DiffID]*layerLine{}
	for i, err := range index.Images(s) {
		if err != nil {
			return nil, err
		}
		platforms, err := index.Platforms(s, i)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", i.Name, err)
		}
		for _, i := range platforms {
			addLayers(all, i)
		}
	}
	var lines []*layerLine
	if name == "" {
		for _, d := range slices.Sorted(maps.Keys(all)) {
			lines = append(lines, all[d])
		}
		return lines, nil
	}
	i, err := index.Find(s, name)
	if err != nil {
		return nil, err
	}
	for _, l := range i.Layers {
		lines = append(lines, all[l.DiffID])
	}
	return lines, nil
}
