//go:build amd64

package crash

import (
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tests/crash/inject"
	"github.com/flatroot/flatroot/tests/testenv"
)

// mode is a kind of fault.
type mode struct {
	name  string
	fault inject.Fault
}

// modes has first those that all scenarios have.
var modes = []mode{
	{"kill", inject.Fault{Kind: inject.Kill}},
	{"ENOSPC", inject.Fault{Kind: inject.Fail, Errno: unix.ENOSPC}},
	{"EIO", inject.Fault{Kind: inject.Fail, Errno: unix.EIO}},
	{"EDQUOT", inject.Fault{Kind: inject.Fail, Errno: unix.EDQUOT}},
	{"EINTR", inject.Fault{Kind: inject.Fail, Errno: unix.EINTR}},
	{"EINTR*3", inject.Fault{Kind: inject.Fail, Errno: unix.EINTR, Times: 3}},
	{"short", inject.Fault{Kind: inject.Short}},
}

// earlyEnds is how many runs in a row have to end before the N-th call until there is none.
const earlyEnds = 3

func TestPoints(t *testing.T) {
	testenv.Need(t, "ptrace")
	makeInputs(t)
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			tpl := prepare(t, scratch, s)
			if *onePoint != "" {
				f, err := inject.ParseFault(*onePoint)
				must(t, err)
				tpl.one(t, f)
				return
			}
			for _, m := range s.modes() {
				t.Run(m.name, func(t *testing.T) { tpl.sweep(t, m.fault, s.step(m.fault)) })
			}
		})
	}
}

func (tpl *template) one(t *testing.T, f inject.Fault) {
	dir := filepath.Join(tpl.root, "point")
	struck, err := tpl.try(dir, f)
	if !struck {
		t.Error("the command ended before that call")
	}
	if err != nil {
		t.Errorf("%v\n\tthe directory is %s", err, dir)
	}
}

// sweep tries every step-th point, others each time, and of kills at least one. It tells how many there were.
func (tpl *template) sweep(t *testing.T, f inject.Fault, step int) int64 {
	start := time.Now()
	points := tpl.from(t, f, rand.IntN(step), step)
	if points == 0 && f.Kind == inject.Kill {
		if points = tpl.from(t, f, 0, step); points == 0 {
			t.Error("no point at all")
		}
	}
	t.Logf("%d points in %.1f s", points, time.Since(start).Seconds())
	return points
}

// from tries every step-th point after the first few, several at once, and tells how many there were.
func (tpl *template) from(t *testing.T, f inject.Fault, offset, step int) int64 {
	var next, points, failed, early atomic.Int64
	var wg sync.WaitGroup
	for range runtime.NumCPU() {
		wg.Go(func() {
			for early.Load() < earlyEnds && failed.Load() < maxFailures {
				n := int(next.Add(1)-1)*step + 1 + offset
				at := f
				at.N = n
				struck, err := tpl.try(filepath.Join(tpl.root, dirFor.Replace(tpl.name+" "+at.String())), at)
				if err != nil {
					failed.Add(1)
					t.Error(err)
				}
				if struck {
					points.Add(1)
					early.Store(0)
				} else {
					early.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return points.Load()
}

// dirFor makes a directory's name: a reference to a layout can't have a colon in its path.
var dirFor = strings.NewReplacer(" ", "-", ":", "-", "*", "x")

// maxFailures ends a sweep: more would say nothing new.
const maxFailures = 5
