package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/chunk"
	"github.com/flatroot/flatroot/chunk/pkgdb"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/files"
	"github.com/flatroot/flatroot/tree"
)

// sourceDateEpoch is the variable by which builds are told what time it is to be.
const sourceDateEpoch = "SOURCE_DATE_EPOCH"

func chunkCommand() *command {
	return &command{
		name: "chunk", args: "SOURCE [DEST]", min: 1, max: 2,
		usage: "cut an image into layers anew, so that updates fetch little",
		about: `Takes an image or a root directory apart into components, such as the files of a source package, and writes an OCI image in which components that change together share a layer. SOURCE is a name in the store, an image elsewhere, a directory or a tar; DEST is docker://HOST/REPOSITORY[:TAG], oci:DIR[:NAME] or oci-archive:FILE[:NAME], as for push. The digest of the manifest is printed.

The layers are planned from what is known of the past: changelogs and build times in the databases of dpkg, rpm, apk and pacman, and what earlier builds have recorded in the image. With a build before, DEST's own or --previous, a layer of which nothing has changed stays as it is, so that nobody fetches it again; only what changed is packed anew. Plans of rpm-ostree, rechunk and chunkah are read as well.

What is in which component can be said in a file (--mapping), or by the extended attributes user.component and user.update-interval. doc/chunking.md describes both, and how layers are planned.

Layers have no whiteouts and give the same tree in any order. Before anything is published, the tree of the new image is compared with SOURCE's. It is the same but for times: with --mtime=stable, files have the time that they had in the build before if nothing else changed, and directories one constant, so that a new time does not have a layer fetched again. --mtime=keep leaves all times, and the image's digest is that of SOURCE; --mtime=clamp has no time later than SOURCE_DATE_EPOCH.

An image that is elsewhere comes into the store, without a name: flatroot gc takes it away.`,
		flags: slices.Concat([]cli.Flag{
			&cli.IntFlag{Name: "max-layers", Value: chunk.DefaultLayers, Usage: fmt.Sprintf("write at most `N` layers, %d to %d", chunk.MinLayers, chunk.MaxLayers)},
			&cli.IntFlag{Name: "reserve", Usage: "of --max-layers, leave `N` to images that are made from this one"},
			&cli.StringFlag{Name: "previous", Usage: "the build before is the image `REF`; default: that at DEST; none: plan from nothing"},
			&cli.StringFlag{Name: "keep-base", Usage: "leave the lowest layers as they are: `N` of them, or those of the image REF"},
			&cli.StringFlag{Name: "mapping", Usage: "read from `FILE` which paths make components, and how often they change"},
			&cli.StringSliceFlag{Name: withoutPackages, Usage: "leave the package databases of `KIND` unread: dpkg, rpm, apk, pacman, or some with commas between them"},
			&cli.BoolFlag{Name: "split", Usage: "put programs and other files of large components apart"},
			&cli.StringFlag{Name: "mtime", Value: string(chunk.MtimeStable), Usage: "what becomes of times: `HOW` is keep, clamp or stable"},
			&cli.StringFlag{Name: "now", Usage: "count changes back from `TIME`, such as 2026-11-02; default: the newest change that is known"},
			&cli.StringFlag{Name: "every", Value: "weekly", Usage: "releases come every `INTERVAL`: daily, weekly, biweekly, monthly, quarterly, or days such as 10d"},
			&cli.StringFlag{Name: "compress", Value: "zstd", Usage: "compress layers by `HOW`: gzip, zstd, zstd:chunked or none"},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what the layers would be"},
			&cli.StringFlag{Name: "html", Usage: "write a page that shows the layers to `FILE`"},
			&cli.IntFlag{Name: "jobs", Value: chunkJobs(), DefaultText: "one for each processor, at most 8", Usage: "write and send `N` layers at once"},
			oneFileSystemFlag(),
			&cli.StringFlag{Name: "platform",
				Usage: "take the image for `OS/ARCH[/VARIANT]`, if there are several; that of a directory or a tar is for it; default: this machine's"},
		}, limitFlags()),
		examples: []example{
			{"an image of a registry, cut anew", "flatroot chunk docker://registry.example.com/os:build docker://registry.example.com/os:latest"},
			{"a root directory", "flatroot chunk ./rootfs oci:os:latest --mapping components.yaml"},
			{"the next version under its own tag", "flatroot chunk ./rootfs docker://registry.example.com/os:2 --previous docker://registry.example.com/os:1"},
			{"what the layers would be, and why", "flatroot chunk ./rootfs --dry-run --html layers.html"},
		},
		run: func(ctx context.Context, v *invocation) error {
			o, err := chunkOptionsOf(v)
			if err != nil {
				return err
			}
			return runChunk(ctx, v.console, o, v.stdout)
		},
	}
}

