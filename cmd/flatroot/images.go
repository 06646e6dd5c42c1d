package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/store"
)

func imagesCommand() *command {
	return &command{
		name:  "images",
		usage: "list the images in the store",
		about: `Lists the names of images, and of each the beginning of its image's digest, the rules that made the tree, the number of its layers and the size of the EROFS image. Of an image index, which pull --platform all has stored, that is the image for this machine, if it lists one; below are all its images by their platforms. --json has the digests whole. An image that can't be read is told of on standard error; the others are listed, and the exit status is 1.`,
		examples: []example{
			{"all images", "flatroot images"},
			{"the digest of one, for a script", "flatroot images --json | jq -r 'select(.name == \"web\").image'"},
		},
		run: func(_ context.Context, v *invocation) error { return runImages(v.console, v.stdout) },
	}
}

// imageLine is an image in a listing.
type imageLine struct {
	Name       string             `json:"name"`
	Manifest   digest.Digest      `json:"manifest,omitempty"`
	Config     digest.Digest      `json:"config,omitempty"`
	Image      fsverity.Digest    `json:"image,omitzero"` // zero: an image index lists none for this machine
	Algorithm  fsverity.Algorithm `json:"algorithm,omitzero"`
	Rules      index.Rules        `json:"rules,omitempty"`
	ImageBytes int64              `json:"image_bytes"`
	Layers     int                `json:"layers"`
	// Index is the image index that the name stands for, Platforms its images.
	Index     digest.Digest `json:"index,omitempty"`
	Platforms []imageLine   `json:"platforms,omitempty"`
	Platform  string        `json:"platform,omitempty"` // of one of these
}

func imageLineOf(i *index.Info) imageLine {
	return imageLine{
		Name: i.Name, Manifest: i.Manifest, Config: i.Config, Image: i.Image, Algorithm: i.Image.Algorithm(),
		Rules: i.Rules, ImageBytes: i.ImageBytes, Layers: len(i.Layers), Index: i.Index, Platform: i.Platform.String(),
	}
}

// listImage is an image, or an image index with its images.
func listImage(s *store.Store, i *index.Info) (imageLine, error) {
	l := imageLineOf(i)
	if i.Index == "" {
		return l, nil
	}
	all, err := index.Platforms(s, i)
	if err != nil {
		return l, fmt.Errorf("image %s: %w", i.Name, err)
	}
	for _, i := range all {
		p := imageLineOf(i)
		p.Index = ""
		l.Platforms = append(l.Platforms, p)
	}
	return l, nil
}

// rows are its lines of the table.
func (l imageLine) rows() [][]string {
	rows := [][]string{l.row()}
	for _, p := range l.Platforms {
		row := p.row()
		row[0] = p.Name + " (" + p.Platform + ")"
		rows = append(rows, row)
	}
	return rows
}

func (l imageLine) row() []string {
	rules, layers := string(l.Rules), strconv.Itoa(l.Layers)
	if l.Image.IsZero() {
		return []string{l.Name, "-", "-", "-", "-"} // an image index that lists none for this machine
	}
	if l.Manifest == "" {
		rules, layers = "-", "-" // made from a dump
	}
	return []string{l.Name, short(l.Image.String()), rules, layers, size(l.ImageBytes)}
}

func runImages(c console, stdout io.Writer) error {
	s, err := c.readStore()
	if err != nil {
		return err
	}
	defer s.Close()
	rows := [][]string{{"NAME", "IMAGE", "RULES", "LAYERS", "SIZE"}}
	var failed error
	for i, err := range index.Images(s) {
		if err != nil {
			printError(c.stderr, err)
			failed = &statusError{code: exitFailed}
			continue
		}
		l, err := listImage(s, i)
		if err != nil {
			printError(c.stderr, err)
			failed = &statusError{code: exitFailed}
			continue
		}
		rows = append(rows, l.rows()...)
		if c.json {
			if err := printJSON(stdout, l); err != nil {
				return err
			}
		}
	}
	if !c.json && len(rows) > 1 {
		if err := table(stdout, rows); err != nil {
			return err
		}
	}
	return failed
}
