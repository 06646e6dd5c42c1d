package chunk_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/flatroot/flatroot/chunk"
	"github.com/flatroot/flatroot/tree"
)

func (w *world) mtime(path string) time.Time {
	w.t.Helper()
	n := tree.Root
	if path != "" {
		n = w.node(path)
	}
	a := w.tree.Attr(n)
	return time.Unix(a.MtimeSec, int64(a.MtimeNsec)).UTC()
}

func TestNormaliseMtimes(t *testing.T) {
	epoch := time.Unix(1_500_000_000, 7)
	old, late, zero := time.Unix(1_400_000_000, 0).UTC(), time.Unix(1_600_000_000, 0).UTC(), time.Unix(0, 0).UTC()
	dir := time.Unix(dirAttr.MtimeSec, int64(dirAttr.MtimeNsec)).UTC()
	edited := func(path, content string) func(w *world) {
		return func(w *world) { w.fill(w.node(path), []byte(content)) }
	}
	for _, c := range []struct {
		what     string
		o        chunk.MtimeOptions
		previous func(w *world) // what the build before had otherwise than now, but for times; nil: there was none
		want     map[string]time.Time
	}{
		{"keep", chunk.MtimeOptions{}, nil, map[string]time.Time{"": dir, "usr": dir, "etc/conf": late}},
		{"keep, with an epoch", chunk.MtimeOptions{Policy: chunk.MtimeKeep, Epoch: epoch}, nil, map[string]time.Time{"": dir, "etc/conf": late}},
		{"clamp", chunk.MtimeOptions{Policy: chunk.MtimeClamp, Epoch: epoch}, func(*world) {},
			map[string]time.Time{"": zero, "usr": zero, "usr/share/doc": zero, "etc/conf": epoch.UTC(), "etc/old": old,
				"etc/second": epoch.UTC(), "etc/before": time.Unix(epoch.Unix(), 6).UTC()}},
		{"clamp to 1970", chunk.MtimeOptions{Policy: chunk.MtimeClamp, Epoch: time.Unix(0, 0)}, nil, map[string]time.Time{"etc/old": zero}},
		{"stable, first build", chunk.MtimeOptions{Policy: chunk.MtimeStable}, nil, map[string]time.Time{"": zero, "etc/conf": late}},
		{"stable", chunk.MtimeOptions{Policy: chunk.MtimeStable, Epoch: epoch}, func(*world) {},
			map[string]time.Time{"": zero, "etc": zero, "etc/conf": old, "usr/bin/tool": old, "usr/share/doc/alias": old, "etc/link": old}},
		{"stable, content changed", chunk.MtimeOptions{Policy: chunk.MtimeStable, Epoch: epoch}, edited("etc/conf", "a=2\n"),
			map[string]time.Time{"etc/conf": epoch.UTC(), "usr/bin/tool": old}},
		{"stable, object changed", chunk.MtimeOptions{Policy: chunk.MtimeStable}, edited("usr/bin/tool", strings.Repeat("PROGRAM ", 1000)),
			map[string]time.Time{"etc/conf": old, "usr/bin/tool": late}},
		{"stable, target changed", chunk.MtimeOptions{Policy: chunk.MtimeStable}, func(w *world) {
			check(t, w.tree.SetTarget(w.node("etc/link"), []byte("cong")))
		}, map[string]time.Time{"etc/link": late}},
		{"stable, mode changed", chunk.MtimeOptions{Policy: chunk.MtimeStable}, func(w *world) {
			a := w.tree.Attr(w.node("etc/conf"))
			a.Mode |= 0o111
			check(t, w.tree.SetAttr(w.node("etc/conf"), a))
		}, map[string]time.Time{"etc/conf": late}},
		{"stable, attribute changed", chunk.MtimeOptions{Policy: chunk.MtimeStable}, func(w *world) {
			check(t, w.tree.SetXattrs(w.node("usr/bin/tool"), nil))
		}, map[string]time.Time{"usr/bin/tool": late}},
		{"stable, directory before", chunk.MtimeOptions{Policy: chunk.MtimeStable}, func(w *world) {
			w.remove("etc/conf")
			w.dir("etc/conf")
		}, map[string]time.Time{"etc/conf": late}},
		{"stable, file before", chunk.MtimeOptions{Policy: chunk.MtimeStable}, func(w *world) {
			w.remove("usr")
			w.file("usr", "x")
		}, map[string]time.Time{"usr": zero, "usr/bin/tool": late}},
		{"stable, contents not known", chunk.MtimeOptions{Policy: chunk.MtimeStable}, func(w *world) { w.touch("etc/unknown", old.Unix()) },
			map[string]time.Time{"etc/unknown": late}},
		{"stable, one name before", chunk.MtimeOptions{Policy: chunk.MtimeStable}, func(w *world) { w.remove("usr/bin/tool") },
			map[string]time.Time{"usr/bin/tool": old}},
	} {
		make := func() *world {
			w := smallWorld(t)
			check(t, w.tree.SetTarget(w.add("etc/link", tree.Attr{Mode: tree.Symlink | 0o777, MtimeSec: late.Unix()}), []byte("conf")))
			w.file("etc/old", "old")
			w.touch("etc/old", old.Unix())
			w.add("etc/second", tree.Attr{Mode: tree.FIFO, MtimeSec: epoch.Unix(), MtimeNsec: 8})
			w.add("etc/before", tree.Attr{Mode: tree.FIFO, MtimeSec: epoch.Unix(), MtimeNsec: 6})
			w.add("etc/unknown", tree.Attr{Mode: tree.Regular, Size: 5, MtimeSec: late.Unix()})
			return w
		}
		w := make()
		if c.previous != nil {
			before := make()
			for _, path := range []string{"etc/conf", "usr/bin/tool", "etc/link"} {
				before.touch(path, old.Unix())
			}
			c.previous(before)
			c.o.Previous = before.tree
		}
		check(t, chunk.NormaliseMtimes(w.tree, c.o))
		for path, want := range c.want {
			if got := w.mtime(path); !got.Equal(want) {
				t.Errorf("%s: /%s has %s, want %s", c.what, path, got, want)
			}
		}
	}
}

func TestNormaliseMtimesBad(t *testing.T) {
	w := smallWorld(t)
	before := w.dump()
	for _, o := range []chunk.MtimeOptions{{Policy: chunk.MtimeClamp}, {Policy: "later"}} {
		if err := chunk.NormaliseMtimes(w.tree, o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
	wantSame(t, "after errors", w.dump(), before)
	if p, err := chunk.ParseMtimePolicy(""); err != nil || p != chunk.MtimeKeep {
		t.Errorf("%q, %v", p, err)
	}
}

// TestNormaliseTwice: what is normalised stays as it is, and is what the next build takes its times from.
func TestNormaliseTwice(t *testing.T) {
	for seed := range uint64(30) {
		make := func() *world { return randomWorld(t, rand.New(rand.NewPCG(seed, 11)), notUTF8) }
		o := chunk.MtimeOptions{Policy: chunk.MtimeStable, Epoch: time.Unix(1_000_000_000, 0)}
		first, second := make(), make()
		check(t, chunk.NormaliseMtimes(first.tree, o))
		for n := range tree.Node(second.tree.Len()) {
			a := second.tree.Attr(n)
			a.MtimeSec = 12345
			check(t, second.tree.SetAttr(n, a))
		}
		o.Previous = first.tree
		check(t, chunk.NormaliseMtimes(second.tree, o))
		wantSame(t, "second build", second.dump(), first.dump())
	}
}
