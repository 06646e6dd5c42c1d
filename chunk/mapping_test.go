package chunk

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

func TestParseMapping(t *testing.T) {
	m, err := ParseMapping([]byte(`# what we make ourselves
- component: ui
  paths:
    - /usr/lib/ui/**
    - "**/ui-*.so"
    - '!/usr/lib/ui/cache/'
  interval: weekly
- component: models, large
  paths: [/opt/models/]
  exclusive: true
- {component: ui, paths: [/etc/ui.conf], interval: 7d, exclusive: false}
- {component: 5, paths: [/5]}
`))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, r := range m.rules {
		got += fmt.Sprintln(r.component, len(r.globs), int(r.interval/day), r.exclusive)
	}
	if want := "ui 3 7 false\nmodels%2C%20large 1 0 true\nui 1 7 false\n5 1 0 false\n"; got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	for _, none := range []string{"[]", "# nothing\n--- []\n"} {
		if m, err := ParseMapping([]byte(none)); err != nil || len(m.rules) != 0 {
			t.Errorf("%q: %v", none, err)
		}
	}
}

func TestParseMappingErrors(t *testing.T) {
	rule := func(paths string) string { return "- component: a\n  paths: [" + paths + "]\n" }
	for _, tc := range []struct {
		in           string
		line, column int
		err          string
	}{
		{"", 1, 1, "no documents"},
		{"# none\n", 1, 1, "no documents in stream; a mapping without rules is []"},
		{"---\n", 2, 1, "a mapping is a list of rules"},
		{"component: a\n", 1, 1, "a mapping is a list of rules"},
		{"[]\n---\n[]\n", 1, 1, "multiple"},
		{"- a\n- b: c\n", 1, 3, "a rule has fields"},
		{"- []\n", 1, 3, "a rule has fields"},
		{"- component: a\n  paths: [/a\n", 3, 1, "did not find expected ',' or ']'"},
		{"- component: a\n\tpaths: [/a]\n", 2, 1, "tab"},
		{"- component: a\n  paths:\n  - \xff", 3, 5, "not UTF-8"},
		{"- é\x00", 1, 4, "control character U+0000"},
		{"# \u0085\n- \u0090", 2, 3, "control character U+0090"},
		{"- component: a\n  path: [/a]\n", 2, 3, `field "path" isn't known`},
		{"- component: a\n  component: b\n", 2, 3, "field component is there twice"},
		{"- paths: [/a]\n", 1, 3, "a rule has a component and paths"},
		{"- component: a\n", 1, 3, "a rule has a component and paths"},
		{"- component:\n  paths: [/a]\n", 1, 13, "component has a single value"},
		{"- component: ''\n  paths: [/a]\n", 1, 14, "a component's name is empty"},
		{"- component: [a]\n  paths: [/a]\n", 1, 14, "component has a single value"},
		{"- component: \"a\\nb\"\n  paths: [/a]\n", 1, 14, "control characters"},
		{"- component: " + strings.Repeat("a", 256) + "\n  paths: [/a]\n", 1, 14, "256 bytes"},
		{"- component: a\n  paths: /a\n", 2, 10, "paths is a list of globs"},
		{rule("/a, [/b]"), 2, 15, "a glob has a single value"},
		{rule(""), 2, 10, "no paths are left"},
		{rule(`"!/a"`), 2, 10, "no paths are left"},
		{rule("!/a"), 2, 11, `tag "!/a" has no meaning here; a glob that begins with ! stands in quotes`},
		{rule("**/a"), 2, 11, "a glob that begins with * stands in quotes"},
		{rule("/a, 'b'"), 2, 15, `bad glob: a glob begins with /`},
		{rule("/a/[b, /c"), 2, 14, "expected"},
		{rule(`"/a/[b", /c`), 2, 11, `bad glob: "[b": a [ without its ]`},
		{rule(`/a/../b`), 2, 11, `bad glob: ".." is no name`},
		{rule(`/a//b`), 2, 11, `bad glob: two slashes`},
		{rule(`/a/b**`), 2, 11, `bad glob: "b**": ** stands alone`},
		{rule(`"/a/{b,c}"`), 2, 11, `bad glob: "{b,c}": braces`},
		{rule("/" + strings.Repeat("a", maxGlob)), 2, 11, "bad glob: 4097 bytes"},
		{rule("/a") + "  interval: often\n", 3, 13, `interval "often"`},
		{rule("/a") + "  interval: 0\n", 3, 13, `interval "0"`},
		{rule("/a") + "  interval: 3661d\n", 3, 13, `interval "3661d"`},
		{rule("/a") + "  interval: -7\n", 3, 13, `interval "-7"`},
		{rule("/a") + "  interval: [1]\n", 3, 13, `interval has a single value`},
		{rule("/a") + "  exclusive: yes\n", 3, 14, `exclusive is true or false, not "yes"`},
		{rule("/a") + "  exclusive: {}\n", 3, 14, `exclusive has a single value`},
		{rule("/a") + "  interval: daily\n" + rule("/b") + "  interval: 2\n", 6, 13,
			"an earlier rule says that the component's interval is 1 days"},
		{rule("/a") + "  exclusive: true\n" + rule("/b") + "  exclusive: false\n", 6, 14,
			"an earlier rule says that exclusive is true"},
		{"- &a [*a]\n", 1, 3, "a rule has fields"},
		{"- &a\n  component: a\n  paths: &p [*p]\n", 3, 14, "aliases have no meaning"},
		{"- &a\n  component: a\n  paths: [/a]\n- *a\n", 4, 3, "aliases have no meaning"},
		{"- &a {component: a, paths: [/a]}\n- {<<: *a}\n", 2, 4, `field "<<" isn't known`},
		{"- {? *x : a}", 1, 6, "unknown anchor"},
		{strings.Repeat("[", 1000) + "\n", 2, 1, "expected"},
		{strings.Repeat("[", 20000), 1, 10001, "depth"},
		{strings.Repeat("- {component: a, paths: [/a]}\n", maxRules+1), maxRules + 1, 3, "more than 1000 rules"},
		{rule(strings.Repeat("/a,", maxGlobs+1)), 2, 11 + 3*maxGlobs, "more than 10000 globs"},
		{strings.Repeat(" ", MaxMapping+1), 1, 1, "more than 262144 bytes"},
	} {
		_, err := ParseMapping([]byte(tc.in))
		var at *MappingError
		if !errors.As(err, &at) || at.Line != tc.line || at.Column != tc.column || !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%.80q: got %v, want line %d, column %d, %s", tc.in, err, tc.line, tc.column, tc.err)
		}
	}
}

