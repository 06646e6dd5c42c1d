package fuse

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// Of many lines at a time a few are passed on, and the number of the others later.
func TestLimiter(t *testing.T) {
	var got []string
	now := time.Unix(1, 0)
	l := limiter{
		print: func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) },
		now:   func() time.Time { return now },
	}
	for range logLines + 5 {
		l.printf("line %d", 1)
	}
	if want := slices.Repeat([]string{"line 1"}, logLines); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	got, now = nil, now.Add(logPeriod+1)
	l.printf("later")
	if want := []string{"5 more errors in the last 10s", "later"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	(&limiter{}).printf("nobody listens")
}
