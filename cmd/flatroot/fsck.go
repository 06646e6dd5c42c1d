package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/fsck"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

// The exit statuses of fsck, which are those of fsck(8).
const (
	fsckRepaired = 1
	fsckLeft     = 4
	fsckFailed   = 8
	fsckUsage    = 16
)

func fsckCommand() *command {
	return &command{
		name: "fsck", args: "[NAME...]", min: 0, max: -1,
		usage: "check the store, and repair it",
		about: aboutFsck + "\n\n" + aboutCodes(),
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "repair", Usage: "repair what can be repaired"},
			&cli.StringSliceFlag{Name: "from", Usage: "with --repair, take what is needed from `SOURCE` first, as pull names it; may be given several times"},
			&cli.BoolFlag{Name: "quick", Usage: "check structure, sizes and the kernel's fs-verity digests, and read no content"},
			&cli.BoolFlag{Name: "verify-tars", Usage: "hash the tar of every layer, also where this store did that before"},
			&cli.GenericFlag{Name: "since", Value: new(span), Usage: "leave out what was verified within `TIME`, such as 12h or 30d"},
			&cli.GenericFlag{Name: "rate", Value: new(amount), DefaultText: "no limit", Usage: "read at most `N` bytes a second; K, M and G may follow it"},
		},
		examples: []example{
			{"read everything, and say what is wrong", "flatroot fsck"},
			{"mend what is damaged, from an image at hand or from where it was pulled", "flatroot fsck --repair --from oci:backup/image:v2"},
			{"a little every night, each part once a month; one that is cut off goes on where it was", "flatroot fsck --since 30d --rate 50M"},
			{"the paths that can't be read any more", "flatroot fsck --json | jq -r 'select(.images) | .images[].paths[]'"},
		},
		exits: []exit{
			{exitOK, "The store is in order; there may be remarks."},
			{fsckRepaired, "Problems were found, and all of them repaired."},
			{fsckLeft, "Problems are left."},
			{fsckFailed, "The check could not be made."},
			{fsckUsage, "Wrong usage."},
		},
		usageExit: fsckUsage,
		run: func(ctx context.Context, v *invocation) error {
			o := fsckOptionsOf(v)
			if len(o.from) > 0 && !o.repair {
				return v.usagef("--from goes with --repair")
			}
			err := runFsck(ctx, v.console, o, v.stdout)
			var status *statusError
			if err != nil && !errors.As(err, &status) {
				err = &statusError{fsckFailed, err}
			}
			return err
		},
	}
}

const aboutFsck = `Reads every byte of every object, image and layer stream, several at a time, and compares what they hash to with their names. Checks, too, that names lead to what is there, that configs and manifests are those of their digests, that layers give back the tars of their diffIDs, that each image is the one that its layers come to, and what the store notes for itself. Of each problem it says which images it hits, and which paths in them. With NAMEs it checks just these images.

With --repair, damaged objects are restored from other streams of the store, from each --from, or from where their layers were pulled; only the layers that have them are read, and only until they are found. Layers' streams, configs, manifests and images are made anew; images must come out with the digests that they had. What was damaged is kept in flatroot/quarantine in the store until garbage is collected. What can't be repaired is told, with why.

Pulls and mounts go on beside it. It notes when each part was last verified, which --since goes by, and which objects are damaged: the next pull of an image that needs one brings it anew.

Content that the kernel has in its cache is not read from the disk again.`

// aboutCodes explains the codes of problems.
func aboutCodes() string {
	var b strings.Builder
	b.WriteString("Problems have these codes:\n\n")
	for _, c := range fsck.Codes() {
		if c.Severity == fsck.IsProblem {
			fmt.Fprintf(&b, "%s: %s\n\n", c.Code, c.About)
		}
	}
	b.WriteString("Remarks don't change the exit status:\n\n")
	for _, c := range fsck.Codes() {
		if c.Severity == fsck.IsRemark {
			fmt.Fprintf(&b, "%s: %s\n\n", c.Code, c.About)
		}
	}
	return strings.TrimSpace(b.String())
}

