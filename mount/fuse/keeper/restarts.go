package keeper

import "time"

// Bounds of restarting. A request that kills each server that reads it must not
// keep a processor busy for ever, nor its asker waiting.
const (
	longEnough  = 50 * time.Millisecond // a server that answered for so long did some good
	maxShort    = 10                    // servers one after another that didn't
	firstDelay  = 10 * time.Millisecond
	longestWait = time.Second
)

// restarts decides whether another server is worth a try. Its zero value is that
// of a session without deaths.
type restarts struct {
	short int // servers that died soon, since the last that didn't
}

// died takes into account a server that answered for the time lived, and says how
// long to wait before the next, if there shall be one.
func (r *restarts) died(lived time.Duration) (wait time.Duration, again bool) {
	if lived >= longEnough {
		r.short = 0
		return 0, true
	}
	r.short++
	switch {
	case r.short > maxShort:
		return 0, false
	case r.short == 1: // it may be an accident
		return 0, true
	}
	return min(firstDelay<<(r.short-2), longestWait), true
}
