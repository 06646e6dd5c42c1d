package pkgdb

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

// stanza is one of status, with a state.
func stanza(name, state string) string {
	return fmt.Sprintf("Package: %s\nStatus: install ok %s\nVersion: 1\nArchitecture: all\nDescription: text\n more: text\n\n",
		name, state)
}

func TestDpkgStates(t *testing.T) {
	for state, want := range map[string]bool{
		"installed": true, "unpacked": true, "half-configured": true, "half-installed": true, "triggers-awaited": true,
		"triggers-pending": true, "config-files": false, "not-installed": false, "": false, "odd": false, "installed more": false,
	} {
		dbs, err := Read(files(t, "-- var/lib/dpkg/status --\n"+stanza("a", state)), ReadOptions{})
		must(t, err)
		if len(dbs) != 1 || len(dbs[0].Packages) == 1 != want {
			t.Errorf("%s: %+v", state, dbs)
		}
	}
}

func TestDpkgFields(t *testing.T) {
	expect(t, files(t, `
-- var/lib/dpkg/status --
Package: libc6
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Source: glibc (2.36-9)
Version: 2.36-9+deb12u14
Conffiles:
 /etc/ld.so.conf.d/x86_64-linux-gnu.conf d4e7a7b88a71b5ffd9e2644e71a0cfab
Description: text
 .
 Package: x

PACKAGE:   bash
status: deinstall   ok  installed
version: 5.2
Unknown:

-- var/lib/dpkg/info/libc6:amd64.list --
/.
/lib/libc.so.6
-- var/lib/dpkg/info/libc6:i386.list --
/lib/i386/libc.so.6
-- var/lib/dpkg/info/libc6:amd64.md5sums --
nothing to read
-- var/lib/dpkg/info/bash.list --
/bin
/bin/bash
/bin/bash
-- var/lib/dpkg/info/bash.postinst.x --
-- var/lib/dpkg/info/format --
1
-- var/lib/dpkg/status-old --
-- var/lib/dpkg/triggers/File --
-- var/lib/dpkg/alternatives/x --
`), `dpkg
file /var/lib/dpkg/info/bash.postinst.x
file /var/lib/dpkg/info/format
file /var/lib/dpkg/info/libc6:i386.list
file /var/lib/dpkg/status
file /var/lib/dpkg/status-old
file /var/lib/dpkg/triggers/File
bash|5.2||bash
  /bin
  /bin/bash
  /var/lib/dpkg/info/bash.list
libc6|2.36-9+deb12u14|amd64|glibc
  /
  /lib/libc.so.6
  /var/lib/dpkg/info/libc6:amd64.list
  /var/lib/dpkg/info/libc6:amd64.md5sums
`)
}

// Of two architectures, each has a list of its own, and no list is of both.
func TestDpkgArchitectures(t *testing.T) {
	const both = "Package: a\nStatus: install ok installed\nArchitecture: %s\n\n"
	expect(t, files(t, "-- var/lib/dpkg/status --\n"+fmt.Sprintf(both, "i386")+fmt.Sprintf(both, "amd64")+
		"-- var/lib/dpkg/info/a:i386.list --\n/i386\n-- var/lib/dpkg/info/a.list --\n/amd64\n"), `dpkg
file /var/lib/dpkg/status
a||amd64|a
  /amd64
  /var/lib/dpkg/info/a.list
a||i386|a
  /i386
  /var/lib/dpkg/info/a:i386.list
`)
}

func TestDpkgDiversions(t *testing.T) {
	expect(t, files(t, `
-- var/lib/dpkg/diversions --
/bin/sh
/bin/sh.distrib
dash
/usr/bin/tool
/usr/bin/tool.real
:
-- var/lib/dpkg/status --
`+stanza("dash", "installed")+stanza("bash", "installed")+`
-- var/lib/dpkg/info/dash.list --
/bin/sh
/usr/bin/tool
-- var/lib/dpkg/info/bash.list --
/bin/sh
/bin/shx
`), `dpkg
file /var/lib/dpkg/diversions
file /var/lib/dpkg/status
bash|1|all|bash
  /bin/sh.distrib
  /bin/shx
  /var/lib/dpkg/info/bash.list
dash|1|all|dash
  /bin/sh
  /usr/bin/tool.real
  /var/lib/dpkg/info/dash.list
`)
}

