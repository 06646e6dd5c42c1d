package mounts

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
)

// ground is a mounted image of writeGround's, on which calls are tried.
type ground struct {
	dir string // where it is mounted
	tmp string // a directory that can be written
}

// at is the path of a name in the ground. Slashes at its end stay, since they matter to the kernel.
func (g ground) at(name string) string { return g.dir + "/" + name }

// call is one thing to try; it returns what came of it as text.
type call struct {
	name string
	want string // what must come of it whatever the native mount says; empty: anything
	run  func(g ground) string
}

// came is the outcome of a call that returns nothing but an error.
func came(err error) string {
	if err != nil {
		return failed(err)[1:]
	}
	return "ok"
}

// calls are all of them.
func calls() (all []call) {
	for _, group := range [][]call{
		changeCalls(), pathCalls(), resolveCalls(), directoryCalls(), readCalls(), mapCalls(), copyCalls(),
		statCalls(), lockCalls(), xattrCalls(), runCalls(), watchCalls(), userCalls(),
	} {
		all = append(all, group...)
	}
	return sorted(all)
}

func sorted(list []call) []call {
	slices.SortFunc(list, func(a, b call) int { return cmp.Compare(a.name, b.name) })
	return list
}

// outcomes tries calls and returns what came of each.
func outcomes(g ground, list []call) map[string]string {
	got := map[string]string{}
	for _, c := range list {
		if _, twice := got[c.name]; twice {
			got[c.name] = "two calls of this name"
			continue
		}
		got[c.name] = c.run(g)
	}
	return got
}

// TestCalls tries them on each mode.
func TestCalls(t *testing.T) {
	needMounts(t)
	needed := compareCalls(t, writeGround(t, tmpfs(t), bigEntries), calls())
	for _, e := range exceptions {
		if !needed[e.calls] {
			t.Errorf("nothing needs the exception for %q", e.calls)
		}
	}
}

// TestUsersWithoutACLs tries users' rights on an image without ACLs, of which the kernel is told.
func TestUsersWithoutACLs(t *testing.T) {
	needMounts(t)
	dir := tmpfs(t)
	b := newBuilder(t, newObjects(t, filepath.Join(dir, "objects")))
	groundFiles(b)
	groundOwned(b)
	groundXattrs(b)
	compareCalls(t, writeImage(t, dir, "plain", b.tree, b.objects, erofs.Format1), sorted(userCalls()))
}

// withoutRights is what a program of the ground says of itself when bob starts it and it gives him nothing.
const withoutRights = "Uid: 1001 1001 1001 1001; Gid: 2001 2001 2001 2001; CapPrm: 0000000000000000; CapEff: 0000000000000000"

// mountFlags are the usual flags of a mount with what they forbid.
var mountFlags = map[string]map[string]string{
	"nosuid": {
		"run: setuid by bob":  withoutRights,
		"run: setgid by bob":  withoutRights,
		"run: capable by bob": withoutRights,
	},
	"nodev":  {"device: open for reading": "EACCES", "device: open for writing": "EACCES", "device: open as a path": "ok"},
	"noexec": {"run: plain by bob": "EACCES", "run: plain by root": "EACCES", "run: script by bob": "EACCES"},
}

// TestMountFlags tries what they forbid, and without them allow.
func TestMountFlags(t *testing.T) {
	needMounts(t)
	img := writeGround(t, tmpfs(t), fewEntries)
	for option, forbidden := range mountFlags {
		t.Run(option, func(t *testing.T) {
			list := sorted(append(runCalls(), deviceCalls()...))
			for i := range list {
				list[i].want = forbidden[list[i].name]
			}
			compareCalls(t, img, list, option)
			free := callsOn(t, native, img, list)
			for name, outcome := range forbidden {
				if free[name] == outcome && outcome != "ok" {
					t.Errorf("%s is %s without %s too", name, outcome, option)
				}
			}
		})
	}
}

func deviceCalls() []call {
	return []call{
		{"device: open for reading", "", func(g ground) string { return came(open(g.at("null"), unix.O_RDONLY)) }},
		{"device: open for writing", "", func(g ground) string { return came(open(g.at("null"), unix.O_WRONLY)) }},
		{"device: open as a path", "", func(g ground) string { return came(open(g.at("null"), unix.O_PATH)) }},
	}
}

// compareCalls fails where a mode's outcomes differ from the native ones. It returns which exceptions were needed.
func compareCalls(t *testing.T, img image, list []call, options ...string) (needed map[string]bool) {
	t.Helper()
	needed = map[string]bool{}
	want := callsOn(t, native, img, list, options...)
	for _, c := range list {
		if c.want != "" && want[c.name] != c.want {
			t.Errorf("native, %s: %s, want %s", c.name, want[c.name], c.want)
		}
	}
	for _, m := range modes() {
		got := callsOn(t, m, img, list, options...)
		for _, c := range list {
			if bad := m.judge(c, want[c.name], got[c.name], needed); bad != "" {
				t.Errorf("%s, %s: %s", m.name, c.name, bad)
			}
		}
	}
	return needed
}

func callsOn(t *testing.T, m mode, img image, list []call, options ...string) map[string]string {
	t.Helper()
	dir, unmount := m.mount(t, img, options...)
	defer unmount()
	return outcomes(ground{dir: dir, tmp: tmpfs(t)}, list)
}

// join is filepath.Join where the result is no path of the ground.
func join(elem ...string) string { return filepath.Join(elem...) }

// describe makes an outcome of several values.
func describe(err error, format string, a ...any) string {
	if err != nil {
		return came(err)
	}
	return fmt.Sprintf(format, a...)
}
