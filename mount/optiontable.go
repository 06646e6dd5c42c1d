package mount

import (
	"strings"

	"github.com/flatroot/flatroot/fsverity"
)

// optionKind says what stands after an option's name.
type optionKind int

const (
	flagOption  optionKind = iota // nothing
	valueOption                   // =VALUE
	maybeOption                   // =VALUE or nothing
)

// optionSpec is an option that we act on.
type optionSpec struct {
	name string
	kind optionKind
	set  func(o *Options, value string) error
	form string // for manuals, with its value; empty: the text is another's
	text string
}

func (s optionSpec) apply(o *Options, value string, hasValue bool) error {
	switch {
	case s.kind == flagOption && hasValue:
		return badOption("option %s takes no value", s.name)
	case s.kind == valueOption && value == "":
		return badOption("option %s needs a value", s.name)
	case s.kind == maybeOption && hasValue && value == "":
		return badOption("option %s= needs a value, or no equals sign", s.name)
	}
	if err := s.set(o, value); err != nil {
		return badOption("option %v", err)
	}
	return nil
}

func switchOption(set func(o *Options)) func(*Options, string) error {
	return func(o *Options, _ string) error { set(o); return nil }
}

func stringOption(field func(o *Options) *string) func(*Options, string) error {
	return func(o *Options, v string) error { *field(o) = v; return nil }
}

// optionTable has each option that does something, in the order of the manual.
func optionTable() []optionSpec {
	return append(ownOptions(), generalOptions()...)
}

// ownOptions are those of this program.
func ownOptions() []optionSpec {
	return []optionSpec{
		{"store", valueOption, stringOption(func(o *Options) *string { return &o.Store }),
			"store=DIR", "the store is in DIR; default: $FLATROOT_STORE, else /var/lib/flatroot for root and $XDG_DATA_HOME/flatroot for others"},
		{"basedir", valueOption, (*Options).addBasedirs,
			"basedir=DIR[:DIR...]", "look for objects there, before the store; may be given several times"},
		{"digest", valueOption, (*Options).setDigest,
			"digest=HEX", "the image must have this fs-verity digest, sha256 or sha512"},
		{"verity", maybeOption, (*Options).setVerity,
			"verity[=require|auto|off]", "what must be checked; default auto, and verity alone means require"},
		{"tryverity", flagOption, switchOption(func(o *Options) { o.TryVerity = true }),
			"tryverity", "the same as verity=auto, for mount.composefs"},
		{"mode", valueOption, (*Options).setMode,
			"mode=auto|native|hybrid|fuse", "who serves the tree; default auto"},
		{"passthrough", flagOption, switchOption(func(o *Options) { o.Passthrough = true }),
			"passthrough", "with mode=fuse let the kernel read objects itself once they are open"},
		{"check", flagOption, switchOption(func(o *Options) { o.Check = true }),
			"check", "mount only if every object that the image names is there"},
		{"upperdir", valueOption, stringOption(func(o *Options) *string { return &o.UpperDir }),
			"upperdir=DIR", "a writable layer: what is changed is kept in DIR"},
		{"workdir", valueOption, stringOption(func(o *Options) *string { return &o.WorkDir }),
			"workdir=DIR", "an empty directory on upperdir's file system, for overlayfs"},
		{"transient", flagOption, switchOption(func(o *Options) { o.Transient = true }),
			"transient", "a writable layer in memory, gone with the mount"},
		{"idmap", valueOption, stringOption(func(o *Options) *string { return &o.IDMap }),
			"idmap=PATH", "show owners through the maps of a user namespace, such as /proc/PID/ns/user"},
		{"allow_other", flagOption, switchOption(func(o *Options) { o.AllowOther = true }),
			"allow_other", "let other users see a mount that was made without root"},
		{"log", valueOption, stringOption(func(o *Options) *string { return &o.Log }),
			"log=FILE", "write the FUSE server's messages there instead of to the journal"},
	}
}

