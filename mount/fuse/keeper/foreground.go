package keeper

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Foreground is for a starter that stays: it tells the service manager that the
// mount is there, and returns when the session is over, as Wait does. SIGTERM and
// SIGINT have it call unmount, which should not wait for those who still use the
// mount; a second one has it return at once, and leaves the keeper to itself.
func (l *Launcher) Foreground(unmount func() error) error {
	if l.ended == nil {
		return l.Wait()
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, unix.SIGTERM, unix.SIGINT)
	defer signal.Stop(told)
	if err := Notify("READY=1"); err != nil {
		return err
	}
	select {
	case <-l.ended:
		return l.err
	case s := <-told:
		if err := unmount(); err != nil {
			return fmt.Errorf("on %v: %w", s, err)
		}
	}
	if err := Notify("STOPPING=1"); err != nil {
		return err
	}
	select {
	case <-l.ended:
		return l.err
	case <-told:
		return nil
	}
}
