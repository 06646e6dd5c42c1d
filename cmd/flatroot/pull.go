package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

func pullCommand() *command {
	return &command{
		name: "pull", args: "SOURCE...", min: 1, max: -1,
		usage: "bring images into the store",
		about: `Brings images into the store: every file once, every layer once, and of each image one EROFS image of its whole tree, whose fs-verity digest is printed.

SOURCE is docker://HOST/REPOSITORY[:TAG][@DIGEST] for a registry, oci:DIR[:NAME] for an OCI image layout, oci-archive:FILE[:NAME] for one in a tar, docker-archive:FILE[:NAME[:TAG]] for what docker save and podman save write, dir:DIR for what skopeo copies there, or containers-storage:NAME for an image that podman or skopeo has pulled. The docker:// may be left out if there is a slash and what is before it has a dot or a colon or is localhost. Credentials are those that docker login and podman login leave; mirrors, blocked and insecure registries are those of registries.conf, as containers-registries.conf(5) has it. An archive may be compressed with gzip or zstd; nothing of it is unpacked. Of several images in a layout or archive :@0 in place of a name is the first one.

What fails for a reason that may pass, of the network or of a registry that is busy or in trouble, is tried again a few times, and a layer that breaks off goes on where it was. What has come of a layer is kept until it is in the store, for the next pull to go on with should this one be killed; gc removes what is left of it.

A store of containers-storage is only read. Which one is said by storage.conf, or by [GRAPHROOT] or [DRIVER@GRAPHROOT+RUNROOT:OPTIONS] between the colon and NAME; DRIVER is overlay or vfs. @ and an ID name an image too. Of a store of one's own, files with other owners can be read in its user namespace: podman unshare flatroot pull.

Everything is hashed here, and compared with what manifest and config claim. A layer that the store has is not fetched again, and of a manifest that is complete in the store just its digest is asked for. Of a zstd:chunked layer in a registry just those files are fetched that other images from the same repository, or under the same name, don't have.

What the store has of the image is looked at: what is missing of it, has another length, or was noted as damaged by fsck is restored, and of a layer no more read than that takes. With --verify all of it is read, and whatever is not what its name says restored.

With --keep-blobs the blobs of layers, compressed as they are, stay in the store beside the files, so that push can send the very same image on, under the same manifest digest. They are written while the layers are read, and live as long as an image that they were kept for. Of a layer that the store has already the blob has to be fetched. Layers that are not compressed need no blob: push makes their tars anew, bit for bit.

The name in the store is the reference's own name and tag unless --name gives another. An image that had the name before loses it.

Of an image for several platforms, an image index, the one for this machine is pulled, or for the --platform that is asked for. With --platform all it is all of them, and the index with them: NAME then is the index, for commands that want one image the one for this machine, or for their --platform, and push sends all on. Nothing gets the name unless every image could be had. Each one's digest is printed with its platform. What builders say about images in an index, such as attestations, is kept, with its blobs if there is --keep-blobs. A SOURCE that is no image index is pulled as ever.

Of several SOURCEs one is pulled after the other, and each has its name as soon as it is there. One that can't be pulled does not keep the others out.

` + aboutSignatures,
		flags: append([]cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "name the image `NAME` in the store"},
			&cli.StringFlag{Name: "expect", Usage: "fail, and name nothing, unless the image has this `DIGEST`"},
			&cli.IntFlag{Name: "jobs", Usage: "read `N` layers at once", Value: index.DefaultJobs},
			&cli.BoolFlag{Name: "keep-blobs", Usage: "keep compressed layers as they are, for a push with the same manifest"},
			&cli.BoolFlag{Name: "verify", Usage: "read and hash all that the store has of the image, and restore what is damaged"},
		}, append(verifyFlags(), readingFlagsWith(pullPlatformFlag())...)...),
		examples: []example{
			{"an image from a registry", "flatroot pull docker://docker.io/library/debian:13"},
			{"all of an image for several platforms, to be sent on", "flatroot pull --platform all --keep-blobs registry.example.com/os:2026"},
			{"what docker save wrote", "flatroot pull docker-archive:images.tar:web:v2"},
			{"an image from an OCI layout, under another name", "flatroot pull oci:build/image:v2 --name web"},
			{"an image that podman has pulled already", "flatroot pull containers-storage:docker.io/library/debian:13"},
			{"only if it is the very one that was tested", "flatroot pull registry.example.com/os:2026 --expect $(cat os.digest)"},
			{"only if a key has signed it", "flatroot pull --verify-key cosign.pub registry.example.com/os:2026"},
			{"only if a program of one's own lets it in", `flatroot pull --verify-command 'may-run "$FLATROOT_IMAGE"' example.com/os:1`},
			{"make sure that all of it is as it was pulled", "flatroot pull --verify registry.example.com/os:2026"},
		},
		exits: []exit{{exitOK, "Done."}, {exitFailed, "Failed, or one of several SOURCEs has."}, {exitUsage, "Wrong usage."}},
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
	jobs    int
	keep    bool // blobs
	all     bool // platforms
	verifying
	reading
}