type chunkOptions struct {
	reading
	source, dest  string
	ref           oci.Reference // DEST
	layers        int
	previous      string
	keepBase      string
	mapping       *chunk.Mapping
	mappingFile   string
	without       []string // kinds of package databases
	split         bool
	mtime         chunk.MtimePolicy
	epoch         time.Time // zero: none
	now           time.Time
	every         time.Duration
	compression   string
	dryRun        bool
	html          string
	jobs          int
	oneFileSystem bool
}

func chunkOptionsOf(v *invocation) (o chunkOptions, err error) {
	o = chunkOptions{
		source: v.Args().Get(0), dest: v.Args().Get(1), previous: v.String("previous"), keepBase: v.String("keep-base"),
		mappingFile: v.String("mapping"), split: v.Bool("split"), compression: v.String("compress"), dryRun: v.Bool("dry-run"),
		html: v.String("html"), jobs: v.Int("jobs"), oneFileSystem: v.Bool("one-file-system"),
	}
	o.reading.limits = v.limits()
	if o.platform, err = v.platform(); err != nil {
		return o, err
	}
	if o.without, err = kindsOf(v); err != nil {
		return o, err
	}
	if o.layers, err = layersOf(v); err != nil {
		return o, err
	}
	if o.mtime, err = chunk.ParseMtimePolicy(v.String("mtime")); err != nil {
		return o, v.usagef("%v", err)
	}
	if o.epoch, err = readEpoch(); err != nil {
		return o, err
	}
	if o.mtime == chunk.MtimeClamp && o.epoch.IsZero() {
		return o, v.usagef("--mtime=clamp: set %s to the time that is to be the latest", sourceDateEpoch)
	}
	if o.now, err = readTime(v.String("now")); err != nil {
		return o, v.usagef("--now=%s: want a date such as 2026-11-02 or a time such as 2026-11-02T15:04:05Z", v.String("now"))
	}
	if o.every, err = chunk.ParseInterval(v.String("every")); err != nil {
		return o, v.usagef("--every: %v", err)
	}
	switch {
	case !slices.Contains(index.LayerCompressions(), o.compression):
		return o, v.usagef("--compress=%s: want one of %s", o.compression, strings.Join(index.LayerCompressions(), ", "))
	case o.dest == "" && !o.dryRun:
		return o, v.usagef("DEST is missing; --dry-run does without")
	}
	if err := v.checkJobs(o.jobs); err != nil {
		return o, err
	}
	if o.ref, err = readDest(o.dest); err != nil {
		return o, err
	}
	o.mapping, err = readMapping(o.mappingFile)
	return o, err
}

// readDest reads what is known of DEST without looking there, so that nobody has to wait to hear that it won't do.
func readDest(dest string) (ref oci.Reference, err error) {
	if dest == "" {
		return ref, nil
	}
	if ref, err = oci.ParseReference(dest); err == nil {
		err = ref.CheckWritable()
	}
	switch {
	case err != nil:
		return ref, &usageError{command: "chunk", msg: fmt.Sprintf("DEST %s: %v", dest, err)}
	case ref.Transport == oci.ContainersStorage:
		return ref, &hintError{fmt.Errorf("%s takes no compressed layers", ref), "write to oci:DIR, then flatroot pull and flatroot push bring it there"}
	case !canWrite(ref):
		return ref, noSink("chunk", ref)
	}
	return ref, nil
}

// chunkJobs is how many layers are written at once. A layer is compressed by one processor, and takes some 50 MB of memory
// meanwhile.
func chunkJobs() int { return min(runtime.GOMAXPROCS(0), 8) }

func layersOf(v *invocation) (int, error) {
	most, reserve := v.Int("max-layers"), v.Int("reserve")
	if most < chunk.MinLayers || most > chunk.MaxLayers {
		return 0, v.usagef("--max-layers=%d: want %d to %d", most, chunk.MinLayers, chunk.MaxLayers)
	}
	if reserve < 0 || most-reserve < chunk.MinLayers {
		return 0, v.usagef("--reserve=%d: of %d layers at least %d are needed here", reserve, most, chunk.MinLayers)
	}
	return most - reserve, nil
}

// withoutPackages is the flag that passes over databases of packages.
const withoutPackages = "without-packages"

