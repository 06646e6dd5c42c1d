package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clientCommand makes this program a client: `client lstat|small LIST DIR`, `client random FILE READS`,
// `client sequential FILE BYTES`. It prints its cost, its own start not counted.
const clientCommand = "client"

// clientCost is what a client says of itself.
type clientCost struct {
	CPU  float64 `json:"cpu"`  // seconds, user and system
	Wall float64 `json:"wall"` // seconds
}

func client(args []string) error {
	if len(args) < 3 {
		return errors.New("client: too few arguments")
	}
	// Collecting garbage and moving between threads would be measured too.
	debug.SetGCPercent(-1)
	runtime.LockOSThread()
	job, err := clientJob(args[0], args[1], args[2:])
	if err != nil {
		return err
	}
	start, cpu := time.Now(), threadCPU()
	if err := job(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return json.NewEncoder(os.Stdout).Encode(clientCost{CPU: threadCPU() - cpu, Wall: time.Since(start).Seconds()})
}

func clientJob(kind, what string, rest []string) (func() error, error) {
	if kind == "lstat" || kind == "small" {
		return listJob(kind, what, rest[0])
	}
	n, err := strconv.Atoi(rest[0])
	if err != nil {
		return nil, err
	}
	f, err := os.Open(what)
	if err != nil {
		return nil, err
	}
	if kind == "random" {
		return func() error { return readRandom(f, n) }, nil
	}
	return func() error { return readSequential(f, n) }, nil
}

func listJob(kind, list, dir string) (func() error, error) {
	data, err := os.ReadFile(list)
	if err != nil {
		return nil, err
	}
	paths := strings.Fields(string(data))
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	if kind == "lstat" {
		return func() error { return lstatAll(root, paths) }, nil
	}
	return func() error { return readAll(root, paths) }, nil
}

func threadCPU() float64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0 // the kernel has had this clock since 2.6
	}
	return float64(t.Nano()) / 1e9
}

func lstatAll(root int, paths []string) error {
	var st unix.Stat_t
	for _, p := range paths {
		if err := unix.Fstatat(root, p, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("lstat %s: %w", p, err)
		}
	}
	return nil
}

func readAll(root int, paths []string) error {
	buf := make([]byte, 64<<10)
	for _, p := range paths {
		fd, err := unix.Openat(root, p, unix.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", p, err)
		}
		n := 1
		for n > 0 && err == nil {
			n, err = unix.Read(fd, buf)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", p, err)
		}
		if err := unix.Close(fd); err != nil {
			return fmt.Errorf("close %s: %w", p, err)
		}
	}
	return nil
}

func readRandom(f *os.File, reads int) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	fd, buf := int(f.Fd()), make([]byte, 4096)
	random := rand.New(rand.NewPCG(3, 4)) // the same places for every side
	for range reads {
		off := random.Int64N(st.Size()/4096) * 4096
		if _, err := unix.Pread(fd, buf, off); err != nil {
			return fmt.Errorf("read at %d: %w", off, err)
		}
	}
	return nil
}

func readSequential(f *os.File, size int) error {
	fd, buf := int(f.Fd()), make([]byte, 128<<10)
	for got := 0; got < size; {
		n, err := unix.Read(fd, buf)
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		got += n
	}
	return nil
}
