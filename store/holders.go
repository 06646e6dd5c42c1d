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
	for _, pid := range lockers(f, st.Dev, st.Ino, os.Getpid()) {
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

// lockers reads /proc/locks: the processes but self that hold a flock on this inode. A
// line is "1: FLOCK  ADVISORY  READ 1234 fe:00:131 0 EOF", with "->" behind the number
// if the process is only waiting; proc_locks(5). The device, in hexadecimal, is that of
// the file system: stat says another one for a btrfs subvolume. So where none is on
// this device, those on any count.
func lockers(r io.Reader, device, inode uint64, self int) []int {
	var here, anywhere []int
	on := fmt.Sprintf("%02x:%02x", unix.Major(device), unix.Minor(device))
	for lines := bufio.NewScanner(r); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 6 || f[1] != "FLOCK" {
			continue
		}
		at := strings.LastIndexByte(f[5], ':')
		pid, err := strconv.Atoi(f[4])
		if err != nil || pid <= 0 || pid == self || at < 0 || f[5][at+1:] != strconv.FormatUint(inode, 10) {
			continue
		}
		anywhere = append(anywhere, pid)
		if f[5][:at] == on {
			here = append(here, pid)
		}
	}
	if here == nil {
		return anywhere
	}
	return here
}

// process describes one. Its command line is its own words: only what can be printed
// of it is shown.
func process(pid int) string {
	return describe(pid, readStart(fmt.Sprintf("/proc/%d/cmdline", pid)))
}

// readStart reads as much of a file as may be shown, and one byte more.
func readStart(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, maxCommand+1))
	return b
}

func describe(pid int, command []byte) string {
	more := ""
	if len(command) > maxCommand {
		command, more = command[:maxCommand], "…"
	}
	command = bytes.ReplaceAll(bytes.TrimRight(command, "\x00"), []byte{0}, []byte{' '})
	line := strings.ToValidUTF8(string(command), "?")
	line = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != '`' {
			return r
		}
		return '?'
	}, line)
	line += more
	if line == "" {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("`%s` (process %d)", line, pid)
}
