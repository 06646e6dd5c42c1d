package main

import (
	"strings"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/mount"
)

// options is what -o can say to us.
type options struct {
	store     string
	basedirs  []string
	digest    fsverity.Digest
	verity    *mount.Policy // nil: not said
	tryverity bool
	mode      mount.Mode
	noSuid    bool
	noDev     bool
	noExec    bool
}

// optionKind says what stands after the name.
type optionKind int

const (
	flagOption     optionKind = iota // nothing
	valueOption                      // =VALUE
	maybeOption                      // =VALUE or nothing
	ignoredOption                    // mount(8)'s own; with or without value
	reservedOption                   // known by name, not in this build
)

type optionSpec struct {
	kind optionKind
	set  func(o *options, value string) error
}

func flag(set func(o *options)) optionSpec {
	return optionSpec{flagOption, func(o *options, _ string) error { set(o); return nil }}
}

// optionTable has each option that is known; x-* and X-* are ignored besides.
// Those that mount(8) acts on itself and those about times and writing, which
// mean nothing to a read-only mount, are ignored.
func optionTable() map[string]optionSpec {
	t := map[string]optionSpec{
		"store":     {valueOption, func(o *options, v string) error { o.store = v; return nil }},
		"basedir":   {valueOption, (*options).addBasedirs},
		"digest":    {valueOption, (*options).setDigest},
		"verity":    {maybeOption, (*options).setVerity},
		"mode":      {valueOption, (*options).setMode},
		"tryverity": flag(func(o *options) { o.tryverity = true }),
		"nosuid":    flag(func(o *options) { o.noSuid = true }),
		"suid":      flag(func(o *options) { o.noSuid = false }),
		"nodev":     flag(func(o *options) { o.noDev = true }),
		"dev":       flag(func(o *options) { o.noDev = false }),
		"noexec":    flag(func(o *options) { o.noExec = true }),
		"exec":      flag(func(o *options) { o.noExec = false }),
	}
	for _, n := range ignoredNames {
		t[n] = optionSpec{kind: ignoredOption}
	}
	for _, n := range reservedNames {
		t[n] = optionSpec{kind: reservedOption}
	}
	return t
}

var ignoredNames = [...]string{
	"defaults", "ro", "rw", "auto", "noauto", "nofail", "_netdev",
	"user", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup",
	"comment", "silent", "loud", "async", "sync", "dirsync",
	"atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime",
	"strictatime", "nostrictatime", "lazytime", "nolazytime",
}

var reservedNames = [...]string{"upperdir", "workdir", "idmap", "transient"}

// parse reads one list of options. Between commas, a backslash takes the next
// character literally.
func (o *options) parse(list string, sloppy bool) error {
	table := optionTable()
	for _, item := range splitEscaped(list) {
		if item == "" {
			continue // "a,,b", which mount(8) accepts too
		}
		if err := o.parseOne(table, item, sloppy); err != nil {
			return err
		}
	}
	return nil
}

func (o *options) parseOne(table map[string]optionSpec, item string, sloppy bool) error {
	name, value, hasValue := strings.Cut(item, "=")
	s, known := table[name]
	switch {
	case strings.HasPrefix(name, "x-"), strings.HasPrefix(name, "X-"):
		return nil
	case name == "remount":
		return usagef("option remount is not supported: unmount and mount again")
	case !known && sloppy:
		return nil
	case !known:
		return unknownOption(table, name)
	case s.kind == ignoredOption:
		return nil
	case s.kind == reservedOption:
		return usagef("option %s is not available in this build", name)
	case s.kind == flagOption && hasValue:
		return usagef("option %s takes no value", name)
	case s.kind == valueOption && value == "":
		return usagef("option %s needs a value", name)
	case s.kind == maybeOption && hasValue && value == "":
		return usagef("option %s= needs a value, or no equals sign", name)
	}
	if err := s.set(o, value); err != nil {
		return usagef("option %v", err)
	}
	return nil
}

func unknownOption(table map[string]optionSpec, name string) error {
	if n := nearest(table, name); n != "" {
		return usagef("unknown option %s; did you mean %s?", name, n)
	}
	return usagef("unknown option %s; see --help", name)
}

// splitEscaped cuts at commas and removes backslashes; one at the end stays.
func splitEscaped(list string) []string {
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

func (o *options) addBasedirs(v string) error {
	for d := range strings.SplitSeq(v, ":") {
		if d == "" {
			return usagef("basedir=%s: a path is empty", v)
		}
		o.basedirs = append(o.basedirs, d)
	}
	return nil
}

func (o *options) setDigest(v string) (err error) {
	if o.digest, err = fsverity.ParseDigest(v); err != nil {
		return usagef("digest: %v", err)
	}
	return nil
}

func (o *options) setVerity(v string) error {
	p, err := mount.ParsePolicy(v)
	if err != nil {
		return err
	}
	o.verity = &p
	return nil
}

func (o *options) setMode(v string) (err error) {
	o.mode, err = mount.ParseMode(v)
	return err
}

// policy is what the options ask for. digest is the one expected in the end, by
// option, SPEC or the store.
func (o *options) policy(d dialect, digest fsverity.Digest) mount.Policy {
	if d == composefsDialect {
		return o.composefsPolicy(digest)
	}
	if o.verity != nil {
		return *o.verity
	}
	return mount.Auto
}

// composefsPolicy is mount.composefs's: nothing unless asked; a digest asks for
// everything, verity without one leaves the image alone.
func (o *options) composefsPolicy(digest fsverity.Digest) mount.Policy {
	switch {
	case o.verity != nil && *o.verity != mount.Require:
		return *o.verity
	case !digest.IsZero():
		return mount.Require
	case o.verity != nil:
		return mount.Objects
	case o.tryverity:
		return mount.Auto
	}
	return mount.Off
}
