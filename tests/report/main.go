// Command report turns the output of `go test -json` back into what `go test -v` prints, package by package, and keeps
// account of skips over several runs:
//
//	go test -json ./... | report -run LOG      prints; appends each test's outcome to LOG
//	report -audit LOG                          names the tests that no run in LOG did more than skip, and fails if any
//
// So suites that each skip what another one runs can be told from tests that never run.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	run := flag.String("run", "", "read a run on standard input, append its outcomes to this `file`")
	audit := flag.String("audit", "", "check the outcomes in this `file`")
	flag.Parse()
	var err error
	switch {
	case *run != "":
		err = recordTo(*run)
	case *audit != "":
		err = auditFile(*audit)
	default:
		flag.Usage()
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func recordTo(path string) (err error) {
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := log.Close(); err == nil {
			err = cerr
		}
	}()
	return record(os.Stdin, os.Stdout, log)
}

func auditFile(path string) error {
	log, err := os.Open(path)
	if err != nil {
		return err
	}
	defer log.Close()
	never, err := neverRun(log)
	if err != nil {
		return err
	}
	if len(never) > 0 {
		return fmt.Errorf("skipped by every suite:\n\t%s", strings.Join(never, "\n\t"))
	}
	return nil
}

// event is a line of `go test -json`, as `go doc test2json` describes it.
type event struct {
	Action, Package, Test, Output string
}

// record prints the packages' output, each whole and once its package is done, and logs a line "outcome package test" for
// each test. Lines that are no events, such as make's, are passed on.
func record(in io.Reader, out, log io.Writer) error {
	text := make(map[string]*strings.Builder) // by package
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF && line == "" {
			return nil
		} else if err != nil && err != io.EOF {
			return err
		}
		var e event
		if json.Unmarshal([]byte(line), &e) != nil {
			fmt.Fprint(out, line)
			continue
		}
		if text[e.Package] == nil {
			text[e.Package] = new(strings.Builder)
		}
		switch e.Action {
		case "output", "build-output":
			text[e.Package].WriteString(e.Output)
		case "pass", "fail", "skip":
			if e.Test == "" {
				fmt.Fprint(out, text[e.Package])
				delete(text, e.Package)
				continue
			}
			fmt.Fprintln(log, e.Action, e.Package, e.Test)
		case "build-fail":
			fmt.Fprint(out, text[e.Package])
			delete(text, e.Package)
		}
	}
}

// neverRun lists the tests that were skipped in each run that a log of record tells of.
func neverRun(log io.Reader) ([]string, error) {
	skipped, ran := make(map[string]bool), make(map[string]bool)
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		outcome, test, _ := strings.Cut(lines.Text(), " ")
		if outcome == "skip" {
			skipped[test] = true
		} else {
			ran[test] = true
		}
	}
	maps.DeleteFunc(skipped, func(test string, _ bool) bool { return ran[test] })
	return slices.Sorted(maps.Keys(skipped)), lines.Err()
}
