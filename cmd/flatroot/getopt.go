package main

import (
	"fmt"
	"slices"
	"strings"
)

// cOption is a long option of one of the C tools that this program can stand in for.
type cOption struct {
	name string
	flag func()                   // without a value
	set  func(value string) error // with a value
}

// optionError says why an option can't be understood, in the words of getopt_long(3).
type optionError string

func (e optionError) Error() string { return string(e) }

// parseCOptions reads arguments as getopt_long(3) does: options may stand among operands, their names may be cut short, a
// value follows after = or as the next argument, and -- ends the options.
func parseCOptions(args []string, options []cOption) (operands []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			return append(operands, args...), nil
		case arg == "-" || !strings.HasPrefix(arg, "-"):
			operands = append(operands, arg)
			continue
		case !strings.HasPrefix(arg, "--"):
			return nil, optionError(fmt.Sprintf("invalid option -- '%s'", arg[1:2]))
		}
		if args, err = takeOption(arg, args, options); err != nil {
			return nil, err
		}
	}
	return operands, nil
}

// takeOption carries out one option and returns the arguments behind it and its value.
func takeOption(arg string, args []string, options []cOption) ([]string, error) {
	name, value, hasValue := strings.Cut(arg[2:], "=")
	o, err := findOption(name, options)
	switch {
	case err != nil:
		return nil, err
	case o.set == nil && hasValue:
		return nil, optionError(fmt.Sprintf("option '--%s' doesn't allow an argument", o.name))
	case o.set == nil:
		o.flag()
		return args, nil
	case hasValue:
		return args, o.set(value)
	case len(args) == 0:
		return nil, optionError(fmt.Sprintf("option '--%s' requires an argument", o.name))
	}
	return args[1:], o.set(args[0])
}

func findOption(name string, options []cOption) (*cOption, error) {
	if i := slices.IndexFunc(options, func(o cOption) bool { return o.name == name }); i >= 0 {
		return &options[i], nil
	}
	var found *cOption
	for i := range options {
		if !strings.HasPrefix(options[i].name, name) {
			continue
		}
		if found != nil {
			return nil, optionError(fmt.Sprintf("option '--%s' is ambiguous", name))
		}
		found = &options[i]
	}
	if found == nil {
		return nil, optionError(fmt.Sprintf("unrecognized option '--%s'", name))
	}
	return found, nil
}
