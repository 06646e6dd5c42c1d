package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestJournalEntry(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"object missing", "MESSAGE=object missing\n"},
		{"", "MESSAGE=\n"},
		{"two\nlines", "MESSAGE\n\x09\x00\x00\x00\x00\x00\x00\x00two\nlines\n"},
		{"x\nPRIORITY=0", "MESSAGE\n\x0c\x00\x00\x00\x00\x00\x00\x00x\nPRIORITY=0\n"},
	} {
		got := string(journalEntry(prioWarning, c.text))
		if want := "SYSLOG_IDENTIFIER=flatroot\nPRIORITY=4\n" + c.want; got != want {
			t.Errorf("%q gives %q, want %q", c.text, got, want)
		}
	}
}

func TestReadLines(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for _, c := range []struct {
		in   string
		want []message
	}{
		{"", nil},
		{"\n\n", nil},
		{"<4>a\n<5>b\n", []message{{prioWarning, "a"}, {prioNotice, "b"}}},
		{"panic: x\n\ngoroutine 1", []message{{prioError, "panic: x"}, {prioError, "goroutine 1"}}},
		{"<9>a\n<4\n<4>", []message{{prioError, "<9>a"}, {prioError, "<4"}}},
		{long + "y\n", []message{{prioError, long}, {prioError, "y"}}},
		{"a\n" + long + long, []message{{prioError, "a"}, {prioError, long}, {prioError, long}}},
	} {
		for name, r := range map[string]io.Reader{
			"at once":    strings.NewReader(c.in),
			"by bytes":   iotest.OneByteReader(strings.NewReader(c.in)),
			"by halves":  iotest.HalfReader(strings.NewReader(c.in)),
			"with error": iotest.DataErrReader(strings.NewReader(c.in)),
		} {
			var got []message
			readLines(r, func(m message) { got = append(got, m) })
			if !slices.Equal(got, c.want) {
				t.Errorf("%.20q %s: %.200v, want %.200v", c.in, name, got, c.want)
			}
		}
	}
}

func TestLoggerDrops(t *testing.T) {
	now := time.Unix(1000, 0)
	var got []string
	l := &logger{now: func() time.Time { return now }, write: func(_ priority, s string) { got = append(got, s) }}
	for i := range burst + 7 {
		l.print(prioError, fmt.Sprint(i))
	}
	if len(got) != burst {
		t.Errorf("%d messages of %d", len(got), burst)
	}
	now = now.Add(burstPeriod)
	l.print(prioError, "next")
	if want := []string{"7 more messages were dropped", "next"}; !slices.Equal(got[burst:], want) {
		t.Errorf("then %q, want %q", got[burst:], want)
	}
}

func TestToFile(t *testing.T) {
	var b bytes.Buffer
	toFile(&b)(prioError, "no such object")
	stamp, text, _ := strings.Cut(b.String(), " ")
	if _, err := time.Parse(time.RFC3339Nano, stamp); err != nil || text != "flatroot: no such object\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

// listen is a datagram socket, as a service manager or a journal has one.
func listen(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	must(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
	return c
}

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify("READY=1"); err != nil {
		t.Errorf("nobody listens: %v", err)
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "socket"), "@flatroot-test-" + filepath.Base(t.TempDir()) + t.Name()} {
		c := listen(t, path)
		t.Setenv("NOTIFY_SOCKET", path)
		must(t, Notify("READY=1", "STATUS=mounted"))
		b := make([]byte, 100)
		n, err := c.Read(b)
		if err != nil || string(b[:n]) != "READY=1\nSTATUS=mounted" {
			t.Errorf("%s: %q, %v", path, b[:n], err)
		}
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if err := Notify("READY=1"); err == nil {
		t.Error("no such socket: no error")
	}
	t.Setenv("NOTIFY_SOCKET", "vsock:2:1234")
	if err := Notify("READY=1"); err == nil {
		t.Error("not a local socket: no error")
	}
}

// TestFullJournal: messages are lost rather than waited for.
func TestFullJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	listen(t, path)
	var err error
	for range 100000 {
		if err = sendDatagram(path, journalEntry(prioError, "again"), 0x40 /* MSG_DONTWAIT */); err != nil {
			break
		}
	}
	if !isAgain(err) {
		t.Errorf("nobody reads: %v", err)
	}
}

func isAgain(err error) bool {
	var e interface{ Temporary() bool }
	return errors.As(err, &e) && e.Temporary()
}