// bomb is the usual one: nine lists of nine aliases each of the one before.
func TestParseMappingBomb(t *testing.T) {
	in := "- &a0 [x]\n"
	for i := range 30 {
		in += fmt.Sprintf("- &a%d [%s]\n", i+1, strings.Repeat(fmt.Sprintf("*a%d,", i), 9))
	}
	start := time.Now()
	if _, err := ParseMapping([]byte(in)); err == nil {
		t.Error("no error")
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Error(d)
	}
}

func TestGlobs(t *testing.T) {
	for _, tc := range []struct{ glob, yes, no string }{
		{"/usr/bin/ls", "/usr/bin/ls", "/usr/bin/lsx /usr/bin /ls /usr/bin/ls/x"},
		{"/usr/*/ls", "/usr/bin/ls /usr/x/ls", "/usr/ls /usr/a/b/ls"},
		{"/usr/**", "/usr /usr/a /usr/a/b", "/usrx /a/usr"},
		{"/usr/", "/usr /usr/a /usr/a/b", "/usrx"},
		{"/", "/a /a/b", ""},
		{"**", "/a /a/b", ""},
		{"/**/", "/a /a/b", ""},
		{"**/a", "/a /b/a /b/c/a /a/a", "/ab /a/b"},
		{"/**/a/**/b", "/a/b /x/a/b /a/x/b /x/a/y/b /a/a/b/b", "/b/a /a/bx /b"},
		{"/a/**/**/b", "/a/b /a/x/y/b", "/b"},
		{"/a/**/b/**", "/a/b /a/b/c /a/x/b/y/z", "/a /a/x"},
		{"/*.so*", "/.so /a.so.1 /.so.so", "/a.s /so"},
		{"/a*b", "/ab /axb /abb", "/a /b /aab/c"},
		{"/?", "/a /é", "/ab"},
		{"/[a-c]x[!0-9]", "/axa /cxx", "/dxa /ax1 /ax"},
		{"/[^a]", "/b", "/a"},
		{`/\*`, "/*", "/a"},
		{`/\[!a]`, "/[!a]", "/b /[^a]"},
		{`/[{]`, "/{", "/a"},
		{`/\{a`, "/{a", `/\{a`},
	} {
		g, err := parseGlob(tc.glob)
		if err != nil {
			t.Errorf("%s: %v", tc.glob, err)
			continue
		}
		for _, p := range strings.Fields(tc.yes) {
			if !matches(g, p) {
				t.Errorf("%s doesn't match %s", tc.glob, p)
			}
		}
		for _, p := range strings.Fields(tc.no) {
			if matches(g, p) {
				t.Errorf("%s matches %s", tc.glob, p)
			}
		}
	}
}

