//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// watch passes on what a test program writes, and ends a program that has fallen silent.
type watch struct {
	out   io.Writer
	mu    sync.Mutex
	timer *time.Timer
}

// start begins to wait for lines of p.
func (w *watch) start(p *os.Process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(silence, func() { w.end(p) })
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
}

func (w *watch) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Reset(silence)
	}
	return w.out.Write(b)
}

// end has the program print where its goroutines are (SIGQUIT), the kernel log where all tasks are, and kills it.
func (w *watch) end(p *os.Process) {
	fmt.Fprintf(w.out, "guest: no line for %v\n", silence)
	p.Signal(unix.SIGQUIT)
	time.Sleep(5 * time.Second)
	logTasks()
	p.Kill()
}

// logTasks has the kernel write to its console where every task is.
func logTasks() {
	// Documentation/admin-guide/sysrq.rst: 9 lets all messages through, w is for blocked tasks, t for all of them.
	for _, command := range []string{"9", "w", "t"} {
		if err := os.WriteFile("/proc/sysrq-trigger", []byte(command), 0); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}
