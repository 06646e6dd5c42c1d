package pkgdb

import (
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// What is found in a real database is what a search for its lines finds.
func TestApkSample(t *testing.T) {
	tree := samples(t, "alpine.txtar")
	dbs, err := Read(tree, ReadOptions{})
	must(t, err)
	d := dbs[0]
	if d.Kind != "apk" || strings.Join(d.Files, " ") != "/lib/apk/db/installed /lib/apk/db/triggers" || len(d.Packages) != 14 {
		t.Fatalf("%s: %d packages, %s", d.Kind, len(d.Packages), d.Files)
	}
	found := map[string]Package{}
	for _, p := range d.Packages {
		found[p.Name] = p
	}
	for _, stanza := range strings.Split(strings.TrimSpace(string(tree["lib/apk/db/installed"].Data)), "\n\n") {
		field := func(letter string) string {
			return regexp.MustCompile("(?m)^" + letter + ":(.*)$").FindStringSubmatch(stanza)[1]
		}
		p := found[field("P")]
		built, err := time.ParseDuration(field("t") + "s")
		must(t, err)
		if p.Version != field("V") || p.Arch != field("A") || p.Source != field("o") || p.Built.Unix() != int64(built.Seconds()) {
			t.Errorf("got %+v", p)
		}
		if n := len(regexp.MustCompile("(?m)^[FR]:").FindAllString(stanza, -1)); n != len(p.Paths) {
			t.Errorf("%s: %d paths, want %d", p.Name, len(p.Paths), n)
		}
	}
}

func TestApk(t *testing.T) {
	expect(t, files(t, `
-- usr/lib/apk/db/installed --
C:Q1x=
P:musl
V:1.2.2-r7
A:x86_64
t:1632431095
F:
R:top
F:lib
M:0:0:755
R:ld-musl-x86_64.so.1
a:0:0:755
Z:Q1y=
F:usr/lib


P:musl-utils
V:1
o:musl
`), `apk
file /usr/lib/apk/db/installed
musl|1.2.2-r7|x86_64|musl
  built 2021-09-23T21:04:55Z
  /
  /lib
  /lib/ld-musl-x86_64.so.1
  /top
  /usr/lib
musl-utils|1||musl
`)
	expect(t, files(t, "-- lib/apk/db/installed --\n"), "apk\nfile /lib/apk/db/installed\n")
}

func TestApkErrors(t *testing.T) {
	for text, want := range map[string]string{
		"P:a\nnonsense\n":         "lib/apk/db/installed: line 2: no letter, colon and value",
		"P:a\nPP:x\n":             "line 2: no letter",
		"V:1\n\nP:a\n":            "line 2: a package without a name",
		"V:1\n":                   "the last stanza: a package without a name",
		"P:a\nt:yesterday\n":      `line 2: "yesterday" are no seconds since 1970`,
		"P:a\nt:-1\n":             `line 2: "-1" are no seconds`,
		"P:a\nt:253402300800\n":   "are no seconds",
		"P:a\nF:x\x00\n":          "line 2: a path of 2 bytes",
		"P:a\nF:x\nR:y\x00\n":     "line 3: a path of 4 bytes",
		longFiles(3000) + "R:y\n": "the paths are far longer than what they are made from",
	} {
		expectError(t, files(t, "-- lib/apk/db/installed --\n"+text), want)
	}
}

func TestTooManyPackages(t *testing.T) {
	stanzas := strings.Repeat("P:a\n\n", maxPackages)
	dbs, err := Read(files(t, "-- lib/apk/db/installed --\n"+stanzas), ReadOptions{})
	must(t, err)
	if n := len(dbs[0].Packages); n != maxPackages {
		t.Errorf("%d packages", n)
	}
	expectError(t, files(t, "-- lib/apk/db/installed --\n"+stanzas+"P:a\n"), "more than 131072 packages")
}

// longFiles is a stanza with many files in a directory with a long name.
func longFiles(n int) string {
	return "P:a\nF:" + strings.Repeat("d/", 1000) + "\n" + strings.Repeat("R:x\n", n)
}

func TestPacmanSample(t *testing.T) {
	const about = "  /var/lib/pacman/local/"
	expect(t, samples(t, "pacman.txtar"), `pacman
file /var/lib/pacman/local/ALPM_DB_VERSION
flatpair-bin|1:1.2-3|any|flatpair
  built 2026-05-28T20:26:40Z
  /etc
  /etc/flatpair.conf
  /usr
  /usr/bin
  /usr/bin/flatpair
`+about+`flatpair-bin-1:1.2-3/desc
`+about+`flatpair-bin-1:1.2-3/files
`+about+`flatpair-bin-1:1.2-3/mtree
flatpair-data|1:1.2-3|any|flatpair
  built 2026-05-28T20:26:40Z
  /usr
  /usr/share
  /usr/share/flatpair
  /usr/share/flatpair/a b
  /usr/share/flatpair/link
`+about+`flatpair-data-1:1.2-3/desc
`+about+`flatpair-data-1:1.2-3/files
`+about+`flatpair-data-1:1.2-3/mtree
`)
}

func TestPacmanErrors(t *testing.T) {
	const dir = "-- var/lib/pacman/local/a-1-1/"
	const desc = dir + "desc --\n%NAME%\na\n\n"
	for tree, want := range map[string]string{
		dir + "files --\n":                          "var/lib/pacman/local/a-1-1/desc: no name of a package",
		dir + "desc --\n%VERSION%\n1\n":             "desc: no name of a package",
		dir + "desc --\n%NAME\na\n":                 "desc: line 1: no title in percent signs",
		desc + "a\n":                                "desc: line 4: no title",
		desc + "%BUILDDATE%\nMon Jan 1\n":           `desc: line 5: "Mon Jan 1" are no seconds since 1970`,
		desc + dir + "files --\n%FILES%\nx\n\x00\n": "files: line 3: a path of 1 bytes",
		desc + dir + "files/x --\n":                 "files: it is no regular file",
		desc + dir + "files --\nx\n":                "files: line 1: no title",
	} {
		expectError(t, files(t, tree), want)
	}
	expectError(t, fstest.MapFS{"var/lib/pacman/local/a/desc": {Data: make([]byte, maxEntry+1)}},
		"a/desc: it is too long: more than 1048576 bytes")
}
