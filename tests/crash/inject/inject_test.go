//go:build amd64

package inject

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tests/testenv"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ground makes the directory for a program.
func ground(t *testing.T) string {
	t.Helper()
	testenv.Need(t, "ptrace")
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	must(t, os.Mkdir(filepath.Join(dir, "root"), 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "other"), 0o755))
	return dir
}

// run runs one of the acts.
func run(t *testing.T, act, dir string, f Fault, o Options) *Result {
	t.Helper()
	r, err := try(act, dir, f, o)
	must(t, err)
	return r
}

func try(act, dir string, f Fault, o Options) (*Result, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	o.Roots = []string{filepath.Join(dir, "root")}
	o.Env = append(o.Env, actVariable+"="+act)
	return Run([]string{self, dir}, f, o)
}

func TestEveryCall(t *testing.T) {
	dir := ground(t)
	must(t, os.WriteFile(filepath.Join(dir, "root", "b"), []byte("b"), 0o644))
	r := run(t, "all", dir, Fault{}, Options{})
	if r.Status != 0 || r.Stderr != "" || r.Stdout != "hello\n" {
		t.Fatalf("status %d, stdout %q, stderr %q", r.Status, r.Stdout, r.Stderr)
	}
	var want []string
	for _, s := range steps(dir) {
		if s.want != "" {
			want = append(want, s.want)
		}
	}
	if len(r.Calls) != len(want) {
		t.Errorf("%d calls, want %d", len(r.Calls), len(want))
	}
	for i, c := range r.Calls[:min(len(want), len(r.Calls))] {
		if c.Number != i+1 {
			t.Errorf("call %d has number %d", i+1, c.Number)
		}
		if got := relative(t, dir, c); got != want[i] {
			t.Errorf("call %d is %q, want %q", i+1, got, want[i])
		}
	}
}

// relative is a call as steps has it: the path from root/, "#" for a file without a name, no number.
func relative(t *testing.T, dir string, c Call) string {
	t.Helper()
	if c.Path != "" {
		p, err := filepath.Rel(filepath.Join(dir, "root"), c.Path)
		must(t, err)
		if strings.HasPrefix(p, "#") {
			p = "#"
		}
		c.Path = p
	}
	_, s, _ := strings.Cut(c.String(), " ")
	return s
}

// names lists what is in root/.
func names(t *testing.T, dir string) []string {
	t.Helper()
	es, err := os.ReadDir(filepath.Join(dir, "root"))
	must(t, err)
	var ns []string
	for _, e := range es {
		ns = append(ns, e.Name())
	}
	return ns
}

func TestKillBeforeEachCall(t *testing.T) {
	for n := 1; n <= numDirs; n++ {
		dir := ground(t)
		r := run(t, "dirs", dir, Fault{Kind: Kill, N: n}, Options{})
		if !r.Struck || r.Status != 128+int(unix.SIGKILL) || len(r.Calls) != n {
			t.Errorf("kill %d: struck %t, status %d, %d calls", n, r.Struck, r.Status, len(r.Calls))
		}
		if want := dirName(dir, "d", n-1); r.Hit.Path != want || r.Hit.Number != n {
			t.Errorf("kill %d: hit %v, want %s", n, r.Hit, want)
		}
		if got := names(t, dir); len(got) != n-1 {
			t.Errorf("kill %d: left %q", n, got)
		}
	}
	dir := ground(t)
	r := run(t, "dirs", dir, Fault{Kind: Kill, N: numDirs + 1}, Options{})
	if r.Struck || r.Status != 0 || len(names(t, dir)) != numDirs {
		t.Errorf("kill after the end: struck %t, status %d", r.Struck, r.Status)
	}
}

func TestThreadsAndChildren(t *testing.T) {
	const all = (numThreads + numChildren) * numDirs
	dir := ground(t)
	r := run(t, "threads", dir, Fault{}, Options{})
	if r.Status != 0 {
		t.Fatalf("status %d: %s", r.Status, r.Stderr)
	}
	seen := map[string]bool{}
	for i, c := range r.Calls {
		if seen[c.Path] || c.Number != i+1 {
			t.Errorf("call %d: %v, seen %t", i+1, c, seen[c.Path])
		}
		seen[c.Path] = true
	}
	if len(r.Calls) != all || len(names(t, dir)) != all {
		t.Errorf("%d calls, %d directories, want %d", len(r.Calls), len(names(t, dir)), all)
	}
	for n := 1; n < all; n += 17 {
		dir := ground(t)
		r := run(t, "threads", dir, Fault{Kind: Kill, N: n}, Options{})
		made := len(names(t, dir))
		// The other threads may have been killed on their way.
		if !r.Struck || made >= n || made < n-numThreads-numChildren {
			t.Errorf("kill %d: struck %t, %d directories", n, r.Struck, made)
		}
		if _, err := os.Lstat(r.Hit.Path); err == nil {
			t.Errorf("kill %d: %s was made", n, r.Hit.Path)
		}
	}
}

