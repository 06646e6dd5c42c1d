// Command bytes measures what an update of a chunked image fetches: real compressed bytes, pulled from a registry on
// loopback by a store that has the version before, against the same update of the image as it was.
//
//	go run ./tests/bench/chunk/bytes [-run REGEXP]
//
// It needs images (tests/bench/corpus.sh) and some gigabytes of room in memory. Each line is an update, cut in one way.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/flatroot/flatroot/tests/bench/kit"
)

type settings struct {
	flatroot, corpus, work, host string
	only                         *regexp.Regexp
}

func main() {
	s := &settings{}
	var only string
	flag.StringVar(&s.flatroot, "flatroot", "bin/flatroot", "`binary` to measure")
	flag.StringVar(&s.corpus, "corpus", kit.Env("FLATROOT_CORPUS", "/var/cache/flatroot-corpus"), "`directory` of the images")
	flag.StringVar(&only, "run", "", "only lines that match `REGEXP`")
	flag.Parse()
	var err error
	if s.only, err = regexp.Compile(only); err == nil {
		err = run(s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bytes:", err)
		os.Exit(1)
	}
}

// updates are those that are measured. Which versions those are is told in tests/bench/corpus.sh.
var updates = []struct{ image, from, to string }{
	{"minbase", "v1", "v2"}, {"server", "v1", "v2"}, {"server", "v2", "v3"}, {"desktop", "v1", "v2"},
}

// ways are how images are cut.
var ways = []struct {
	name  string
	flags []string
}{
	{"64 layers", nil},
	{"64 layers, components divided", []string{"--split"}},
	{"32 layers", []string{"--max-layers=32"}},
	{"64 layers, zstd:chunked", []string{"--compress=zstd:chunked"}},
}

func run(s *settings) (err error) {
	if s.flatroot, err = filepath.Abs(s.flatroot); err != nil {
		return err
	}
	if s.work, err = os.MkdirTemp("/dev/shm", "flatroot-bytes-"); err != nil {
		return err
	}
	defer os.RemoveAll(s.work)
	if err := os.Setenv("TMPDIR", s.work); err != nil {
		return err
	}
	if s.host, err = kit.ServeLayouts(s.work); err != nil {
		return err
	}
	fmt.Println("| update | cut into | as it was, MB | chunked, MB | ratio | layers | again, bytes |")
	fmt.Println("|---|---|---|---|---|---|---|")
	for _, u := range updates {
		if !exists(s.layout(u.image)) {
			continue
		}
		if err := s.measure(u.image, u.from, u.to); err != nil {
			return fmt.Errorf("%s: %w", u.image, err)
		}
	}
	return s.edited("minbase", "v2")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (s *settings) layout(image string) string {
	return filepath.Join(s.corpus, "oci", image+"-zstd")
}

// measure measures one update in all ways.
func (s *settings) measure(image, from, to string) error {
	update := fmt.Sprintf("%s %s over %s", image, to, from)
	whole := pulled{}
	for _, w := range ways {
		if !s.only.MatchString(update + ", " + w.name) {
			continue
		}
		if whole == (pulled{}) {
			if err := os.Symlink(s.layout(image), filepath.Join(s.work, "whole")); err != nil {
				return err
			}
			var err error
			if whole, err = s.updated("whole:"+from, func() (string, error) { return "whole:" + to, nil }); err != nil {
				return err
			}
			if err := os.Remove(filepath.Join(s.work, "whole")); err != nil {
				return err
			}
		}
		ours, again, err := s.chunked("oci:"+s.layout(image)+":"+from, "oci:"+s.layout(image)+":"+to, w.flags)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		const mb = 1e6
		fmt.Printf("| %s | %s | %.1f | %.1f | **%.3f** | %d of %d | %d |\n", update, w.name, float64(whole.bytes)/mb, float64(ours.bytes)/mb,
			float64(ours.bytes)/float64(whole.bytes), ours.layers, ours.total, again.bytes)
	}
	return s.clear()
}

// clear takes away the images that were cut. They are in the store by then only once, however often they were cut.
func (s *settings) clear() error { return os.RemoveAll(s.path("source")) }

// chunked gives what the update of the chunked image fetches, and what one to the same fetches that was cut once more.
func (s *settings) chunked(from, to string, flags []string) (ours, again pulled, err error) {
	defer func() { _ = os.RemoveAll(s.path("out")) }()
	if err := s.chunk(from, flags); err != nil {
		return ours, again, err
	}
	ours, err = s.updated("out:latest", func() (string, error) { return "out:latest", s.chunk(to, flags) })
	if err != nil {
		return ours, again, err
	}
	if err := s.chunk(to, flags); err != nil {
		return ours, again, err
	}
	again, err = s.pull("out:latest")
	return ours, again, err
}

func (s *settings) path(name string) string { return filepath.Join(s.work, name) }

func (s *settings) init(store string) error {
	if exists(s.path(store)) {
		return nil
	}
	return kit.Command(s.flatroot, "init", "--store", s.path(store))
}

func (s *settings) chunk(source string, flags []string) error {
	if err := s.init("source"); err != nil {
		return err
	}
	args := append([]string{s.flatroot, "--store", s.path("source"), "--progress", "none", "chunk"}, flags...)
	return kit.Command(append(args, source, "oci:"+s.path("out")+":latest")...)
}

// pulled is what a pull of an update fetched.
type pulled struct {
	bytes         int64
	layers, total int // fetched, and of the image
}

// updated pulls an image into a new store and then what next makes the newer one.
func (s *settings) updated(first string, next func() (string, error)) (p pulled, err error) {
	if err := os.RemoveAll(s.path("client")); err != nil {
		return p, err
	}
	if err := s.init("client"); err != nil {
		return p, err
	}
	if _, err := s.pull(first); err != nil {
		return p, err
	}
	second, err := next()
	if err != nil {
		return p, err
	}
	return s.pull(second)
}

func (s *settings) pull(ref string) (p pulled, err error) {
	_, out, err := kit.Measure(s.flatroot, "--store", s.path("client"), "--progress", "none", "pull", "--json", "--name", "os",
		"docker://"+s.host+"/"+ref)
	if err != nil {
		return p, err
	}
	var report struct {
		Bytes  struct{ Fetched int64 }
		Layers struct{ Total, Fetched int }
	}
	err = json.NewDecoder(strings.NewReader(out)).Decode(&report)
	return pulled{report.Bytes.Fetched, report.Layers.Fetched, report.Layers.Total}, err
}