// fsckOptions are what the command line asks for.
type fsckOptions struct {
	fsck.Options
	repair bool
	from   []string
}

func fsckOptionsOf(v *invocation) fsckOptions {
	o := fsckOptions{
		Options: fsck.Options{Quick: v.Bool("quick"), VerifyTars: v.Bool("verify-tars"), Names: v.Args().Slice()},
		repair:  v.Bool("repair"), from: v.StringSlice("from"),
	}
	if s, ok := v.Generic("since").(*span); ok {
		o.Since = time.Duration(*s)
	}
	if a, ok := v.Generic("rate").(*amount); ok {
		o.Rate = int64(*a)
	}
	return o
}

// span is the value of a flag that is a time, of a number and a unit up to weeks.
type span time.Duration

// Set reads the flag's value.
func (s *span) Set(text string) error {
	unit := time.Duration(1)
	number := text
	for suffix, d := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if n, ok := strings.CutSuffix(text, suffix); ok {
			number, unit = n+"ns", d
		}
	}
	d, err := time.ParseDuration(number)
	if err != nil || d <= 0 || d > (1<<62)/unit {
		return errors.New("want a time above 0, such as 90m, 12h, 30d or 4w")
	}
	*s = span(d * unit)
	return nil
}

func (s *span) String() string {
	if *s == 0 {
		return ""
	}
	return time.Duration(*s).String()
}

func runFsck(ctx context.Context, c console, o fsckOptions, stdout io.Writer) error {
	open := c.checkedStore
	if o.repair {
		open = c.openStore
	}
	s, err := open()
	if err != nil {
		return err
	}
	defer s.Close()
	m := c.startCheckProgress()
	o.Progress = m
	r, err := o.check(ctx, c, s)
	m.stop()
	if err != nil {
		return err
	}
	if err := c.printFsck(stdout, r); err != nil {
		return err
	}
	return fsckStatus(r)
}

func (o *fsckOptions) check(ctx context.Context, c console, s *store.Store) (*fsck.Report, error) {
	if !o.repair {
		return fsck.Check(ctx, s, o.Options)
	}
	r := fsck.RepairOptions{Options: o.Options, Open: c.openOrigin}
	defer func() {
		for _, src := range r.Sources {
			src.Close()
		}
	}()
	for _, from := range o.from {
		src, _, err := c.openSource(from, oci.Platform{})
		if err != nil {
			return nil, fmt.Errorf("--from: %w", err)
		}
		r.Sources = append(r.Sources, src)
	}
	return fsck.Repair(ctx, s, r)
}

// openOrigin opens the place that a layer or manifest came from. The image there may have got another manifest meanwhile.
func (c *console) openOrigin(repository string, manifest digest.Digest) (oci.Source, error) {
	ref, err := oci.ParseReference(repository)
	if err != nil {
		return nil, err
	}
	if (ref.Transport == oci.Docker || ref.Transport == oci.OCI || ref.Transport == oci.OCIArchive) && manifest != "" {
		ref.Tag, ref.Digest = "", manifest
	}
	src, _, err := c.openSource(ref.String(), oci.Platform{})
	return src, err
}

// fsckStatus is the exit status for what was found.
func fsckStatus(r *fsck.Report) error {
	s := summaryOf(r)
	switch {
	case s.Problems == 0:
		return nil
	case s.Problems == s.Repaired:
		return &statusError{code: fsckRepaired}
	}
	return &statusError{code: fsckLeft}
}

// checkedStore opens the store so that the check can note what it finds, or else as it can be had.
func (c *console) checkedStore() (*store.Store, error) {
	s, err := c.openStore()
	if err == nil {
		return s, nil
	}
	if s, again := c.readStore(); again == nil {
		return s, nil
	}
	return nil, err
}

