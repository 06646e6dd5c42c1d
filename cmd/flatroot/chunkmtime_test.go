package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flatroot/flatroot/chunk"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/tree"
	"github.com/flatroot/flatroot/tree/dump"
)

// TestSteadyMtimes: the times that a tree gets when only some layers of the build before are read are those that it would get
// from all of them, whatever is edited, touched, or put into another component meanwhile.
func TestSteadyMtimes(t *testing.T) {
	some := 0
	for seed := range uint64(20) {
		e := &edits{t: t, r: rand.New(rand.NewPCG(seed, 1)), dir: t.TempDir()}
		for range 40 {
			e.edit()
		}
		for build := range 4 {
			j := e.job()
			e.must(j.plan(context.Background()))
			if j.before != nil {
				read := len(j.before.others(j.claims.Components))
				if read > 0 && read < len(j.before.image.Layers) {
					some++
				}
				if got, want := dumped(t, j.src.tree), dumped(t, e.withAll(j)); got != want {
					t.Errorf("seed %d, build %d: got\n%s\nwant\n%s", seed, build, got, want)
				}
			}
			_, err := j.write(context.Background())
			j.before.close()
			e.must(errors.Join(err, j.src.Close()))
			for range e.r.IntN(4) {
				e.edit()
			}
		}
	}
	if some < 10 {
		t.Errorf("only %d times some layers were read and others not", some)
	}
}

// edits are builds of a tree that is edited in between.
type edits struct {
	t   *testing.T
	r   *rand.Rand
	dir string
}

func (e *edits) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

// file is the path of a file, which need not be there.
func (e *edits) file() string {
	return filepath.Join(e.dir, "root", "usr", string(rune('a'+e.r.IntN(4))), string(rune('a'+e.r.IntN(6))))
}

// edit changes something, or nothing.
func (e *edits) edit() {
	f := e.file()
	e.must(os.MkdirAll(filepath.Dir(f), 0o755))
	switch then := time.Unix(1_500_000_000+e.r.Int64N(5), 0); e.r.IntN(8) {
	case 0: // another time, or the same
		err := os.Chtimes(f, then, then)
		if !errors.Is(err, os.ErrNotExist) {
			e.must(err)
		}
	case 1:
		err := os.Chmod(f, 0o600)
		if !errors.Is(err, os.ErrNotExist) {
			e.must(err)
		}
	case 2:
		os.Rename(f, e.file())
	case 3:
		os.Link(f, e.file())
	case 4:
		os.Remove(f)
	default: // written anew; with the same in it perhaps
		e.must(os.RemoveAll(f))
		e.must(os.WriteFile(f, []byte(strings.Repeat(string(rune('0'+e.r.IntN(2))), e.r.IntN(2)*1000+1)), 0o644))
		e.must(os.Chtimes(f, then, then))
	}
}

// job is that of the next build, before anything is planned.
func (e *edits) job() *chunkJob {
	e.t.Helper()
	o := chunkOptions{
		source: e.dir + "/root", dest: "oci:" + e.dir + "/out:latest", layers: 8, mtime: chunk.MtimeStable, compression: "none", jobs: 2,
		every: 7 * 24 * time.Hour,
	}
	if e.r.IntN(3) == 0 {
		o.epoch = time.Unix(1_500_000_002, 0)
	}
	var rules strings.Builder
	for name := range 6 {
		fmt.Fprintf(&rules, "- component: c%d\n  paths: [\"/usr/*/%c\"]\n", (name+e.r.IntN(5)/4)%6, 'a'+name)
	}
	var err error
	o.mapping, err = chunk.ParseMapping([]byte(rules.String()))
	e.must(err)
	o.ref, err = readDest(o.dest)
	e.must(err)
	c := console{stderr: io.Discard, progress: progressNone}
	src, err := c.openChunkSource(context.Background(), o.source, o)
	e.must(err)
	return &chunkJob{console: c, o: o, src: src}
}

// withAll is the tree that a job would have if it had read all of the build before.
func (e *edits) withAll(j *chunkJob) *tree.Tree {
	e.t.Helper()
	before, err := j.readBefore(context.Background(), nil)
	e.must(err)
	d, err := index.ReadDir(context.Background(), fsverity.SHA256, j.o.source, index.DirOptions{}, index.Limits{})
	e.must(err)
	defer d.Close()
	e.must(d.Hash(context.Background(), noMeter{}))
	e.must(chunk.NormaliseMtimes(d.Tree, chunk.MtimeOptions{Policy: j.o.mtime, Epoch: j.o.epoch, Previous: before}))
	return d.Tree
}

func dumped(t *testing.T, tr *tree.Tree) string {
	t.Helper()
	var b strings.Builder
	if err := dump.Write(&b, tr); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
