package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// row is a job that every side does on a fresh mount, and then again.
type row struct {
	name    string
	image   func(d *data) image
	run     func(d *data, target string) (clientCost, error)
	sides   []string // empty: all
	rounds  int      // at most; 0: as many as asked for
	noWarm  bool
	explain string
}

func theTree(d *data) image { return d.tree }

func allRows() []row {
	return []row{
		{name: "find", image: theTree, explain: "`find -ls` of the tree", run: find},
		{name: "lstat", image: theTree, explain: "lstat of all paths, shuffled, 2 processes", run: listed("lstat")},
		{name: "small", image: theTree, explain: "open, read, close of 20,000 files < 32 KiB, 2 processes", run: listed("small")},
		{name: "import", image: theTree, explain: "python3 imports a large program, in a chroot", run: func(_ *data, target string) (clientCost, error) {
			return program("chroot", target, "/usr/bin/python3", "-B", "-c", "import certbot.main")
		}},
		{name: "tar", image: theTree, explain: "tar of several directories to a pipe", run: func(d *data, target string) (clientCost, error) {
			// To /dev/null itself tar reads no content.
			return program(append([]string{"sh", "-c", `tar -cf - -C "$0" "$@" | cat >/dev/null`, target}, d.tarDirs...)...)
		}},
		{name: "random", image: theTree, explain: "10,000 random reads of 4 KiB in a file of 1 GiB", run: onBigFile("random", 10_000)},
		{name: "sequential", image: theTree, explain: "its first 512 MiB in reads of 128 KiB", run: onBigFile("sequential", 512<<20)},
		{
			name: "whole file", image: theTree, explain: "all of it: what verifying costs", run: onBigFile("sequential", bigFileSize),
			sides: []string{native, pure, verified},
		},
		{
			name: "million", image: func(d *data) image { return d.million }, explain: "`find -ls` of an image of 1,000,000 inodes", run: find,
			rounds: 1, noWarm: true,
		},
	}
}

func find(_ *data, target string) (clientCost, error) { return program("find", target, "-ls") }

// program runs a command that is a client itself; its children count.
func program(args ...string) (clientCost, error) {
	cmd := exec.Command(args[0], args[1:]...)
	var said strings.Builder
	cmd.Stderr = &said
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return clientCost{}, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, said.String())
	}
	wall := time.Since(start).Seconds()
	u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return clientCost{CPU: time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds(), Wall: wall}, nil
}

// listed runs clients side by side, each with a list of its own.
func listed(job string) func(*data, string) (clientCost, error) {
	return func(d *data, target string) (clientCost, error) {
		var costs [clients]clientCost
		var errs [clients]error
		var all sync.WaitGroup
		for c := range clients {
			all.Go(func() { costs[c], errs[c] = ownClient(job, d.list(job, c), target) })
		}
		all.Wait()
		var sum clientCost
		for _, c := range costs {
			sum.CPU += c.CPU
			sum.Wall = max(sum.Wall, c.Wall)
		}
		return sum, errors.Join(errs[:]...)
	}
}

func onBigFile(job string, n int) func(*data, string) (clientCost, error) {
	return func(_ *data, target string) (clientCost, error) {
		return ownClient(job, filepath.Join(target, bigFile), fmt.Sprint(n))
	}
}

// ownClient runs this program as a client, which says itself what the job cost.
func ownClient(args ...string) (cost clientCost, err error) {
	cmd := exec.Command("/proc/self/exe", append([]string{clientCommand}, args...)...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return cost, fmt.Errorf("%w\n%s", err, said.String())
	}
	return cost, json.Unmarshal(out, &cost)
}

// measure runs the row once on one side: a fresh mount, a cold pass, two warm ones.
func (r row) measure(d *data, s side, round int, emit func(sample)) (err error) {
	m, err := s.mount(d, r.image(d))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.unmount()) }()
	cold, err := m.pass(d, r)
	if err != nil {
		return err
	}
	cold.Row, cold.Side, cold.Round = r.name+" cold", s.name, round
	emit(cold)
	for range 2 {
		if r.noWarm {
			break
		}
		warm, err := m.pass(d, r)
		if err != nil {
			return err
		}
		warm.Row, warm.Side, warm.Round = r.name+" warm", s.name, round
		emit(warm)
	}
	return nil
}

// pass does the job and adds up what clients and servers took for it.
func (m *mounted) pass(d *data, r row) (sample, error) {
	before, err := serversUsage(m.servers)
	if err != nil {
		return sample{}, err
	}
	c, err := r.run(d, m.target)
	if err != nil {
		return sample{}, err
	}
	// The kernel doesn't wait for the answers to RELEASE, nor does the client.
	time.Sleep(3 * time.Millisecond)
	after, err := serversUsage(m.servers)
	if err != nil {
		return sample{}, err
	}
	server := after.cpu - before.cpu
	one := sample{
		CPU: c.CPU + server, Server: server, Wall: c.Wall,
		Replies: after.writes - before.writes, Bytes: after.written - before.written,
	}
	one.RssAnon, one.RssTotal, err = memory(m.servers)
	return one, err
}

// wants tells whether the side takes part.
func (r row) wants(d *data, s side) bool {
	if s.name == composefsC || s.full && r.image(d).name != d.tree.name {
		return false
	}
	return len(r.sides) == 0 || slices.Contains(r.sides, strings.TrimSuffix(s.name, otherMark))
}

func writeSample(w io.Writer, s sample) error { return json.NewEncoder(w).Encode(s) }
