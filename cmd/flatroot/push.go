package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
)

func pushCommand() *command {
	return &command{
		name: "push", args: "NAME DEST", min: 2, max: 2,
		usage: "write an image to an OCI layout or archive",
		about: `Writes an image: the same layers, bit for bit the same tars, so that their diffIDs and the image's digest are the same wherever it is pulled. Layers are compressed anew, always in the same way, so the manifest may get another digest; it is printed.

DEST is oci:DIR[:NAME] or oci-archive:FILE[:NAME]. A layout is made if it is not there, and keeps the images that it has by other names; blobs that it has are not written again. An archive, a tar of a layout, holds the one image: it is written beside FILE and takes its place when it is whole. One that has other images is not replaced.`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "compress", Value: "gzip", Usage: "compress layers by `HOW`: gzip, zstd or none"},
		},
		examples: []example{
			{"an image as a directory that other tools read", "flatroot push web oci:web-layout:latest"},
			{"as one file", "flatroot push web oci-archive:web.tar:latest"},
		},
		run: func(ctx context.Context, v *invocation) error {
			o := index.PushOptions{Compression: v.String("compress")}
			switch o.Compression {
			case "gzip", "zstd", "none":
			default:
				return v.usagef("--compress=%s: want gzip, zstd or none", o.Compression)
			}
			return runPush(ctx, v.console, v.Args().Get(0), v.Args().Get(1), o, v.stdout)
		},
	}
}

func runPush(ctx context.Context, c console, name, dest string, o index.PushOptions, stdout io.Writer) (err error) {
	ref, err := oci.ParseReference(dest)
	if err != nil {
		return &usageError{command: "push", msg: err.Error()}
	}
	s, err := c.openStore() // blobs are compressed in it before they are pushed
	if err != nil {
		return err
	}
	defer s.Close()
	i, err := index.Find(s, name)
	if err != nil {
		return err
	}
	sink, err := openSink(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sink.Close()) }()
	m := c.startProgress()
	o.Progress = m
	r, err := index.Push(ctx, s, i, sink, o)
	m.stop()
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(stdout, r)
	}
	if c.progress != progressNone {
		c.talk("%s: %s, %d of them written (%s)", r.Name, counted(r.Layers.Total, "layer"), r.Layers.Fetched, size(r.Bytes))
	}
	_, err = fmt.Fprintln(stdout, r.Manifest)
	return err
}
