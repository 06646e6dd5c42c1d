package kit

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Cost is what a command took.
type Cost struct {
	CPU, Wall float64 // seconds; CPU is user and system time
	RSS       float64 // MiB, of the largest process
}

// CPU, Wall and RSS are for Ratio and Middle.
func CPU(c Cost) float64  { return c.CPU }
func Wall(c Cost) float64 { return c.Wall }
func RSS(c Cost) float64  { return c.RSS }

// Measure runs a command and gives what it printed on standard output. What it said is in the error.
func Measure(args ...string) (c Cost, out string, err error) {
	cmd := exec.Command(args[0], args[1:]...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return c, "", fmt.Errorf("%s: %w\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	c.Wall = time.Since(start).Seconds()
	u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	c.CPU = time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
	c.RSS = float64(u.Maxrss) / 1024
	return c, stdout.String(), nil
}

// Ratio gives the median of the pairs' ratios, and the range, in Markdown.
func Ratio(ours, others []Cost, of func(Cost) float64, decimals int) string {
	r := make([]float64, len(ours))
	for i := range r {
		r[i] = of(ours[i]) / of(others[i])
	}
	slices.Sort(r)
	return fmt.Sprintf("**%.*f** (%.*f-%.*f)", decimals, r[len(r)/2], decimals, r[0], decimals, r[len(r)-1])
}

// Middle is the median of one figure.
func Middle(c []Cost, of func(Cost) float64) float64 {
	v := make([]float64, len(c))
	for i := range v {
		v[i] = of(c[i])
	}
	return Median(v)
}