// generalOptions are those that all file systems have. mount(8) hands user on
// and leaves what it implies to the helper, with exec, suid and dev after it
// where these were asked for.
func generalOptions() []optionSpec {
	noSuidDev := func(o *Options) { o.NoSuid, o.NoDev = true, true }
	return []optionSpec{
		{"ro", flagOption, switchOption(func(o *Options) { o.ReadOnly, o.ReadWrite = true, false }),
			"ro", "read-only, as mounts without a writable layer always are"},
		{"rw", flagOption, switchOption(func(o *Options) { o.ReadOnly, o.ReadWrite = false, true }), "", ""},
		{"nosuid", flagOption, switchOption(func(o *Options) { o.NoSuid = true }),
			"nosuid, nodev, noexec", "as mount(8) has them, and suid, dev, exec"},
		{"suid", flagOption, switchOption(func(o *Options) { o.NoSuid = false }), "", ""},
		{"nodev", flagOption, switchOption(func(o *Options) { o.NoDev = true }), "", ""},
		{"dev", flagOption, switchOption(func(o *Options) { o.NoDev = false }), "", ""},
		{"noexec", flagOption, switchOption(func(o *Options) { o.NoExec = true }), "", ""},
		{"exec", flagOption, switchOption(func(o *Options) { o.NoExec = false }), "", ""},
		{"user", maybeOption, switchOption(func(o *Options) { noSuidDev(o); o.NoExec = true }), "", ""},
		{"users", flagOption, switchOption(func(o *Options) { noSuidDev(o); o.NoExec = true }), "", ""},
		{"owner", flagOption, switchOption(noSuidDev), "", ""},
		{"group", flagOption, switchOption(noSuidDev), "", ""},
	}
}

// foreignOption tells options that are others' business: those that mount(8),
// systemd and fstab's readers act on themselves, and those about times and
// writing, which mean nothing to a read-only tree.
func foreignOption(name string) bool {
	switch name {
	case "defaults", "auto", "noauto", "nofail", "_netdev", "comment", "uhelper",
		"nouser", "nousers", "noowner", "nogroup",
		"silent", "loud", "async", "sync", "dirsync", "mand", "nomand", "iversion", "noiversion",
		"atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime",
		"strictatime", "nostrictatime", "lazytime", "nolazytime":
		return true
	}
	return strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-")
}

const noLabels = "is not supported: files have the labels that the image gives them"

// refusedOptions would be dangerous to ignore, even for -s.
var refusedOptions = map[string]string{
	"remount":     "is not supported: unmount and mount again",
	"bind":        "is not for an image: mount it, then bind what is mounted",
	"context":     noLabels,
	"fscontext":   noLabels,
	"defcontext":  noLabels,
	"rootcontext": noLabels,
}

func (o *Options) addBasedirs(v string) error {
	for d := range strings.SplitSeq(v, ":") {
		if d == "" {
			return badOption("basedir=%s: a path is empty", v)
		}
		o.Basedirs = append(o.Basedirs, d)
	}
	return nil
}

func (o *Options) setDigest(v string) error {
	d, err := fsverity.ParseDigest(v)
	if err != nil {
		return badOption("digest: %v", err)
	}
	o.Digest = d
	return nil
}

func (o *Options) setVerity(v string) error {
	p, err := ParsePolicy(v)
	if err != nil {
		return err
	}
	o.Verity = &p
	return nil
}

func (o *Options) setMode(v string) (err error) {
	o.Mode, err = ParseMode(v)
	return err
}

// OptionDoc is an option as manuals show it.
type OptionDoc struct{ Form, Text string }

// OptionDocs lists the options for manuals.
func OptionDocs() []OptionDoc {
	var docs []OptionDoc
	for _, s := range optionTable() {
		if s.form != "" {
			docs = append(docs, OptionDoc{s.form, s.text})
		}
	}
	return docs
}
