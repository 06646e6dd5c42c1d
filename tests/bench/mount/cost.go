package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// sample is one pass of one side over one row; the fields are those of -json.
type sample struct {
	Row      string  `json:"row"`
	Side     string  `json:"side"`
	Round    int     `json:"round"`
	CPU      float64 `json:"cpu"`        // seconds: clients and servers
	Server   float64 `json:"server_cpu"` // seconds: servers alone
	Wall     float64 `json:"wall"`       // seconds
	Replies  int64   `json:"replies"`    // calls of write by the servers: requests that they answered
	Bytes    int64   `json:"bytes"`      // that they wrote
	RssAnon  int64   `json:"rss_anon"`   // bytes of all servers, afterwards
	RssTotal int64   `json:"rss"`        // with mapped files
}

// usage is what a mount's processes have taken so far.
type usage struct {
	cpu             float64
	writes, written int64
}

func serversUsage(pids []int) (usage, error) {
	var sum usage
	for _, pid := range pids {
		cpu, err := processCPU(pid)
		if err != nil {
			return usage{}, fmt.Errorf("CPU time of server %d: %w", pid, err)
		}
		io, err := fields(pid, "io")
		if err != nil {
			return usage{}, err
		}
		sum.cpu += cpu
		sum.writes += io["syscw"]
		sum.written += io["wchar"]
	}
	return sum, nil
}

// processCPU reads another process's CPU clock, in seconds. /proc/PID/stat counts in hundredths only.
func processCPU(pid int) (float64, error) {
	const cpuclockSched = 2 // include/linux/posix-timers_types.h: CPUCLOCK_SCHED
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuclockSched), &t); err != nil {
		return 0, err
	}
	return float64(t.Nano()) / 1e9, nil
}

// memory gives RssAnon and VmRSS of all processes together, in bytes.
func memory(pids []int) (anon, total int64, err error) {
	for _, pid := range pids {
		f, err := fields(pid, "status")
		if err != nil {
			return 0, 0, err
		}
		anon += f["RssAnon"] << 10 // the file says kB
		total += f["VmRSS"] << 10
	}
	return anon, total, nil
}

// fields reads the lines "NAME: NUMBER" of a file of /proc/PID; others are left out.
func fields(pid int, file string) (map[string]int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return nil, err
	}
	values := map[string]int64{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		if n, err := strconv.ParseInt(number, 10, 64); err == nil {
			values[name] = n
		}
	}
	return values, nil
}
