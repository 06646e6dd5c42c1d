package store

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// holders says in words who else has a lock on the open directory fd, as far as /proc
// tells: "`flatroot pull x` (process 12)". It is empty if it doesn't.
func holders(fd int) string {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return ""
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return ""
	}
	defer f.Close()
	var who []string
	for _, pid := range lockers(f, st.Ino, os.Getpid()) {
		if len(who) == maxHolders {
			who = append(who, "others")
			break
		}
		who = append(who, process(pid))
	}
	return strings.Join(who, ", ")
}

const (
	maxHolders = 3   // that are named
	maxCommand = 100 // bytes of a command line that are shown
)

// lockers reads /proc/locks: the processes but self that hold a flock on this inode.
// The device is not compared: that of a btrfs subvolume differs from what stat says. A
// line is "1: FLOCK  ADVISORY  READ 1234 fe:00:131 0 EOF", with "->" behind the number
// if the process is only waiting; proc_locks(5).
func lockers(r io.Reader, inode uint64, self int) []int {
	var pids []int
	for lines := bufio.NewScanner(r); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 6 || f[1] != "FLOCK" {
			continue
		}
		parts := strings.Split(f[5], ":")
		pid, err := strconv.Atoi(f[4])
		if err != nil || pid <= 0 || pid == self || parts[len(parts)-1] != strconv.FormatUint(inode, 10) {
			continue
		}
		pids = append(pids, pid)
	}
	return pids
}

// process describes one. Its command line is its own words: only what can be printed
// of it is shown.
func process(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	line := strings.ToValidUTF8(string(bytes.ReplaceAll(bytes.TrimRight(b, "\x00"), []byte{0}, []byte{' '})), "?")
	line = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != '`' {
			return r
		}
		return '?'
	}, line)
	if len(line) > maxCommand {
		line = strings.ToValidUTF8(line[:maxCommand], "") + "…"
	}
	if line == "" {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("`%s` (process %d)", line, pid)
}
