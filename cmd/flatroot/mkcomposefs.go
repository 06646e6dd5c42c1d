package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
	"github.com/flatroot/flatroot/tree/dump"
)

const mkcomposefsUsage = `Usage: mkcomposefs [OPTIONS] SOURCE IMAGE
Options:
  --digest-store=PATH   Store content files in this directory
  --use-epoch           Make all mtimes zero
  --skip-devices        Don't store device nodes
  --skip-xattrs         Don't store file xattrs
  --user-xattrs         Only store user.* xattrs
  --print-digest        Print the digest of the image
  --print-digest-only   Print the digest of the image, don't write image
  --from-file           The source is a dump file, not a directory
  --min-version=N       Use this minimal format version (default=0)
  --max-version=N       Use this maximum format version (default=1)
  --threads=N           Use this many threads to compute digests and copy files (default=%d)
`

// errUsage is an error after which the tool's usage is shown.
type errUsage string

func (e errUsage) Error() string { return string(e) }

// mkcomposefsMain is the command run as mkcomposefs: the C tool, option for option. args has no program name.
func mkcomposefsMain(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	err := runMkcomposefs(args, stdin, stdout)
	if err == nil {
		return 0
	}
	var wrongOption optionError
	var wrongUse errUsage
	fmt.Fprintf(stderr, "mkcomposefs: %v\n", err)
	if errors.As(err, &wrongOption) || errors.As(err, &wrongUse) {
		fmt.Fprintf(stderr, mkcomposefsUsage, runtime.NumCPU())
	}
	return 1
}

// mkcomposefsOptions is the tool's command line.
type mkcomposefsOptions struct {
	source, image string // image "": none is written
	fromFile      bool
	printDigest   bool
	store         string
	format        erofs.Format
	scan          scanOptions
}

func runMkcomposefs(args []string, stdin io.Reader, stdout io.Writer) error {
	o, err := parseMkcomposefs(args)
	if err != nil {
		return err
	}
	if o.image == "-" && isTerminal(stdout) {
		return errors.New("stdout is a tty.  Refusing to use it")
	}
	t, err := o.readTree(stdin)
	if err != nil {
		return err
	}
	summary, err := o.write(t, stdout)
	if err != nil {
		return err
	}
	if o.printDigest {
		_, err = fmt.Fprintln(stdout, summary.Digest)
	}
	return err
}

func parseMkcomposefs(args []string) (*mkcomposefsOptions, error) {
	o := &mkcomposefsOptions{}
	var digestOnly, versionSet bool
	var minVersion, maxVersion int64
	version := func(v *int64) func(string) error {
		return func(s string) (err error) {
			versionSet = true
			*v, err = strconv.ParseInt(s, 10, 64)
			return err
		}
	}
	operands, err := parseCOptions(args, []cOption{
		{name: "digest-store", set: func(s string) error { o.store = s; return nil }},
		{name: "use-epoch", flag: func() { o.scan.epoch = true }},
		{name: "skip-devices", flag: func() { o.scan.skipDevices = true }},
		{name: "skip-xattrs", flag: func() { o.scan.skipXattrs = true }},
		{name: "user-xattrs", flag: func() { o.scan.userXattrs = true }},
		{name: "print-digest", flag: func() { o.printDigest = true }},
		{name: "print-digest-only", flag: func() { o.printDigest, digestOnly = true, true }},
		{name: "from-file", flag: func() { o.fromFile = true }},
		{name: "min-version", set: version(&minVersion)},
		{name: "max-version", set: version(&maxVersion)},
		{name: "threads", set: o.setThreads},
	})
	if err != nil {
		return nil, err
	}
	if !versionSet {
		maxVersion = 1
	}
	if o.format, err = formatOfRange(minVersion, maxVersion); err != nil {
		return nil, err
	}
	return o, o.setOperands(operands, digestOnly)
}

func (o *mkcomposefsOptions) setThreads(s string) error {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n <= 0 {
		return fmt.Errorf("invalid threads count %s", s)
	}
	o.scan.threads = int(n)
	return nil
}

func (o *mkcomposefsOptions) setOperands(operands []string, digestOnly bool) error {
	switch {
	case len(operands) == 0:
		return errUsage("no source path specified")
	case operands[0] == "":
		return errors.New("empty source path specified")
	case len(operands) > 2:
		return errUsage("too many arguments")
	case len(operands) == 1 && !digestOnly:
		return errUsage("no destination path specified")
	case len(operands) == 2 && digestOnly:
		return errUsage("cannot specify destination path with --print-digest-only")
	case o.scan.skipXattrs && o.scan.userXattrs && !o.fromFile:
		return errUsage("--skip-xattrs and --user-xattrs exclude each other")
	}
	o.source = operands[0]
	if !digestOnly {
		o.image = operands[1]
	}
	return nil
}

// formatOfRange is the image format that a range of versions stands for. As soon as one end is given the other is 0, and a
// maximum below the minimum is the minimum.
func formatOfRange(minVersion, maxVersion int64) (erofs.Format, error) {
	switch [2]int64{minVersion, max(minVersion, maxVersion)} {
	case [2]int64{0, 0}:
		return erofs.Format0, nil
	case [2]int64{0, 1}:
		return erofs.FormatAuto, nil
	case [2]int64{1, 1}:
		return erofs.Format1, nil
	}
	return 0, fmt.Errorf("format version %d to %d: there are only 0 and 1", minVersion, maxVersion)
}

func (o *mkcomposefsOptions) readTree(stdin io.Reader) (*tree.Tree, error) {
	if !o.fromFile {
		if o.store != "" {
			o.scan.keep = func(f *os.File, d fsverity.Digest) error { return storeObject(o.store, f, d) }
		}
		return scanDir(o.source, o.scan)
	}
	_, strict := os.LookupEnv("CFS_PARSE_STRICT")
	options := dump.Options{File: o.source, Algorithm: fsverity.SHA256, Strict: strict}
	if o.source == "-" {
		options.File = "stdin"
		return dump.Parse(stdin, options)
	}
	f, err := os.Open(o.source)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return dump.Parse(f, options)
}

func (o *mkcomposefsOptions) write(t *tree.Tree, stdout io.Writer) (erofs.Summary, error) {
	options := erofs.WriteOptions{Format: o.format}
	switch o.image {
	case "":
		return erofs.Write(io.Discard, t, options)
	case "-":
		return erofs.Write(stdout, t, options)
	}
	f, err := os.Create(o.image)
	if err != nil {
		return erofs.Summary{}, err
	}
	summary, err := erofs.Write(f, t, options)
	return summary, errors.Join(err, f.Close())
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
