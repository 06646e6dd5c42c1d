package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse"
)

func fullState() *state {
	return &state{
		Service: mount.Service{View: mount.ViewPlain, Digest: fsverity.Sum(fsverity.SHA512, nil), Image: mount.ImageBlocks},
		Session: &fuse.Session{Major: 7, Minor: 31}, Readers: 2, NoRestart: true, Initrd: true, LogKind: logFile, Exe: "/bin/x",
		Image: 3, Objects: []int{4, 5}, Device: 6, Log: 7,
		Servers: []adopted{{PID: 99, Control: 8, Messages: 9, Clones: []int{10, 11}}},
	}
}

func TestStateSurvives(t *testing.T) {
	for _, s := range []*state{fullState(), {Image: 3}} {
		fd, err := s.memory()
		must(t, err)
		got, err := readState(fd)
		must(t, err)
		if !reflect.DeepEqual(got, s) {
			t.Errorf("wrote %+v, read %+v", s, got)
		}
	}
	if got := fullState().descriptors(); !slices.Equal(got, []int{3, 6, 7, 4, 5, 8, 9, 10, 11}) {
		t.Errorf("descriptors %v", got)
	}
}

func TestBadState(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{``, "JSON"},
		{`{"version":2,"image":3}`, "version 2"},
		{`{"image":3}`, "version 0"},
		{`{"version":1}`, "no image"},
		{`{"version":1,"image":2}`, "descriptor 2"},
		{`{"version":1,"image":3,"clones":[-1]}`, "descriptor -1"},
		{`{"version":1,"image":3,"service":{"digest":"zz"}}`, "digits"},
	} {
		if _, err := parseState([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want one with %q", c.text, err, c.want)
		}
	}
	if _, err := readState(12345); err == nil {
		t.Error("no such descriptor: no error")
	}
}

func FuzzState(f *testing.F) {
	b, err := json.Marshal(fullState())
	must(f, err)
	f.Add(b)
	f.Add([]byte(`{"version":1,"image":3}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseState(b)
		if err != nil {
			return
		}
		for _, fd := range s.descriptors() {
			if fd <= 2 {
				t.Errorf("descriptor %d", fd)
			}
		}
	})
}

// TestRemoteError: what callers branch on comes through the pipe.
func TestRemoteError(t *testing.T) {
	for _, err := range []error{
		errors.New("plain"),
		fmt.Errorf("open: %w", unix.EMFILE),
		fmt.Errorf("open: %w", unix.EACCES),
	} {
		b, merr := json.Marshal(started{Failure: newRemoteError(err)})
		must(t, merr)
		got := readStatus(strings.NewReader(string(b)))
		if got == nil || got.Error() != err.Error() {
			t.Fatalf("%v became %v", err, got)
		}
		for _, target := range []error{unix.EMFILE, fs.ErrPermission} {
			if errors.Is(got, target) != errors.Is(err, target) {
				t.Errorf("%v is %v in one process only", err, target)
			}
		}
	}
}

func TestStatus(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "keeper.Main",
		"{":                            "JSON",
		`{"failure":{"error":"none"}}`: "none",
	} {
		if err := readStatus(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want one with %q", text, err, want)
		}
	}
	must(t, readStatus(strings.NewReader("{}")))
}

func TestRoles(t *testing.T) {
	s := &state{Image: 3, Initrd: true}
	for _, c := range []struct {
		args []string
		want bool
	}{
		{keeperRole.argv(s, 5), true},
		{keeperRole.argv(new(state), 5), true},
		{serverRole.argv(s, 5), false},
		{[]string{"flatroot-keeper", "--keep-session"}, false},
		{[]string{"mount.flatroot", "--keep-session", "5"}, false},
		{[]string{"flatroot-keeper", "image", "dir"}, false},
		{nil, false},
	} {
		if got := keeperRole.is(c.args); got != c.want {
			t.Errorf("%q is a keeper: %v", c.args, got)
		}
	}
	if a := keeperRole.argv(s, 5); a[0][0] != '@' {
		t.Errorf("in the initramfs: %q", a)
	}
	if code, is := Main([]string{"flatroot-server", serverRole.word, "1"}); !is || code != exitUsage {
		t.Errorf("by hand: %v, code %d", is, code)
	}
	if _, is := Main([]string{"flatroot"}); is {
		t.Error("a command is taken for a keeper")
	}
}

func TestRestarts(t *testing.T) {
	var r restarts
	if wait, again := r.died(time.Hour); !again || wait != 0 {
		t.Errorf("after an hour: %v %v", wait, again)
	}
	var total time.Duration
	for i := range maxShort {
		wait, again := r.died(time.Millisecond)
		if !again || wait > longestWait || i > 1 && wait == 0 {
			t.Errorf("death %d: %v %v", i, wait, again)
		}
		total += wait
	}
	if total > 10*time.Second {
		t.Errorf("readers wait %v for nothing", total)
	}
	was := r
	if _, again := r.died(0); again {
		t.Error("no end")
	}
	if wait, again := was.died(longEnough); !again || wait != 0 {
		t.Errorf("after a good one: %v %v", wait, again)
	}
}

func TestCannotResend(t *testing.T) {
	died := errors.New("the FUSE server ended")
	if s := cannotResend(died, fmt.Errorf("x: %w", unix.EINVAL)).Error(); !strings.Contains(s, "Linux 6.9") {
		t.Error(s)
	}
	if err := cannotResend(died, unix.EIO); !errors.Is(err, unix.EIO) || !errors.Is(err, died) {
		t.Error(err)
	}
}