func matches(g glob, p string) bool {
	m := matcher{globs: []glob{g}}
	s := m.root()
	dir, name := path.Split(p)
	for part := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		if part != "" {
			s = m.enter(s, []byte(part))
		}
	}
	return m.rule(s, []byte(name)) == 0
}

// Globs that match in many ways have no more states than names.
func TestGlobStates(t *testing.T) {
	g, err := parseGlob(strings.Repeat("**/a/", 50) + "b")
	if err != nil {
		t.Fatal(err)
	}
	m := matcher{globs: []glob{g}}
	s := m.root()
	for range 200 {
		s = m.enter(s, []byte("a"))
	}
	if n := s.to - s.from; n > 51 {
		t.Errorf("%d states", n)
	}
	if m.rule(s, []byte("b")) != 0 {
		t.Error("no match")
	}
}

func FuzzMapping(f *testing.F) {
	f.Add([]byte("- component: ui\n  paths: [/usr/lib/ui/**, \"**/ui-*.so\", \"!/usr/lib/ui/cache/**\"]\n  interval: weekly\n" +
		"  exclusive: true\n"))
	f.Add([]byte("- &a [*a]\n"))
	f.Add([]byte("- {component: a, paths: ['/[!a-c]/**/\\\\*?']}"))
	f.Add([]byte("--- []\n... "))
	f.Add([]byte("!!binary x"))
	tr := newTree(f, debian)
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := ParseMapping(in)
		var at *MappingError
		if err != nil {
			if !errors.As(err, &at) || at.Line < 1 || at.Column < 1 {
				t.Fatalf("an error without a place: %v", err)
			}
			return
		}
		c, err := Claim(tr, ClaimOptions{Mapping: m})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range c.Components {
			if strings.ContainsAny(x.Name, ", \n") {
				t.Fatalf("component %q", x.Name)
			}
		}
	})
}

// BenchmarkClaimMapping is of 500,000 entries and 200 rules, half of which can match anywhere.
func BenchmarkClaimMapping(b *testing.B) {
	tr := tree.New(fsverity.SHA256, tree.Attr{Mode: 0o755})
	for i := range 500 {
		dir := mkdirAll(b, tr, fmt.Sprintf("/usr/lib/%d/%d", i%20, i))
		for k := range 1000 {
			n, err := tr.Add(dir, fmt.Appendf(nil, "file-%d.so.%d", k, i), tree.Attr{Mode: tree.Regular | 0o644, Size: 1})
			if err == nil {
				err = tr.SetContent(n, []byte("x"))
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	var mapping strings.Builder
	for i := range 100 {
		fmt.Fprintf(&mapping, "- {component: a%d, paths: ['**/lib%d*', '/usr/lib/%d/[0-4]*/**']}\n", i, i, i)
		fmt.Fprintf(&mapping, "- {component: b%d, paths: ['**/file-%d*.pack', '**/x?[a-z]%d']}\n", i, i, i)
	}
	m, err := ParseMapping([]byte(mapping.String()))
	if err != nil {
		b.Fatal(err)
	}
	for _, bench := range []struct {
		name string
		m    *Mapping
	}{{"none", nil}, {"200 rules", m}} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				mustClaim(b, tr, ClaimOptions{Mapping: bench.m})
			}
		})
	}
}
