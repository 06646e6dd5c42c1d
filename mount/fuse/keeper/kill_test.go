package keeper

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tests/testenv"
)

// TestKilledServer kills the server again and again while files are read.
func TestKilledServer(t *testing.T) {
	needSessions(t)
	k := mountSample(t, Options{})
	for_, reading := 10*time.Second, 4
	if testenv.Nightly() {
		for_ = time.Minute
	}
	r := k.startReaders(reading)
	kills, last := 0, 0
	for end := time.Now().Add(for_); time.Now().Before(end); {
		last = k.server(t, last)
		time.Sleep(100 * time.Millisecond)
		must(t, unix.Kill(last, unix.SIGKILL))
		kills++
	}
	reads, err := r.finish()
	if err != nil {
		t.Error(err)
	}
	if reads < int64(kills) {
		t.Errorf("%d reads beside %d kills: readers stand still", reads, kills)
	}
	t.Logf("%d servers killed, %d files read", kills, reads)
	k.unmount(t)
}