func pullOptionsOf(v *invocation) (o pullOptions, err error) {
	o = pullOptions{sources: v.Args().Slice(), name: v.String("name"), verify: v.Bool("verify"), jobs: v.Int("jobs"), keep: v.Bool("keep-blobs")}
	if o.reading, err = v.readingAny(); err != nil {
		return o, err
	}
	if o.all = v.String("platform") == allPlatforms; !o.all {
		if o.platform, err = v.platform(); err != nil {
			return o, err
		}
	}
	if o.expect, err = expectDigest(v.String("expect")); err != nil {
		return o, v.usagef("%v", err)
	}
	if err := v.checkJobs(o.jobs); err != nil {
		return o, err
	}
	if len(o.sources) > 1 && (o.name != "" || !o.expect.IsZero()) {
		return o, v.usagef("--name and --expect are for one SOURCE")
	}
	if o.all && (!o.expect.IsZero() || o.rules != index.OCI1) {
		return o, v.usagef("--expect and --rules are for one image, not for --platform all")
	}
	if v.IsSet("name") {
		if err := checkName(o.name); err != nil {
			return o, err
		}
	}
	for _, source := range o.sources { // before the first one is pulled
		if _, err := oci.ParseReference(source); err != nil {
			return o, &usageError{msg: err.Error(), hint: sourceHint(source)}
		}
	}
	o.verifying, err = v.verifying()
	return o, err
}

// allPlatforms is the value of pull's --platform that stands for all of an image index.
const allPlatforms = "all"

func pullPlatformFlag() cli.Flag {
	return &cli.StringFlag{Name: "platform",
		Usage: "of an image for several platforms take the one for `OS/ARCH[/VARIANT]`, or all; default: this machine's"}
}

// maxJobs bounds the layers that are worked on at once: more take memory, and bring nothing.
const maxJobs = 64

func (v *invocation) checkJobs(n int) error {
	if n < 1 || n > maxJobs {
		return v.usagef("--jobs=%d: want 1 to %d", n, maxJobs)
	}
	return nil
}

func runPull(ctx context.Context, c console, o pullOptions, stdout io.Writer) error {
	s, err := c.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	failed := 0
	for _, source := range o.sources {
		err := pullOne(ctx, c, s, o, source, stdout)
		if err != nil && (len(o.sources) == 1 || ctx.Err() != nil) {
			return err
		}
		if err != nil {
			failed++
			printError(c.stderr, err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d images could not be pulled", failed, len(o.sources))
	}
	return nil
}

func pullOne(ctx context.Context, c console, s *store.Store, o pullOptions, source string, stdout io.Writer) error {
	m := c.startProgress()
	r, err := pullWith(ctx, c, s, o, source, m)
	m.stop()
	if err != nil {
		return err
	}
	if r.Index != "" {
		return printIndexReport(c, stdout, r)
	}
	return printReport(c, stdout, r.Images[0])
}

// pullWith gives the report of one image as that of an index that is none.
func pullWith(ctx context.Context, c console, s *store.Store, o pullOptions, source string, m meter) (*index.ImageIndexReport, error) {
	src, ref, err := c.openSourceTold(source, o.platform, m)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	options := o.options()
	options.Name, options.Expect, options.Jobs, options.Progress = o.name, o.expect, o.jobs, m
	options.Verify, options.ImageObjects, options.KeepBlobs = o.verify, imageObjects, o.keep
	options.Accept = o.accept(c, ref, src)
	if options.Name == "" {
		options.Name = ref.Name()
	}
	if o.all {
		return index.ImportAll(ctx, s, src, options)
	}
	r, err := index.Import(ctx, s, src, options)
	return &index.ImageIndexReport{Images: []*index.Report{r}}, err
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
	c.talkReport(r.Name, r)
	_, err := fmt.Fprintln(stdout, r.Image)
	return err
}

// talkReport says what an import did of an image.
func (c console) talkReport(name string, r *index.Report) {
	if c.progress == progressNone {
		return
	}
	fetched := size(r.Bytes.Fetched)
	if r.Bytes.Resumed > 0 {
		fetched += ", and " + size(r.Bytes.Resumed) + " by an earlier pull"
	}
	c.talk("%s: %s, %d of them fetched (%s); %s new (%s) of %s; the image has %s",
		name, counted(r.Layers.Total, "layer"), r.Layers.Fetched, fetched,
		counted(r.Objects.New, "object"), size(r.Bytes.ObjectsNew), counted(r.Objects.Total, "object"), size(r.ImageBytes))
	if b := r.Blobs; b.New > 0 {
		c.talk("%s: kept %s as they are, %d of them new (%s)", name, counted(b.Total, "blob"), b.New, size(b.BytesNew))
	}
	c.talkHealed(name, r.Healed)
	c.talkSigned(name, r.SignedBy)
}

func (c console) talkHealed(name string, h index.HealCounts) {
	if h.Any() {
		c.talk("%s: restored %s, %s and %s that were damaged or missing", name,
			counted(h.Objects, "object"), counted(h.Streams, "stream"), counted(h.Images, "image"))
	}
}

func (c console) talkSigned(name string, keys []digest.Digest) {
	for _, key := range keys {
		c.talk("%s: signed by %s", name, key)
	}
}

// printIndexReport prints what the import of an image index did: the digests of its images are the result.
func printIndexReport(c console, stdout io.Writer, r *index.ImageIndexReport) error {
	if c.json {
		return printJSON(stdout, r)
	}
	for _, i := range r.Images {
		c.talkReport(r.Name+" ("+i.Platform+")", i)
	}
	if c.progress != progressNone {
		c.talk("%s: image index %s of %s and %s", r.Name, r.Index, counted(len(r.Images), "image"), counted(r.Others.Total, "other manifest"))
		c.talkHealed(r.Name, r.Healed)
		c.talkSigned(r.Name, r.SignedBy)
	}
	for _, i := range r.Images {
		if _, err := fmt.Fprintln(stdout, i.Image, oneLine(i.Platform)); err != nil {
			return err
		}
	}
	return nil
}
