package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"

	"github.com/flatroot/flatroot/store"
)

// storeVariable is the environment variable that names the store.
const storeVariable = "FLATROOT_STORE"

// rootlessVariable is set in the user namespace of podman unshare, where an ordinary user has the ID 0.
const rootlessVariable = "_CONTAINERS_ROOTLESS_UID"

// storeDir is where the store is: given, or where it is when nobody says.
func storeDir(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	if os.Geteuid() == 0 && os.Getenv(rootlessVariable) == "" {
		return "/var/lib/flatroot", nil
	}
	// The base directory specification takes no relative path here.
	if data := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "flatroot"), nil
	}
	if home := os.Getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local/share/flatroot"), nil
	}
	return "", &hintError{errors.New("no place for the store: HOME is not set"), "--store DIR or " + storeVariable + " names one"}
}

// talk tells the user something besides the results.
func (c *console) talk(format string, args ...any) {
	fmt.Fprintf(c.stderr, "flatroot: %s\n", oneLine(fmt.Sprintf(format, args...)))
}

// tellWaiting says for whom it waits; who is empty if that can't be told.
func (c *console) tellWaiting(who string) {
	c.talk("waiting for %s to finish with the store %s", cmp.Or(who, "another command"), c.store)
}

// listener tells the user of what takes longer, where there are no bars.
func (c *console) listener() listener {
	if c.progress == progressNone {
		return noMeter{}
	}
	return newPlainMeter(c.stderr)
}

// tellLocked says that a lock of somebody else's store is waited for.
func (c *console) tellLocked(lock string) {
	c.talk("waiting for %s, which another program holds", lock)
}

// openStore opens the store to be written.
func (c *console) openStore() (*store.Store, error) { return c.open(store.OpenOptions{}) }

// readStore opens the store to be read only.
func (c *console) readStore() (*store.Store, error) { return c.open(store.OpenOptions{ReadOnly: true}) }

func (c *console) open(o store.OpenOptions) (*store.Store, error) {
	o.Waiting = c.tellWaiting
	s, err := store.Open(c.store, o)
	return s, c.noStore(err)
}

// noStore adds to an error that there is no store what can be done about it.
func (c *console) noStore(err error) error {
	if !errors.Is(err, store.ErrNotStore) {
		return err
	}
	return &hintError{
		fmt.Errorf("there is no store in %s", c.store),
		"`flatroot init --store " + c.store + "` makes one; --store or " + storeVariable + " names another",
	}
}

// printJSON prints one object on one line.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table prints rows in columns; the first row has their titles.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, oneLine(cell))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// size is a number of bytes for people: three digits and a decimal unit.
func size(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f := float64(n)
	unit := -1
	for f >= 999.5 && unit < 5 {
		f /= 1000
		unit++
	}
	digits := 0
	switch {
	case f < 9.995:
		digits = 2
	case f < 99.95:
		digits = 1
	}
	return strconv.FormatFloat(f, 'f', digits, 64) + " " + string("kMGTPE"[unit]) + "B"
}

// counted is a number with its noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// short is the beginning of a digest, enough to tell it from others on a screen.
func short(hex string) string { return hex[:min(12, len(hex))] }