func TestDpkgDistroless(t *testing.T) {
	expect(t, samples(t, "distroless.txtar"), `dpkg
libpython3.11|3.11.2-6|amd64|python3.11
  /usr/lib/libpython3.11.so
  /var/lib/dpkg/status.d/libpython3.11
  /var/lib/dpkg/status.d/libpython3.11.list
libsqlite3-0|3.34.1-3|arm64|sqlite3
  changed 2021-01-25T18:24:40Z
  /etc/sqlite.conf
  /usr/lib/aarch64-linux-gnu/libsqlite3.so.0.8.6
  /usr/share/doc/libsqlite3-0/README.Debian
  /usr/share/doc/libsqlite3-0/changelog.Debian.gz
  /var/lib/dpkg/status.d/libsqlite3-0
  /var/lib/dpkg/status.d/libsqlite3-0.conffiles
  /var/lib/dpkg/status.d/libsqlite3-0.md5sums
  /var/lib/dpkg/status.d/libsqlite3-0.preinst
`)
}

func TestDpkgStatusDir(t *testing.T) {
	encoded := base64.StdEncoding.EncodeToString([]byte("tzdata"))
	expect(t, files(t, "-- var/lib/dpkg/status.d/"+encoded+" --\nPackage: tzdata\nArchitecture: all\n"+
		"-- var/lib/dpkg/status.d/gone --\nPackage: gone\nStatus: deinstall ok config-files\n"+
		"-- var/lib/dpkg/status.d/alone.md5sums --\n"+
		"-- var/lib/dpkg/status.d/two --\nPackage: two\n\n\nPackage: three\n"+
		"-- var/lib/dpkg/status.d/two.list --\n/two\n"), `dpkg
three|||three
two|||two
  /two
  /var/lib/dpkg/status.d/two
  /var/lib/dpkg/status.d/two.list
tzdata||all|tzdata
  /var/lib/dpkg/status.d/`+encoded+`
`)
}

func TestDpkgErrors(t *testing.T) {
	status := "-- var/lib/dpkg/status --\n"
	a := status + stanza("a", "installed")
	long := strings.Repeat("x", 300)
	for _, c := range []struct{ tree, want string }{
		{status + "Package: a\nnonsense\n", "var/lib/dpkg/status: line 2: no field"},
		{status + " text\n", "var/lib/dpkg/status: line 1: it goes on with a field where none begins"},
		{status + "Version: 1\n\n", "line 2: the stanza from line 1 on has no field Package"},
		{status + "Package: a\nVersion: 1\nversion: 2\n", "line 3: field version is there twice"},
		{a + stanza("a", "installed"), "package a:all is there twice"},
		{status + stanza("../a", "installed"), `"../a" of architecture "all" can't be the name`},
		{status + stanza("a/b", "installed"), "can't be the name"},
		{status + stanza("a b", "installed"), "can't be the name"},
		{status + stanza("\xff", "installed"), "can't be the name"},
		{status + stanza(long, "installed"), "can't be the name"},
		{a + "-- var/lib/dpkg/info/a.list --\n/a\n\n/b\n", "var/lib/dpkg/info/a.list: line 2: an empty path"},
		{a + "-- var/lib/dpkg/info/a.list --\n/\x00\n", "var/lib/dpkg/info/a.list: line 1: a path of 2 bytes"},
		{a + "-- var/lib/dpkg/diversions --\n/a\n/b\n", "var/lib/dpkg/diversions: line 2: the diversion that ends here"},
		{a + "-- var/lib/dpkg/diversions --\n/a\n/b\n\n", "var/lib/dpkg/diversions: line 3: no package"},
		{a + "-- var/lib/dpkg/diversions --\n/a\x00\n", "var/lib/dpkg/diversions: line 1: a path"},
		{"-- var/lib/dpkg/status.d/a --\nPackage: a\n-- var/lib/dpkg/status.d/a.md5sums --\n0123 a\n",
			"status.d/a.md5sums: line 1: no digest"},
		{"-- var/lib/dpkg/status.d/a --\nPackage a\n", "status.d/a: line 1: no field"},
	} {
		expectError(t, files(t, c.tree), c.want)
	}
	expectError(t, fstest.MapFS{"var/lib/dpkg/status.d/a": {Data: make([]byte, maxEntry+1)}},
		"status.d/a: it is too long: more than 1048576 bytes")
}