func TestFail(t *testing.T) {
	for n := 1; n <= numDirs; n++ {
		dir := ground(t)
		r := run(t, "dirs", dir, Fault{Kind: Fail, N: n, Errno: unix.ENOSPC}, Options{})
		want := strconv.Itoa(n-1) + " mkdir " + dirName(dir, "d", n-1) + ": no space left on device\n"
		if r.Stdout != want || r.Status != 0 || !r.Struck {
			t.Errorf("ENOSPC %d: status %d, said %q, want %q", n, r.Status, r.Stdout, want)
		}
		if got := names(t, dir); len(got) != numDirs-1 || slices.Contains(got, filepath.Base(dirName(dir, "d", n-1))) {
			t.Errorf("ENOSPC %d: %q", n, got)
		}
	}
}

func TestFailAgain(t *testing.T) {
	for times, want := range []string{"1\n0\n", "1\n0\n", "2\n0\n", "3\n0\n"} {
		dir := ground(t)
		r := run(t, "retry", dir, Fault{Kind: Fail, N: 1, Errno: unix.EINTR, Times: times}, Options{})
		if r.Stdout != want || len(names(t, dir)) != 2 {
			t.Errorf("%d times: %q, want %q", times, r.Stdout, want)
		}
	}
}

func TestShort(t *testing.T) {
	for n, want := range []string{"1000\n1000\n1\n", "500\n1000\n1\n", "1000\n500\n1\n", "1000\n1000\n1\n"} {
		dir := ground(t)
		r := run(t, "write", dir, Fault{Kind: Short, N: n}, Options{})
		if r.Stdout != want || r.Struck != (n == 1 || n == 2) {
			t.Errorf("short %d: %q, struck %t; want %q", n, r.Stdout, r.Struck, want)
		}
	}
}

func TestNoTmpfile(t *testing.T) {
	dir := ground(t)
	r := run(t, "tmpfile", dir, Fault{}, Options{NoTmpfile: true})
	if r.Stdout != "operation not supported\n" || len(r.Calls) != 1 || r.Calls[0].Name != "mkdirat" {
		t.Errorf("%q, %v", r.Stdout, r.Calls)
	}
}

func TestNoRing(t *testing.T) {
	if r := run(t, "uring", ground(t), Fault{}, Options{}); r.Stdout != "function not implemented\n" {
		t.Errorf("said %q", r.Stdout)
	}
}

func TestLimit(t *testing.T) {
	_, err := try("sleep", ground(t), Fault{}, Options{Limit: 300 * time.Millisecond})
	if !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v", err)
	}
}

// TestNothingStays ends a program whose child runs on: both must be gone.
func TestNothingStays(t *testing.T) {
	dir := ground(t)
	self, err := os.Executable()
	must(t, err)
	tr := &tracer{options: Options{Roots: []string{dir}, Env: []string{actVariable + "=sleep"}, Limit: 500 * time.Millisecond}}
	r, err := tr.run([]string{self, dir})
	if !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(r.Stdout))
	if err != nil {
		t.Fatalf("no child: %q %q", r.Stdout, r.Stderr)
	}
	// What nobody has waited for yet has no memory and no files any more.
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err == nil && !strings.Contains(string(status), "\nState:\tZ") {
		t.Errorf("child %d is still there:\n%s", pid, status)
	}
}

func TestSignals(t *testing.T) {
	r := run(t, "signals", ground(t), Fault{}, Options{})
	if r.Stdout != "user defined signal 1\n" || r.Status != 128+int(unix.SIGKILL) {
		t.Errorf("status %d, said %q", r.Status, r.Stdout)
	}
}

func TestNotStarted(t *testing.T) {
	dir := ground(t)
	_, err := Run([]string{filepath.Join(dir, "nothing")}, Fault{}, Options{Roots: []string{dir}})
	if err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("got %v", err)
	}
}

func TestParseFault(t *testing.T) {
	for _, s := range []string{"kill:1", "short:20", "ENOSPC:3", "EDQUOT:17", "EINTR*5:3"} {
		f, err := ParseFault(s)
		if err != nil || f.String() != s {
			t.Errorf("%q: %v, %v", s, f, err)
		}
	}
	for _, s := range []string{"", "kill", "kill:0", "kill:x", "ENOTHING:1", "EIO*0:1", ":1"} {
		if f, err := ParseFault(s); err == nil {
			t.Errorf("%q: %v", s, f)
		}
	}
}

func TestBelow(t *testing.T) {
	roots := []string{"/a/b", "/c"}
	for path, want := range map[string]bool{
		"/a/b": true, "/a/b/x": true, "/a/bb": false, "/a": false, "/c/d": true, "": false, "pipe:[1]": false,
	} {
		if below(path, roots) != want {
			t.Errorf("%q: not %t", path, want)
		}
	}
}
