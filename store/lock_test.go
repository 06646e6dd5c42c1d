package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatroot/flatroot/store"
)

// holdCommand is the first argument that makes this test's binary hold a store open until it is killed; how, and the store,
// follow.
const holdCommand = "hold-store"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == holdCommand {
		holdStore(os.Args[2], os.Args[3])
	}
	os.Exit(m.Run())
}

func holdStore(how, dir string) {
	s, err := store.Open(dir, store.OpenOptions{})
	if err == nil && how == "exclusive" {
		err = s.LockExclusive(context.Background(), nil)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("held")
	time.Sleep(time.Minute) // should nobody kill it
	os.Exit(0)
}

// hold has another process hold the store open, until release kills it.
func hold(t *testing.T, dir, how string) (pid int, release func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], holdCommand, how, dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	release = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(release)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	return cmd.Process.Pid, release
}

// TestWaiting: who waits is told for whom, and a process that was killed leaves no lock.
func TestWaiting(t *testing.T) {
	s := newStore(t)
	pid, release := hold(t, s.Dir(), "shared")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	var who []string
	err := s.LockExclusive(ctx, func(w string) { who = append(who, w) })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("locked beside another: %v", err)
	}
	if want := fmt.Sprintf("(process %d)", pid); len(who) != 1 || !strings.Contains(who[0], want) ||
		!strings.Contains(who[0], holdCommand) {
		t.Errorf("waits for %q, want one with %q", who, want)
	}
	release()
	must(t, s.LockExclusive(context.Background(), nil))
	must(t, s.LockShared())
	must(t, s.Close())

	_, release = hold(t, s.Dir(), "exclusive")
	var names string
	s2, err := store.Open(s.Dir(), store.OpenOptions{Waiting: func(w string) {
		names = w
		release() // a living one would keep this waiting for a minute
	}})
	must(t, err)
	must(t, s2.Close())
	if !strings.Contains(names, "(process ") {
		t.Errorf("Open waited for %q", names)
	}
}

func TestLockers(t *testing.T) {
	const locks = `1: FLOCK  ADVISORY  WRITE 10 fe:00:7 0 EOF
2: FLOCK  ADVISORY  READ 11 fe:00:77 0 EOF
2: -> FLOCK  ADVISORY  WRITE 12 fe:00:77 0 EOF
3: POSIX  ADVISORY  READ 13 fe:00:77 0 EOF
4: FLOCK  ADVISORY  READ 14 00:1f:77 0 EOF
5: FLOCK  ADVISORY  READ 15 fe:00:77 0 EOF
6: FLOCK  ADVISORY  READ 0 fe:00:77 0 EOF
7: FLOCK  ADVISORY  READ -1 fe:00:77 0 EOF
8: FLOCK  ADVISORY  READ x fe:00:77 0 EOF
9: FLOCK
`
	for _, c := range []struct {
		major, minor uint32
		inode        uint64
		want         []int
	}{
		{0xfe, 0, 77, []int{11}},
		{0, 0x1f, 77, []int{14}},
		{0, 0x20, 77, []int{11, 14}}, // a subvolume's
		{0xfe, 0, 7, []int{10}},
		{0xfe, 0, 8, nil},
	} {
		if got := store.Lockers(strings.NewReader(locks), c.major, c.minor, c.inode, 15); !slices.Equal(got, c.want) {
			t.Errorf("inode %d of %x:%x: %v, want %v", c.inode, c.major, c.minor, got, c.want)
		}
	}
}

func TestDescribeProcess(t *testing.T) {
	long := strings.Repeat("a", 200)
	for command, want := range map[string]string{
		"":                          "process 5",
		"flatroot\x00pull\x00x\x00": "`flatroot pull x` (process 5)",
		"a\x1b[2J\nb`c\xff":         "`a?[2J?b?c?` (process 5)",
		"a\u202eb":                  "`a?b` (process 5)",
		long:                        "`" + long[:100] + "…` (process 5)",
		long[:99] + "é":             "`" + long[:99] + "?…` (process 5)",
	} {
		if got := store.DescribeProcess(5, []byte(command)); got != want {
			t.Errorf("%q: %q, want %q", command, got, want)
		}
	}
}
