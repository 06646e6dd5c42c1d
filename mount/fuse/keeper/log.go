package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// identifier is who messages come from.
const identifier = "flatroot"

// priority is of syslog(3).
type priority byte

const (
	prioError   priority = 3
	prioWarning priority = 4
	prioNotice  priority = 5
)

// prefix is how a line of standard error tells its priority (sd-daemon(3)).
func (p priority) prefix() string { return "<" + string('0'+byte(p)) + ">" }

// splitPriority takes a prefix off a line. What has none was not written by us but
// by the Go runtime, which writes only when it is about to die.
func splitPriority(line []byte) (priority, []byte) {
	if len(line) < 3 || line[0] != '<' || line[2] != '>' || line[1] < '0' || line[1] > '7' {
		return prioError, line
	}
	return priority(line[1] - '0'), line[3:]
}

// logKind says where messages go.
type logKind string

const (
	logSystem logKind = ""       // the journal, or in the initramfs the kernel's log
	logFile   logKind = "file"   // the descriptor state.Log
	logStderr logKind = "stderr" // standard error, which is the starter's
)

// Bounds of logging. An image with a thousand missing objects must not fill a
// disk, nor must a line of a server that has gone mad fill memory.
const (
	maxLine     = 4096 // bytes
	burst       = 100  // messages in one period
	burstPeriod = 10 * time.Second
)

// logger passes messages on, as many as burst allows. It is for one goroutine.
type logger struct {
	write func(p priority, text string)
	now   func() time.Time

	began   time.Time // of the period
	written int       // in it
	dropped int
}

func newLogger(s *state) *logger {
	l := &logger{now: time.Now}
	switch s.LogKind {
	case logFile:
		l.write = toFile(os.NewFile(uintptr(s.Log), "log"))
	case logStderr:
		l.write = func(_ priority, text string) { fmt.Fprintf(os.Stderr, "%s: %s\n", identifier, text) }
	default:
		l.write = toSystem(s.Initrd)
	}
	return l
}

// print writes one message, or counts it as dropped.
func (l *logger) print(p priority, text string) {
	now := l.now()
	if now.Sub(l.began) >= burstPeriod {
		if l.dropped > 0 {
			l.write(prioWarning, fmt.Sprintf("%d more messages were dropped", l.dropped))
		}
		l.began, l.written, l.dropped = now, 0, 0
	}
	if l.written == burst {
		l.dropped++
		return
	}
	l.written++
	l.write(p, text)
}

// toSystem writes to the journal, without waiting for it. It connects anew for
// each message: journald may have been restarted, or not have begun.
func toSystem(initrd bool) func(priority, string) {
	return func(p priority, text string) {
		err := sendDatagram(journalSocket, journalEntry(p, text), unix.MSG_DONTWAIT)
		if initrd && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED)) {
			toKernel(p, text)
		}
	}
}

// toKernel writes to the kernel's log, of which the initramfs is sure.
func toKernel(p priority, text string) {
	f, err := os.OpenFile(root+"/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		return // there is nobody left to tell
	}
	defer f.Close()
	fmt.Fprintf(f, "%s%s: %s\n", p.prefix(), identifier, text)
}

// toFile writes lines with the time, in UTC.
func toFile(f io.Writer) func(priority, string) {
	return func(_ priority, text string) {
		t := time.Now().UTC().Format(time.RFC3339Nano)
		fmt.Fprintf(f, "%s %s: %s\n", t, identifier, text)
	}
}

// message is a line to be logged.
type message struct {
	priority priority
	text     string
}

// readLines sends each line of r, until its end. Lines are cut at maxLine.
func readLines(r io.Reader, send func(message)) {
	buf := make([]byte, 0, maxLine)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = sendLines(buf[:len(buf)+n], send)
		if err != nil {
			if len(buf) > 0 {
				sendLine(buf, send)
			}
			return
		}
	}
}

// sendLines sends what is complete, or as long as a line may be, and returns the
// rest, at the beginning of buf.
func sendLines(buf []byte, send func(message)) []byte {
	rest := buf
	for {
		line, after, found := bytes.Cut(rest, []byte{'\n'})
		if !found {
			break
		}
		sendLine(line, send)
		rest = after
	}
	if len(rest) == cap(buf) {
		sendLine(rest, send)
		rest = nil
	}
	return buf[:copy(buf, rest)]
}

func sendLine(line []byte, send func(message)) {
	p, text := splitPriority(line)
	if len(text) > 0 {
		send(message{p, string(text)})
	}
}