// kindsOf reads which databases of packages are to be left alone.
func kindsOf(v *invocation) (kinds []string, err error) {
	for _, list := range v.StringSlice(withoutPackages) {
		for kind := range strings.SplitSeq(list, ",") {
			if !slices.Contains(pkgdb.Kinds(), kind) {
				return nil, v.usagef("--%s=%s: want one of %s, or some with commas between them",
					withoutPackages, list, strings.Join(pkgdb.Kinds(), ", "))
			}
			kinds = append(kinds, kind)
		}
	}
	return kinds, nil
}

// passOver says of an error that is about a database of packages how to do without that.
func passOver(err error) error {
	var of *pkgdb.Error
	if !errors.As(err, &of) {
		return err
	}
	return &hintError{
		err, fmt.Sprintf("--%s=%s leaves it unread: its packages' files are then put together by where they are", withoutPackages, of.Kind),
	}
}

// lastSecond is the last of the year 9999, in seconds since 1970: later times can't be written down in JSON.
const lastSecond = 253402300799

// readEpoch reads SOURCE_DATE_EPOCH (its specification, version 1.1).
func readEpoch() (time.Time, error) {
	text := os.Getenv(sourceDateEpoch)
	if text == "" {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 || seconds > lastSecond {
		return time.Time{}, &usageError{command: "chunk", msg: fmt.Sprintf("%s=%s is no number of seconds since 1970, or too far off", sourceDateEpoch, text)}
	}
	return time.Unix(seconds, 0).UTC(), nil
}

func readTime(text string) (t time.Time, err error) {
	if text == "" {
		return t, nil
	}
	if t, err = time.Parse(time.DateOnly, text); err != nil {
		t, err = time.Parse(time.RFC3339, text)
	}
	return t, err
}

func readMapping(path string) (*chunk.Mapping, error) {
	if path == "" {
		return nil, nil
	}
	b, err := readAtMost(path, chunk.MaxMapping+1)
	if err != nil {
		return nil, fmt.Errorf("--mapping: %w", err)
	}
	m, err := chunk.ParseMapping(b)
	if err != nil {
		return nil, fmt.Errorf("--mapping: %s: %w", path, err)
	}
	return m, nil
}

// readAtMost reads the beginning of a file, which may be a device or a pipe.
func readAtMost(path string, limit int64) (b []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.LimitReader(f, limit))
}

func runChunk(ctx context.Context, c console, o chunkOptions, stdout io.Writer) error {
	if err := checkPlaces(ctx, o); err != nil {
		return err
	}
	src, err := c.openChunkSource(ctx, o.source, o)
	if err != nil {
		return err
	}
	defer src.Close()
	j := &chunkJob{console: c, o: o, src: src}
	defer func() { j.before.close() }()
	if err := j.plan(ctx); err != nil {
		return err
	}
	e := j.planned.Explain(j.before.planOrNil())
	if err := writePage(o.html, src.name, e); err != nil {
		return err
	}
	if o.dryRun {
		return errors.Join(printExplanation(c, stdout, e), j.printBase(stdout))
	}
	r, err := j.write(ctx)
	if err != nil {
		return ofTempDir(err)
	}
	r.Plan = e
	if c.json {
		return printJSON(stdout, r)
	}
	if c.progress != progressNone {
		c.talk("%s", r)
	}
	_, err = fmt.Fprintln(stdout, r.Manifest)
	return err
}

// checkPlaces refuses a SOURCE or a DEST that won't do, before minutes of work.
func checkPlaces(ctx context.Context, o chunkOptions) error {
	if isPath(o.source) {
		if err := checkRoot(o.source, o); err != nil {
			return err
		}
	}
	if o.dryRun || o.ref.Transport != oci.OCI && o.ref.Transport != oci.OCIArchive {
		return nil
	}
	sink, err := openSink(ctx, o.ref, noMeter{})
	if err != nil {
		return err
	}
	return sink.Close()
}

// printBase says what is below the layers that were listed.
func (j *chunkJob) printBase(stdout io.Writer) error {
	if j.base == nil || j.json {
		return nil
	}
	text := "below them: " + counted(len(j.base.layers), "layer") + " of the base, unchanged"
	if j.base.above.Changes() {
		text += ", and one that says what of it has gone"
	}
	_, err := fmt.Fprintln(stdout, text)
	return err
}

// ofTempDir says of an error that is about the directory for layers on their way how another one is chosen.
func ofTempDir(err error) error {
	var of *fs.PathError
	if !errors.As(err, &of) || of.Path != files.TempDir() {
		return err
	}
	return &hintError{
		fmt.Errorf("keep layers until they are sent: %w", err),
		"layers are in " + of.Path + " until the image is whole; TMPDIR names another place, with room for all of them, compressed",
	}
}

