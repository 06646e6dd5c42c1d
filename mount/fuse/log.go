package fuse

import (
	"sync"
	"time"
)

// limiter passes a few lines on in each period, and says how many it held back.
type limiter struct {
	print func(format string, args ...any) // nil: nobody listens
	now   func() time.Time                 // nil: time.Now

	mu    sync.Mutex
	until time.Time // the end of the period
	lines int       // in the period
	held  int       // of them, not passed on
}

const (
	logPeriod = 10 * time.Second
	logLines  = 10 // in a period
)

func (l *limiter) printf(format string, args ...any) {
	if l.print == nil {
		return
	}
	held, ok := l.admit()
	if held > 0 {
		l.print("%d more errors in the last %v", held, logPeriod)
	}
	if ok {
		l.print(format, args...)
	}
}

// admit tells whether a line may pass, and how many of the period before could not.
func (l *limiter) admit() (held int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now
	if l.now != nil {
		now = l.now
	}
	if t := now(); t.After(l.until) {
		held, l.held, l.lines, l.until = l.held, 0, 0, t.Add(logPeriod)
	}
	if l.lines++; l.lines <= logLines {
		return held, true
	}
	l.held++
	return held, false
}