// problemLine is a problem in JSON.
type problemLine struct {
	Code       fsck.Code     `json:"code"`
	Severity   fsck.Severity `json:"severity"`
	Subject    string        `json:"subject"`
	Error      string        `json:"error"`
	Repairable bool          `json:"repairable"`
	Repaired   bool          `json:"repaired"`
	// NotRepaired is there if a repair was tried and failed.
	NotRepaired string     `json:"not_repaired,omitempty"`
	Images      []fsck.Hit `json:"images"`
}

// fsckSummary is the last line.
type fsckSummary struct {
	CheckedObjects    int64 `json:"checked_objects"`
	CheckedBytes      int64 `json:"checked_bytes"`
	Skipped           int64 `json:"skipped_objects"`
	Problems          int   `json:"problems"`
	Repaired          int   `json:"repaired"`
	Remarks           int   `json:"remarks"`
	Unreferenced      int64 `json:"unreferenced"`
	UnreferencedBytes int64 `json:"unreferenced_bytes"`
}

func summaryOf(r *fsck.Report) fsckSummary {
	s := fsckSummary{
		CheckedObjects: r.CheckedObjects, CheckedBytes: r.CheckedBytes, Skipped: r.Skipped,
		Problems: r.Count(fsck.IsProblem), Remarks: r.Count(fsck.IsRemark),
		Unreferenced: r.Unreferenced, UnreferencedBytes: r.UnreferencedBytes,
	}
	for _, p := range r.Problems {
		if p.Repaired && p.Severity == fsck.IsProblem {
			s.Repaired++
		}
	}
	return s
}

func (c *console) printFsck(w io.Writer, r *fsck.Report) error {
	for _, p := range r.Problems {
		if err := c.printProblem(w, p); err != nil {
			return err
		}
	}
	s := summaryOf(r)
	if c.json {
		return printJSON(w, s)
	}
	c.talk("%s", s.text())
	return nil
}

func (s fsckSummary) text() string {
	parts := []string{fmt.Sprintf("checked %s, %s read", counted(int(s.CheckedObjects), "object"), size(s.CheckedBytes))}
	if s.Skipped > 0 {
		parts = append(parts, fmt.Sprintf("%s verified before", counted(int(s.Skipped), "object")))
	}
	problems := "no problems"
	if s.Problems > 0 {
		problems = fmt.Sprintf("%s, %d repaired", counted(s.Problems, "problem"), s.Repaired)
	}
	parts = append(parts, problems)
	if s.Unreferenced > 0 {
		parts = append(parts, fmt.Sprintf("%s (%s) in no image: `flatroot gc` takes them", counted(int(s.Unreferenced), "object"), size(s.UnreferencedBytes)))
	}
	return strings.Join(parts, "; ")
}

// pathsShown is how many paths of an image are shown of one problem to people.
const pathsShown = 4

func (c *console) printProblem(w io.Writer, p *fsck.Problem) error {
	images := p.Images
	if images == nil {
		images = []fsck.Hit{}
	}
	if c.json {
		why := ""
		if p.NotRepaired != nil {
			why = p.NotRepaired.Error()
		}
		return printJSON(w, problemLine{p.Code, p.Severity, p.Subject, p.Err.Error(), p.Repairable, p.Repaired, why, images})
	}
	state := ""
	switch {
	case p.Repaired:
		state = " (repaired)"
	case p.Severity == fsck.IsRemark:
		state = " (remark)"
	}
	if _, err := fmt.Fprintf(w, "%s%s: %s: %s\n", p.Code, state, oneLine(p.Subject), oneLine(p.Err.Error())); err != nil {
		return err
	}
	if p.NotRepaired != nil {
		if _, err := fmt.Fprintf(w, "  not repaired: %s\n", oneLine(p.NotRepaired.Error())); err != nil {
			return err
		}
	}
	for _, h := range images {
		if _, err := fmt.Fprintf(w, "  in %s%s\n", oneLine(h.Name), oneLine(pathsText(h.Paths))); err != nil {
			return err
		}
	}
	return nil
}

func pathsText(paths []string) string {
	if len(paths) == 0 {
		return ""
	}
	text := ": " + strings.Join(paths[:min(pathsShown, len(paths))], ", ")
	if more := len(paths) - pathsShown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