// chunkJob is one image that is cut anew.
type chunkJob struct {
	console
	o       chunkOptions
	src     *chunkSource
	before  *chunkBefore // nil: there is none
	base    *chunkBase   // nil: no layers are kept
	claims  *chunk.Claims
	planned *chunk.Plan
}

// plan finds out what the layers are to be.
func (j *chunkJob) plan(ctx context.Context) error {
	databases, err := pkgdb.Read(chunk.FS(j.src.tree, j.src.content), pkgdb.ReadOptions{Without: j.o.without})
	if err != nil {
		return passOver(fmt.Errorf("%s: %w", j.src.name, err))
	}
	if err := j.findBefore(ctx); err != nil {
		return err
	}
	if err := j.hash(ctx); err != nil {
		return err
	}
	if err := j.readBase(ctx); err != nil {
		return err
	}
	if err := j.setMtimes(ctx); err != nil {
		return err
	}
	if err := j.compareBase(); err != nil {
		return err
	}
	j.claims, err = chunk.Claim(j.src.tree, chunk.ClaimOptions{
		Databases: databases, Mapping: j.o.mapping, Split: j.o.split, Content: j.src.content, Has: j.base.hasOrNil(),
	})
	if err != nil {
		return passOver(fmt.Errorf("%s: %w", j.src.name, err))
	}
	for _, r := range j.claims.Unused {
		j.talk("%s: line %d: warning: this rule of component %s has nothing: no file matches, or earlier rules have all that do",
			j.o.mappingFile, r.Line, r.Component)
	}
	if err := j.steadyMtimes(ctx); err != nil {
		return err
	}
	layers := j.o.layers - j.base.numLayers()
	switch {
	case j.base != nil && len(j.claims.Components) == 0: // the base has all, but for what has gone
		j.planned = &chunk.Plan{Now: j.clock()}
		return nil
	case layers < chunk.MinLayers:
		return fmt.Errorf("the base has %d layers, which leaves %d of %d: allow more with --max-layers", j.base.numLayers(), layers, j.o.layers)
	}
	j.planned, err = chunk.NewPlan(j.claims.Components, chunk.PlanOptions{MaxLayers: layers, Now: j.clock(), Step: j.o.every, Previous: j.before.planOrNil()})
	return err
}

// hash reads a directory's contents, if there is a build before to compare them with. If not, they are hashed when the layers
// are read back: see learn.
func (j *chunkJob) hash(ctx context.Context) error {
	if j.src.dir == nil || j.before == nil {
		return nil
	}
	m := j.startProgress()
	defer m.stop()
	return j.src.dir.Hash(ctx, m)
}

// setMtimes gives the tree the times that it is to have. What is above a base depends on those of the build before, so all of
// its tree is read then. Without a base that is left to steadyMtimes.
func (j *chunkJob) setMtimes(ctx context.Context) (err error) {
	var before *tree.Tree
	if j.base != nil && j.before != nil && j.o.mtime == chunk.MtimeStable {
		if before, err = j.readBefore(ctx, nil); err != nil {
			return err
		}
	}
	return j.normaliseMtimes(before)
}

func (j *chunkJob) normaliseMtimes(before *tree.Tree) error {
	return chunk.NormaliseMtimes(j.src.tree, chunk.MtimeOptions{
		Policy: j.o.mtime, Epoch: j.o.epoch, Previous: before, Base: j.base.treeOrNil(),
	})
}

// steadyMtimes gives what has not changed the times of the build before. Layers in which everything is as it is in the tree,
// times included, are not read for that: often nearly all.
func (j *chunkJob) steadyMtimes(ctx context.Context) error {
	if j.base != nil || j.before == nil || j.o.mtime != chunk.MtimeStable {
		return nil
	}
	others := j.before.others(j.claims.Components)
	if len(others) == 0 {
		return nil
	}
	before, err := j.readBefore(ctx, func(d oci.DiffID) bool { return others[d] })
	if err != nil {
		return err
	}
	if err := j.normaliseMtimes(before); err != nil {
		return err
	}
	j.claims.Measure(j.src.tree)
	return nil
}

// clock is the time that changes are counted back from. It must not be the time of the build, or the same tree would make
// another image tomorrow.
func (j *chunkJob) clock() time.Time {
	if !j.o.now.IsZero() || slices.ContainsFunc(j.claims.Components, func(c chunk.Component) bool { return len(c.Changes) > 0 }) {
		return j.o.now
	}
	var newest time.Time
	for n := range tree.Node(j.src.tree.Len()) {
		a := j.src.tree.Attr(n)
		if t := time.Unix(min(a.MtimeSec, lastSecond), int64(a.MtimeNsec)); t.After(newest) {
			newest = t
		}
	}
	return newest.UTC()
}
