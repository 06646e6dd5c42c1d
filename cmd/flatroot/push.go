package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

func pushCommand() *command {
	return &command{
		name: "push", args: "NAME DEST", min: 2, max: 2,
		usage: "write an image to a registry, a file or podman's storage",
		about: `Writes an image: the same layers, bit for bit the same tars, so that their diffIDs and the image's digest are the same wherever it is pulled. The digest of the manifest at the destination is printed.

DEST is docker://HOST/REPOSITORY[:TAG] for a registry, oci:DIR[:NAME] for an OCI layout, oci-archive:FILE[:NAME] for one in a tar, or containers-storage:NAME for where podman has its images. Blobs that are there are not written again, and a registry is asked to take over from another of its repositories what came from there. A layout is made if it is not there, is taken away again if the push fails, and keeps the images that it has by other names. An archive, a tar of a layout, holds the one image: it is written beside FILE and takes its place when it is whole. One that has other images is not replaced. With a digest, docker://HOST/REPOSITORY[:TAG]@DIGEST, only a manifest of that digest is written. Credentials are those that docker login and podman login leave.

The manifest stays the same, with its digest, where all layers can be sent as they were: those that pull --keep-blobs has kept, those that the destination has, and tars that are not compressed. All others are compressed anew, always in the same way, and the manifest gets another digest; --compress=original refuses instead.

What pull --platform all has stored is sent whole: the images of all platforms, then the image index that lists them, whose digest is printed. It stays the same where all manifests do, and what it lists besides images was kept with its blobs; else it is rewritten, with the images alone, and --compress=original refuses. --platform sends one image of it.

Several layers are compressed and sent at once, as many as --jobs says. Where one fails, the layers below it are sent to their ends, and those above it no farther.

A blob on its way to a registry that is cut off goes on from where the registry has it, after a pause that becomes longer; after six failures in a row the push fails. The manifest comes last, so that a push that fails leaves the tag as it was.

A store of containers-storage is written by the library that podman, buildah, CRI-O and skopeo use, with the drivers overlay and vfs; which store is said as for pull. Layers are unpacked there, those that it has are shared, and the manifest stays the one that the image has, as after podman pull; with --compress=none it lists tars. A NAME without a registry is docker.io's. Only root can write there; into a store of one's own: podman unshare flatroot push. What a push that fails has put in, it takes out again.`,
		flags: []cli.Flag{
			ofIndexFlag(),
			&cli.IntFlag{Name: "jobs", Usage: "compress and send `N` layers at once", Value: index.DefaultJobs},
			&cli.StringFlag{Name: "compress", Value: index.AsCanBe, Usage: "send layers by `HOW`: original (as they were), gzip, zstd, none, or auto, which is original where it can be and else gzip"},
		},
		examples: []example{
			{"an image to a registry", "flatroot push web docker://registry.example.com/team/web:v2"},
			{"an image as a directory that other tools read", "flatroot push web oci:web-layout:latest"},
			{"as one file", "flatroot push web oci-archive:web.tar:latest"},
			{"to where podman run finds it", "flatroot push web containers-storage:localhost/web:v2"},
			{"an image for several platforms from one registry to another", "flatroot pull --platform all --keep-blobs docker://docker.io/library/debian:13 && flatroot push debian:13 docker://registry.example.com/debian:13"},
			{"from one registry to another with the same manifest", "flatroot pull --keep-blobs docker://docker.io/library/debian:13 && flatroot push debian:13 --compress original docker://registry.example.com/debian:13"},
		},
		run: func(ctx context.Context, v *invocation) error {
			o := index.PushOptions{Compression: v.String("compress"), Jobs: v.Int("jobs")}
			if !slices.Contains(index.Compressions(), o.Compression) {
				return v.usagef("--compress=%s: want one of %s", o.Compression, strings.Join(index.Compressions(), ", "))
			}
			platform, err := v.platform()
			if err != nil {
				return err
			}
			if err := v.checkJobs(o.Jobs); err != nil {
				return err
			}
			return runPush(ctx, v.console, v.Args().Get(0), v.Args().Get(1), platform, o, v.stdout)
		},
	}
}

func runPush(ctx context.Context, c console, name, dest string, platform oci.Platform, o index.PushOptions, stdout io.Writer) (err error) {
	ref, err := oci.ParseReference(dest)
	if err != nil {
		return &usageError{command: "push", msg: err.Error()}
	}
	s, err := c.openStore() // blobs are compressed in it before they are pushed
	if err != nil {
		return err
	}
	defer s.Close()
	send, err := findToPush(s, name, platform)
	if err != nil {
		return err
	}
	m := c.startProgress()
	sink, err := openSink(ctx, ref, m)
	if err != nil {
		m.stop()
		return err
	}
	defer func() { err = errors.Join(err, sink.Close()) }()
	o.Progress = m
	r, err := send(ctx, sink, o)
	m.stop()
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(stdout, r)
	}
	if c.progress != progressNone {
		c.talk("%s", pushed(r))
	}
	_, err = fmt.Fprintln(stdout, r.Manifest)
	return err
}

// findToPush finds what a name stands for, an image or all of an image index, and how it is pushed.
func findToPush(s *store.Store, name string, p oci.Platform) (func(context.Context, oci.Sink, index.PushOptions) (*index.PushReport, error), error) {
	if p == (oci.Platform{}) {
		x, err := index.FindImageIndex(s, name)
		if err != nil {
			return nil, err
		}
		if x != nil {
			return func(ctx context.Context, to oci.Sink, o index.PushOptions) (*index.PushReport, error) {
				return index.PushImageIndex(ctx, s, x, to, o)
			}, nil
		}
	}
	i, err := index.FindFor(s, name, p)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, to oci.Sink, o index.PushOptions) (*index.PushReport, error) {
		return index.Push(ctx, s, i, to, o)
	}, nil
}

// pushed says what a push did.
func pushed(r *index.PushReport) string {
	text := fmt.Sprintf("%s: %s, %d of them written (%s)", r.Name, counted(r.Layers.Total, "layer"), r.Layers.Fetched, size(r.Bytes))
	if r.Mounted > 0 {
		text += fmt.Sprintf(", %d taken over from another repository", r.Mounted)
	}
	if len(r.Images) > 0 {
		return text + "; " + pushedIndex(r)
	}
	if r.SameManifest {
		return text + "; the manifest is the one that the image has"
	}
	return text + fmt.Sprintf("; the manifest is another one, as %s not sent as they were", wereNot(r.Layers.Total-r.Originals))
}

func pushedIndex(r *index.PushReport) string {
	if r.SameManifest {
		return "the image index is the one that it was"
	}
	text := "the image index is another one"
	if n := r.Layers.Total - r.Originals; n > 0 {
		text += ", as " + wereNot(n) + " not sent as they were"
	}
	if r.LeftOut > 0 {
		text += fmt.Sprintf(", without %s that no image has", counted(r.LeftOut, "manifest"))
	}
	return text
}

func wereNot(n int) string {
	if n == 1 {
		return "1 layer was"
	}
	return fmt.Sprintf("%d layers were", n)
}
