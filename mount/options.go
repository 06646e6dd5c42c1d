package mount

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/fsverity"
)

// Options is what the list after -o of mount(8) says. Parse may be called for
// several lists, one after another; of an option given twice the last counts.
type Options struct {
	Store       string   // directory of the store; empty: not said
	Basedirs    []string // object directories, in search order
	Digest      fsverity.Digest
	Verity      *Policy // nil: not said
	TryVerity   bool    // mount.composefs's way of saying verity=auto
	Mode        Mode
	Passthrough bool
	Check       bool
	UpperDir    string
	WorkDir     string
	Transient   bool
	IDMap       string // path of a user namespace
	AllowOther  bool
	Log         string // file for the messages of FUSE servers
	NoSuid      bool
	NoDev       bool
	NoExec      bool
	ReadOnly    bool // ro was said
	ReadWrite   bool // rw was said
}

// OptionError is a mistake in a list of options; its text says which and, where
// a typing error is likely, what was meant.
type OptionError struct{ msg string }

func (e *OptionError) Error() string { return e.msg }

func badOption(format string, a ...any) error {
	return &OptionError{fmt.Sprintf(format, a...)}
}

// ParseOptions reads one list of options and checks that they go together. With
// sloppy, as mount(8)'s -s wants it, names that aren't known are ignored.
func ParseOptions(list string, sloppy bool) (Options, error) {
	var o Options
	if err := o.Parse(list, sloppy); err != nil {
		return o, err
	}
	return o, o.Validate()
}

// Parse reads one list of options, separated by commas. A backslash takes the
// next character literally. Errors are of type *OptionError.
func (o *Options) Parse(list string, sloppy bool) error {
	table := optionTable()
	for _, item := range splitOptions(list) {
		if item == "" {
			continue // "a,,b", which mount(8) makes itself
		}
		if err := o.parseOne(table, item, sloppy); err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) parseOne(table []optionSpec, item string, sloppy bool) error {
	name, value, hasValue := strings.Cut(item, "=")
	if foreignOption(name) {
		return nil
	}
	if why, ok := refusedOptions[name]; ok {
		return badOption("option %s %s", name, why)
	}
	i := slices.IndexFunc(table, func(s optionSpec) bool { return s.name == name })
	if i < 0 {
		if sloppy {
			return nil
		}
		return unknownOption(table, name)
	}
	return table[i].apply(o, value, hasValue)
}

func unknownOption(table []optionSpec, name string) error {
	var names []string
	for _, s := range table {
		names = append(names, s.name)
	}
	if n := Nearest(name, names); n != "" {
		return badOption("unknown option %s; did you mean %s?", name, n)
	}
	return badOption("unknown option %s", name)
}

// splitOptions cuts at commas and removes backslashes; one at the end stays.
func splitOptions(list string) []string {
	var items []string
	var b strings.Builder
	for i := 0; i < len(list); i++ {
		switch {
		case list[i] == '\\' && i+1 < len(list):
			i++
			b.WriteByte(list[i])
		case list[i] == ',':
			items = append(items, b.String())
			b.Reset()
		default:
			b.WriteByte(list[i])
		}
	}
	return append(items, b.String())
}

// Validate finds options that don't go together.
func (o *Options) Validate() error {
	switch {
	case o.UpperDir != "" && o.WorkDir == "":
		return badOption("option upperdir needs workdir beside it, an empty directory on the same file system")
	case o.UpperDir == "" && o.WorkDir != "":
		return badOption("option workdir needs upperdir beside it")
	case o.Transient && o.UpperDir != "":
		return badOption("options transient and upperdir exclude each other")
	case o.Passthrough && o.Mode != ModeFUSE:
		return badOption("option passthrough is for mode=fuse: in the others the kernel reads objects anyway")
	case o.writable() && o.Mode == ModeFUSE:
		return badOption("a writable layer takes overlayfs: mode=fuse has none")
	}
	return nil
}

func (o *Options) writable() bool { return o.UpperDir != "" || o.Transient }

// ReadOnlyAnyway says that rw was asked for of a mount that can't be written.
func (o *Options) ReadOnlyAnyway() bool { return o.ReadWrite && !o.writable() }

// Policy is what the options ask to be verified.
func (o *Options) Policy() Policy {
	if o.Verity != nil {
		return *o.Verity
	}
	return Auto
}

// ComposefsPolicy is the same in the words of mount.composefs: nothing unless
// asked; a digest, which is the one expected in the end, asks for everything;
// verity without one leaves the image alone.
func (o *Options) ComposefsPolicy(digest fsverity.Digest) Policy {
	switch {
	case o.Verity != nil && *o.Verity != Require:
		return *o.Verity
	case !digest.IsZero():
		return Require
	case o.Verity != nil:
		return Objects
	case o.TryVerity:
		return Auto
	}
	return Off
}

// Apply sets what the options say in r, but for image, objects, digest and
// policy, which are the caller's, and opens the files that they name. The files
// belong to r then; CloseOptions closes them.
func (o *Options) Apply(r *Request) error {
	r.Mode, r.Passthrough, r.Check = o.Mode, o.Passthrough, o.Check
	r.NoSuid, r.NoDev, r.NoExec = o.NoSuid, o.NoDev, o.NoExec
	r.Transient, r.AllowOther, r.ReadOnly = o.Transient, o.AllowOther, o.ReadOnly
	for _, f := range []struct {
		path string
		what string
		open func(string) (*os.File, error)
		to   **os.File
	}{
		{o.UpperDir, "upperdir", openDirectory, &r.Upper},
		{o.WorkDir, "workdir", openDirectory, &r.Work},
		{o.IDMap, "idmap", os.Open, &r.IDMap},
	} {
		if f.path == "" {
			continue
		}
		var err error
		if *f.to, err = f.open(f.path); err != nil {
			r.CloseOptions()
			return fmt.Errorf("option %s: %w", f.what, err)
		}
	}
	return nil
}

// CloseOptions closes what Apply opened.
func (r *Request) CloseOptions() {
	for _, f := range []**os.File{&r.Upper, &r.Work, &r.IDMap} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
}
