// Command mount measures what a mounted tree costs in each mode, beside the FUSE servers that people use today, and says
// line by line whether the goals are met. Everything is relative to the native mount (EROFS and overlayfs) of the same run:
// on a shared machine nothing else means anything.
//
//	go run ./tests/bench/mount [-n ROUNDS] [-run REGEXP] [-sides A,B] [-other BINARY] [-json FILE]
//
// All sides take turns at each row, in alternating order, each time on a mount of its own: "cold" is the first pass over a
// fresh mount, "warm" the better of two more. Objects lie on a tmpfs and the images in page cache, so the disk has no part.
// CPU is that of clients and servers together.
//
// It needs root, the peers (tests/peers/setup.sh, tests/bench/mount/peers.sh), the server image (tests/bench/corpus.sh), and
// 6 GB of memory. It works in mount and PID namespaces of its own, which leave nothing behind however it ends.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/flatroot/flatroot/tests/bench/kit"
)

// settings are the command line.
type settings struct {
	flatroot, helper string // our binaries
	other            string // another build of helper; empty: none
	peers            string // as tests/peers/setup.sh and peers.sh made them
	corpus           string // as tests/bench/corpus.sh made it
	work             string // on a tmpfs; empty: a new one
	images           string // on a file system whose files EROFS mounts; empty: a new one
	json             string
	rounds           int
	rows             *regexp.Regexp
	sides            []string // empty: all
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == clientCommand {
		fatal(client(os.Args[2:]))
		return
	}
	s, err := parse()
	if err == nil && inSandbox() {
		err = measureAll(s)
	} else if err == nil {
		err = sandbox(s)
	}
	fatal(err)
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/mount:", err)
		os.Exit(1)
	}
}

func parse() (*settings, error) {
	s := &settings{}
	var rows, sides string
	flag.StringVar(&s.flatroot, "flatroot", "bin/flatroot", "`binary` that makes the images")
	flag.StringVar(&s.helper, "helper", "bin/mount.flatroot", "`binary` to measure")
	flag.StringVar(&s.other, "other", "", "another build of the helper, to compare: its sides are marked with "+otherMark+" (`binary`)")
	flag.StringVar(&s.peers, "peers", kit.Env("FLATROOT_PEERS", "/var/cache/flatroot-peers"), "`directory` of the peers")
	flag.StringVar(&s.corpus, "corpus", kit.Env("FLATROOT_CORPUS", "/var/cache/flatroot-corpus"), "`directory` of the images")
	flag.StringVar(&s.work, "work", "", "`directory` on a tmpfs, kept for the next run (default: a new one in /dev/shm, removed)")
	flag.StringVar(&s.images, "images", "", "`directory` for images, kept, not on a tmpfs (default: a new one in /var/tmp, removed)")
	flag.StringVar(&s.json, "json", "", "write each sample as a line of JSON to `file`")
	flag.IntVar(&s.rounds, "n", 5, "rounds")
	flag.StringVar(&rows, "run", "", "only rows whose name matches the `regexp`")
	flag.StringVar(&sides, "sides", "", "only these sides, comma-separated, and native")
	flag.Parse()
	var err error
	if s.rows, err = regexp.Compile(rows); err != nil {
		return nil, err
	}
	if sides != "" {
		s.sides = strings.Split(sides, ",")
	}
	for _, p := range []*string{&s.flatroot, &s.helper, &s.other, &s.peers, &s.corpus} {
		if *p == "" {
			continue
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return nil, err
		}
	}
	return s, nil
}
