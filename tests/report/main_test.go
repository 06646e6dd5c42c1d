package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

const firstRun = `make: a line of make's
{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"q","Test":"TestQ","Output":"=== RUN   TestQ\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    skipped: root is for the suites [root peers vm], this is unit\n"}
{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"skip","Package":"p","Test":"TestC"}
{"Action":"pass","Package":"p","Test":"TestD"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
{"Action":"fail","Package":"q","Test":"TestQ"}
{"Action":"output","Package":"q","Output":"FAIL\tq\t0.1s\n"}
{"Action":"fail","Package":"q"}
`

func TestRecord(t *testing.T) {
	var out, log bytes.Buffer
	if err := record(strings.NewReader(firstRun), &out, &log); err != nil {
		t.Fatal(err)
	}
	const printed = `make: a line of make's
=== RUN   TestA
    skipped: root is for the suites [root peers vm], this is unit
ok  	p	0.1s
=== RUN   TestQ
FAIL	q	0.1s
`
	if out.String() != printed {
		t.Errorf("printed\n%s\nwant\n%s", &out, printed)
	}
	const logged = "skip p TestA\nskip p TestB\nskip p TestC\npass p TestD\nfail q TestQ\n"
	if log.String() != logged {
		t.Errorf("logged\n%s\nwant\n%s", &log, logged)
	}
}

func TestBuildFailureIsPrinted(t *testing.T) {
	const run = `{"ImportPath":"p","Action":"build-output","Output":"p.go:1: broken\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
{"Action":"fail","Package":"p","FailedBuild":"p"}
`
	var out, log bytes.Buffer
	if err := record(strings.NewReader(run), &out, &log); err != nil {
		t.Fatal(err)
	}
	if want := "p.go:1: broken\nFAIL\tp [build failed]\n"; out.String() != want {
		t.Errorf("printed %q, want %q", &out, want)
	}
}

func TestNeverRun(t *testing.T) {
	got, err := neverRun(strings.NewReader(`skip p TestA
skip p TestC
pass p TestA
skip p TestB
pass p TestB
skip q TestA
`))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"p TestC", "q TestA"}; !slices.Equal(got, want) {
		t.Errorf("never run: %q, want %q", got, want)
	}
}
