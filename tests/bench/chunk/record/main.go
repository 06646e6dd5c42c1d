// Command record makes a trace for tests/bench/chunk of a root tree: the source packages that its files come from, how much
// they have, and the days on which its changelogs say that they changed.
//
//	go run ./tests/bench/chunk/record -end DATE -about TEXT ROOT >tests/bench/chunk/testdata/NAME.json.gz
//
// What has no owner, and the package database, is left out: all ways to cut an image fetch these alike. Of Debian's packages
// only uploads to unstable count, since a trace is to be of an image that follows it, or testing: so a tree of a stable release
// has its end where the freeze began.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/flatroot/flatroot/tests/bench/chunk/replay"
	"github.com/flatroot/flatroot/tests/bench/chunk/sources"
)

func main() {
	end := flag.String("end", "", "`date` of the last change that counts, as 2006-01-02")
	about := flag.String("about", "", "`text`: what the tree is")
	flag.Parse()
	if err := run(*end, *about, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

func run(end, about string, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: record -end DATE -about TEXT ROOT")
	}
	t := &replay.Trace{About: about}
	var err error
	if t.End, err = time.Parse(time.DateOnly, end); err != nil {
		return fmt.Errorf("-end: %w", err)
	}
	root, err := os.OpenRoot(args[0])
	if err != nil {
		return err
	}
	defer root.Close()
	found, err := sources.Read(root)
	if err != nil {
		return err
	}
	for _, s := range found {
		t.Components = append(t.Components, replay.Component{Name: s.Name, Size: s.Size, Changes: s.Changes})
	}
	return replay.WriteTrace(os.Stdout, t)
}
