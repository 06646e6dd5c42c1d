package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
)

func pullCommand() *command {
	return &command{
		name: "pull", args: "SOURCE...", min: 1, max: -1,
		usage: "bring images into the store",
		about: `Brings images into the store: every file once, every layer once, and of each image one EROFS image of its whole tree, whose fs-verity digest is printed.

SOURCE is docker://HOST/REPOSITORY[:TAG][@DIGEST] for a registry or oci:DIR[:NAME] for an OCI image layout. The docker:// may be left out if there is a slash and what is before it has a dot or a colon or is localhost. Credentials are those that docker login and podman login leave.

Everything is hashed here, and compared with what manifest and config claim. A layer that the store has is not fetched again, and of a manifest that is complete in the store just its digest is asked for. Of a zstd:chunked layer in a registry just those files are fetched that other images from the same repository, or under the same name, don't have.

What the store has of the image is looked at: what is missing of it, has another length, or was noted as damaged by fsck is restored, and of a layer no more read than that takes. With --verify all of it is read, and whatever is not what its name says restored.

The name in the store is the reference's own name and tag unless --name gives another. An image that had the name before loses it.`,
		flags: append([]cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "name the image `NAME` in the store"},
			&cli.StringFlag{Name: "expect", Usage: "fail, and name nothing, unless the image has this `DIGEST`"},
			&cli.BoolFlag{Name: "verify", Usage: "read and hash all that the store has of the image, and restore what is damaged"},
		}, readingFlags()...),
		examples: []example{
			{"an image from a registry", "flatroot pull docker://docker.io/library/debian:13"},
			{"an image from an OCI layout, under another name", "flatroot pull oci:build/image:v2 --name web"},
			{"only if it is the very one that was tested", "flatroot pull registry.example.com/os:2026 --expect $(cat os.digest)"},
			{"make sure that all of it is as it was pulled", "flatroot pull --verify registry.example.com/os:2026"},
		},
		run: func(ctx context.Context, v *invocation) error {
			o, err := pullOptionsOf(v)
			if err != nil {
				return err
			}
			return runPull(ctx, v.console, o, v.stdout)
		},
	}
}

type pullOptions struct {
	sources []string
	name    string
	expect  fsverity.Digest
	verify  bool
	reading
}

func pullOptionsOf(v *invocation) (o pullOptions, err error) {
	o = pullOptions{sources: v.Args().Slice(), name: v.String("name"), verify: v.Bool("verify")}
	if o.reading, err = v.reading(); err != nil {
		return o, err
	}
	if o.expect, err = expectDigest(v.String("expect")); err != nil {
		return o, v.usagef("%v", err)
	}
	if len(o.sources) > 1 && (o.name != "" || !o.expect.IsZero()) {
		return o, v.usagef("--name and --expect are for one SOURCE")
	}
	if v.IsSet("name") {
		return o, checkName(o.name)
	}
	return o, nil
}

func runPull(ctx context.Context, c console, o pullOptions, stdout io.Writer) error {
	for _, source := range o.sources {
		if err := pullOne(ctx, c, o, source, stdout); err != nil {
			return err
		}
	}
	return nil
}

func pullOne(ctx context.Context, c console, o pullOptions, source string, stdout io.Writer) error {
	src, ref, err := openSource(source, o.platform)
	if err != nil {
		return err
	}
	defer src.Close()
	s, err := c.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	options := o.options()
	options.Name, options.Expect = o.name, o.expect
	options.Verify, options.ImageObjects = o.verify, imageObjects
	if options.Name == "" {
		options.Name = ref.Name()
	}
	m := c.startProgress()
	options.Progress = m
	r, err := index.Import(ctx, s, src, options)
	m.stop()
	if err != nil {
		return err
	}
	return printReport(c, stdout, r)
}

// imageObjects visits the objects of the image in a file, with their sizes.
func imageObjects(f *os.File, visit func(fsverity.Digest, int64) error) error {
	img, err := openWhole(f)
	if err != nil {
		return err
	}
	for o, err := range img.Objects() {
		if err == nil {
			err = visit(o.Digest, o.Size)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maxInMemory is the size in bytes of an image up to which it is read at once, which walks of it are faster by.
const maxInMemory = 64 << 20

func openWhole(f *os.File) (*erofs.Image, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > maxInMemory {
		return erofs.Open(f, st.Size())
	}
	b := make([]byte, st.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, err
	}
	return erofs.OpenBytes(b)
}

// printReport prints what an import did: the image's digest is the result, the rest is talk.
func printReport(c console, stdout io.Writer, r *index.Report) error {
	if c.json {
		return printJSON(stdout, r)
	}
	if c.progress != progressNone {
		c.talk("%s: %s, %d of them fetched (%s); %s new (%s) of %s; the image has %s",
			r.Name, counted(r.Layers.Total, "layer"), r.Layers.Fetched, size(r.Bytes.Fetched),
			counted(r.Objects.New, "object"), size(r.Bytes.ObjectsNew), counted(r.Objects.Total, "object"), size(r.ImageBytes))
		if h := r.Healed; h.Any() {
			c.talk("%s: restored %s, %s and %s that were damaged or missing", r.Name,
				counted(h.Objects, "object"), counted(h.Streams, "stream"), counted(h.Images, "image"))
		}
	}
	_, err := fmt.Fprintln(stdout, r.Image)
	return err
}
