// Package kit is what tests of whole stores share: small images to pull, the program to run, copies and listings of
// directories, and a check of stores that has nothing of package fsck's.
package kit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Build builds a command of this module, static as it is delivered, into dir and returns its path.
func Build(dir, name string) (string, error) {
	binary := filepath.Join(dir, name)
	build := exec.Command("go", "build", "-o", binary, "github.com/flatroot/flatroot/cmd/"+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", name, err, text)
	}
	return binary, nil
}

// Output is what came of a command.
type Output struct {
	Status         int // -1: a signal ended it
	Stdout, Stderr string
}

// Run runs a program to its end.
func Run(argv ...string) (Output, error) {
	var out, errs bytes.Buffer
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return Output{}, err
	}
	return Output{c.ProcessState.ExitCode(), out.String(), errs.String()}, nil
}

// Copy makes a copy of a directory with the modes and times that it has. Of large files the blocks are shared where the
// file system can do that.
func Copy(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		target := to + strings.TrimPrefix(path, from)
		switch {
		case d.IsDir():
			if err := os.Mkdir(target, 0o700); err != nil {
				return err
			}
		case d.Type() == fs.ModeSymlink:
			text, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(text, target)
		default:
			if err := copyFile(path, target); err != nil {
				return err
			}
		}
		return os.Chmod(target, info.Mode())
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) != nil {
		_, err = out.ReadFrom(in)
	}
	return errors.Join(err, out.Close())
}

// List lists all that is below a directory, one line each in byte order: kind and path, of files the size, of links what
// they say. Of files below a store's flatroot/ the size is left out, since times are in them, and so are directories there.
// A directory that is not there is empty.
func List(dir string) ([]string, error) {
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(path, dir), "/")
		ours := strings.Contains(rel, "/flatroot/")
		switch {
		case d.IsDir() && ours:
		case d.IsDir():
			lines = append(lines, "dir "+rel)
		case d.Type() == fs.ModeSymlink:
			text, err := os.Readlink(path)
			if err != nil {
				return err
			}
			lines = append(lines, "link "+rel+" -> "+text)
		default:
			info, err := d.Info()
			if err != nil {
				return err
			}
			line := fmt.Sprintf("file %s %v", rel, info.Mode())
			if !ours {
				line += fmt.Sprintf(" %d", info.Size())
			}
			lines = append(lines, line)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) && len(lines) == 0 {
		err = nil
	}
	slices.Sort(lines)
	return lines, err
}

// Differences gives the lines that only one of two lists has, with - before the first's and + before the second's. Both are
// in byte order.
func Differences(a, b []string) []string {
	var diff []string
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0] < b[0]:
			diff, a = append(diff, "- "+a[0]), a[1:]
		case len(a) == 0 || b[0] < a[0]:
			diff, b = append(diff, "+ "+b[0]), b[1:]
		default:
			a, b = a[1:], b[1:]
		}
	}
	return diff
}
