package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestParseCOptions(t *testing.T) {
	tests := []struct {
		args string
		want string // what was set, then operands
		err  string
	}{
		{"", "", ""},
		{"a b", "a b", ""},
		{"a --flag b --value=x c", "flag value=x a b c", ""},
		{"--value x --value=y=z", "value=x value=y=z", ""},
		{"--value= a", "value= a", ""},
		{"--fl --va x", "flag value=x", ""},
		{"--flag -- --flag -", "flag --flag -", ""},
		{"- --flag", "flag -", ""},
		{"--value --flag", "value=--flag", ""},
		{"--version --versions", "version versions", ""}, // a whole name is no shorter form of a longer one
		{"--vers", "", "option '--vers' is ambiguous"},
		{"--none", "", "unrecognized option '--none'"},
		{"--flag=x", "", "option '--flag' doesn't allow an argument"},
		{"--fl=x", "", "option '--flag' doesn't allow an argument"},
		{"a --value", "", "option '--value' requires an argument"},
		{"-x", "", "invalid option -- 'x'"},
		{"--bad=x", "", "bad x"},
	}
	for _, tt := range tests {
		var got []string
		flag := func(name string) cOption {
			return cOption{name: name, flag: func() { got = append(got, name) }}
		}
		operands, err := parseCOptions(strings.Fields(tt.args), []cOption{
			flag("flag"), flag("version"), flag("versions"),
			{name: "value", set: func(v string) error { got = append(got, "value="+v); return nil }},
			{name: "bad", set: func(v string) error { return errors.New("bad " + v) }},
		})
		if tt.err != "" {
			if err == nil || err.Error() != tt.err {
				t.Errorf("%q: error %v, want %s", tt.args, err, tt.err)
			}
			continue
		}
		if got = slices.Concat(got, operands); err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("%q: %q, %v, want %q", tt.args, got, err, tt.want)
		}
	}
}
