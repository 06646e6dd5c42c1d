// Command alike is chunkah.sh's: it gives chunkah the components that our own plan is made of, and tells what an update by
// that plan fetches.
//
//	alike label ROOT        sets user.component and user.update-interval, which chunkah reads, on all files of source packages
//	alike plan N OLD NEW    bytes, layers and all bytes of an update from OLD to NEW with N layers
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/chunk"
	"github.com/flatroot/flatroot/tests/bench/chunk/sources"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "alike:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "label":
		return label(args[1])
	case len(args) == 4 && args[0] == "plan":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return plan(n, args[2], args[3])
	}
	return errors.New("usage: alike label ROOT | alike plan N OLD NEW")
}

func label(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	found, err := sources.Read(root)
	if err != nil {
		return err
	}
	for _, s := range found {
		for _, name := range s.Paths {
			if err := labelFile(filepath.Join(dir, name), s); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

func labelFile(name string, s *sources.Source) error {
	info, err := os.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return err // others can't have such attributes
	}
	for key, value := range map[string]string{"user.component": s.Name, "user.update-interval": strconv.Itoa(interval(s.Changes))} {
		if err := unix.Lsetxattr(name, key, []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

// interval is the mean one between changes in the last three years that there are any of, in days; a year if there is none.
func interval(changes []time.Time) int {
	const years = 3 * 365 * 24 * time.Hour
	n := 0
	for _, c := range changes {
		if changes[len(changes)-1].Sub(c) < years {
			n++
		}
	}
	if n < 2 {
		return 365
	}
	return max(1, 3*365/n)
}

func components(dir string) (all []chunk.Component, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	found, err := sources.Read(root)
	if err != nil {
		return nil, err
	}
	for _, s := range found {
		d, err := s.Digest(root)
		if err != nil {
			return nil, err
		}
		all = append(all, chunk.Component{Name: s.Name, Size: s.Tar, Changes: s.Changes, Digest: d})
	}
	return all, nil
}

func plan(n int, from, to string) error {
	before, err := components(from)
	if err != nil {
		return err
	}
	after, err := components(to)
	if err != nil {
		return err
	}
	o := chunk.PlanOptions{MaxLayers: n}
	old, err := chunk.NewPlan(before, o)
	if err != nil {
		return err
	}
	o.Previous = old.Record()
	p, err := chunk.NewPlan(after, o)
	if err != nil {
		return err
	}
	var fetched, total int64
	layers := 0
	for _, l := range p.Layers {
		total += l.Size
		if !l.Kept {
			fetched += l.Size
			layers++
		}
	}
	fmt.Println(fetched, layers, total)
	return nil
}
