package main

import (
	"context"
	"fmt"
	"io"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/store"
)

func duCommand() *command {
	return &command{
		name:  "du",
		usage: "show what images cost and share",
		about: `Shows for each image the bytes of all its objects, and of those that no other image has: what removing it would free. Then what all of them take together, what they would take if they shared nothing, and what no image has. An image of several names counts under the first.`,
		examples: []example{
			{"the image that frees most", "flatroot du --json | jq '.images | max_by(.own)'"},
		},
		run: func(_ context.Context, v *invocation) error { return runDu(v.console, v.stdout) },
	}
}

func runDu(c console, stdout io.Writer) error {
	s, err := c.readStore()
	if err != nil {
		return err
	}
	defer s.Close()
	u, err := index.DiskUsage(s, func(i *index.Info, visit func(fsverity.Digest) error) error {
		return visitImage(s, i.Image, visit)
	})
	if err != nil {
		return err
	}
	if c.json {
		if u.Images == nil {
			u.Images = []index.ImageUsage{}
		}
		return printJSON(stdout, u)
	}
	return printUsage(stdout, u)
}

// visitImage visits the objects that an image refers to and the store has: one that was made from a dump may have others
// elsewhere.
func visitImage(s *store.Store, d fsverity.Digest, visit func(fsverity.Digest) error) error {
	f, err := s.OpenObject(d)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	img, err := erofs.Open(f, st.Size())
	if err != nil {
		return err
	}
	for object, err := range img.Objects() {
		if err != nil {
			return err
		}
		has, err := s.HasObject(object.Digest)
		if err == nil && has {
			err = visit(object.Digest)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func printUsage(w io.Writer, u *index.Usage) error {
	rows := [][]string{{"NAME", "SIZE", "OWN"}}
	for _, i := range u.Images {
		rows = append(rows, []string{i.Name, size(i.Bytes), size(i.Own)})
	}
	if len(u.Images) > 0 {
		if err := table(w, rows); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "together %s, apart %s, in no image %s\n", size(u.Total), size(u.Apart), size(u.Others))
	return err
}
