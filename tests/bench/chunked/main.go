// Command chunked measures what an update of a zstd:chunked image costs: how many bytes are fetched, against the fewest that
// the format allows, and how much CPU, against a pull of all of it from the same registry.
//
//	go run ./tests/bench/chunked [-n PAIRS]
//
// It needs the peers' skopeo (tests/peers/setup.sh --bench), images (tests/bench/corpus.sh), and room in memory. The fewest
// bytes are the compressed contents that the old version lacks, each once, and both tables of each layer: they are computed
// here, from the tables, apart from the code that is measured.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/tests/bench/kit"
)

type settings struct {
	flatroot, peers, corpus, work string
	pairs                         int
}

func main() {
	s := &settings{}
	flag.StringVar(&s.flatroot, "flatroot", "bin/flatroot", "`binary` to measure")
	flag.StringVar(&s.peers, "peers", kit.Env("FLATROOT_PEERS", "/var/cache/flatroot-peers"), "`directory` of the peers")
	flag.StringVar(&s.corpus, "corpus", kit.Env("FLATROOT_CORPUS", "/var/cache/flatroot-corpus"), "`directory` of the images")
	flag.IntVar(&s.pairs, "n", 3, "runs of each")
	flag.Parse()
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, "chunked:", err)
		os.Exit(1)
	}
}

func run(s *settings) (err error) {
	if s.flatroot, err = filepath.Abs(s.flatroot); err != nil {
		return err
	}
	if s.work, err = os.MkdirTemp("/dev/shm", "flatroot-chunked-"); err != nil {
		return err
	}
	defer os.RemoveAll(s.work)
	fmt.Println("| update | fetched, MB | least possible, MB | ratio | blobs, MB | CPU, in parts / whole | wall | peak memory | CPU s | pairs |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|")
	for _, name := range []string{"minbase", "server"} {
		if _, err := os.Stat(filepath.Join(s.corpus, "oci", name+"-gzip")); err != nil {
			continue
		}
		if err := s.measure(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// measure pulls the second version of an image over the first one, in parts and whole.
func (s *settings) measure(name string) error {
	layout := filepath.Join(s.work, name)
	for _, tag := range []string{"v1", "v2"} {
		err := kit.Command(filepath.Join(s.peers, "bin", "skopeo"), "copy", "-q", "--dest-compress-format", "zstd:chunked",
			"oci:"+filepath.Join(s.corpus, "oci", name+"-gzip")+":"+tag, "oci:"+layout+":"+tag)
		if err != nil {
			return err
		}
	}
	host, err := kit.ServeLayouts(s.work)
	if err != nil {
		return err
	}
	least, blobs, err := leastBytes(layout)
	if err != nil {
		return err
	}
	if err := s.fresh(host, name); err != nil {
		return err
	}
	var parts, whole []kit.Cost
	var fetched int64
	for i := range s.pairs + 1 {
		p, n, err := s.pull(host, name, "in-parts")
		if err != nil {
			return err
		}
		w, all, err := s.pull(host, name, "whole")
		if err != nil {
			return err
		}
		if all != blobs {
			return fmt.Errorf("%d bytes of the whole image were fetched, %d of it in parts: it has %d", all, n, blobs)
		}
		if fetched = n; i > 0 { // the first pair warms caches
			parts, whole = append(parts, p), append(whole, w)
		}
	}
	const mb = 1e6
	fmt.Printf("| %s v2 over v1 | %.2f | %.2f | **%.3f** | %.1f | %s | %s | %s | %.2f / %.2f | %d |\n", name,
		float64(fetched)/mb, float64(least)/mb, float64(fetched)/float64(least), float64(blobs)/mb,
		kit.Ratio(parts, whole, kit.CPU, 2), kit.Ratio(parts, whole, kit.Wall, 2), kit.Ratio(parts, whole, kit.RSS, 2),
		kit.Middle(parts, kit.CPU), kit.Middle(whole, kit.CPU), len(parts))
	return nil
}

// fresh makes the store that has the first version, under a name by which the second finds it and under one of its own.
func (s *settings) fresh(host, name string) error {
	if err := os.RemoveAll(s.store("first")); err != nil {
		return err
	}
	if err := kit.Command(s.flatroot, "init", "--store", s.store("first")); err != nil {
		return err
	}
	return kit.Command(s.flatroot, "--store", s.store("first"), "pull", "--name", "in-parts", "docker://"+host+"/"+name+":v1")
}

func (s *settings) store(name string) string { return filepath.Join(s.work, "store-"+name) }

// pull pulls the second version into a copy of the store. A layout gives blobs only whole, and costs a registry's client
// nothing; so the whole is pulled from the registry under another repository, to which no image of the store is related.
func (s *settings) pull(host, name, as string) (c kit.Cost, fetched int64, err error) {
	dir := s.store("now")
	if err := kit.Command("rm", "-rf", dir); err != nil {
		return c, 0, err
	}
	if err := kit.Command("cp", "-a", s.store("first"), dir); err != nil {
		return c, 0, err
	}
	repository := name
	if as == "whole" {
		repository = name + "-again"
		_ = os.Symlink(name, filepath.Join(s.work, repository)) // it may be there
	}
	c, out, err := kit.Measure(s.flatroot, "--store", dir, "--progress", "none", "pull", "--json", "--name", as, "docker://"+host+"/"+repository+":v2")
	if err != nil {
		return c, 0, err
	}
	var report struct {
		Bytes struct{ Fetched int64 }
	}
	err = json.NewDecoder(strings.NewReader(out)).Decode(&report)
	return c, report.Bytes.Fetched, err
}

// table is a layer's table of contents.
type table struct {
	Entries []struct {
		Type, Digest            string
		Size, Offset, EndOffset int64
	}
}

// leastBytes are those that who has v1 must fetch of v2, and all of v2's layers.
func leastBytes(layout string) (least, all int64, err error) {
	seen := map[string]bool{}
	for _, tag := range []string{"v1", "v2"} {
		layers, err := layersOf(layout, tag)
		if err != nil {
			return 0, 0, err
		}
		for _, l := range layers {
			t, tables, err := readTable(layout, l)
			if err != nil {
				return 0, 0, err
			}
			news := tables
			for _, e := range t.Entries {
				if e.Type == "reg" && e.Size > 0 && !seen[e.Digest] {
					seen[e.Digest] = true
					news += e.EndOffset - e.Offset
				}
			}
			if tag == "v2" {
				least, all = least+news, all+l.Size
			}
		}
	}
	return least, all, nil
}

func layersOf(layout, tag string) ([]ocispec.Descriptor, error) {
	var index ocispec.Index
	if err := readJSON(filepath.Join(layout, ocispec.ImageIndexFile), &index); err != nil {
		return nil, err
	}
	for _, d := range index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] == tag {
			var m ocispec.Manifest
			err := readJSON(blob(layout, d), &m)
			return m.Layers, err
		}
	}
	return nil, fmt.Errorf("no tag %s", tag)
}

func blob(layout string, d ocispec.Descriptor) string {
	return filepath.Join(layout, "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// readTable reads a layer's table of contents, and tells how many bytes both tables have as stored.
func readTable(layout string, l ocispec.Descriptor) (t table, size int64, err error) {
	var offset, length, split int64
	const prefix = "io.github.containers.zstd-chunked."
	if _, err := fmt.Sscanf(l.Annotations[prefix+"manifest-position"], "%d:%d:", &offset, &length); err != nil {
		return t, 0, err
	}
	if _, err := fmt.Sscanf(l.Annotations[prefix+"tarsplit-position"], "%d:%d:", new(int64), &split); err != nil {
		return t, 0, err
	}
	f, err := os.Open(blob(layout, l))
	if err != nil {
		return t, 0, err
	}
	defer f.Close()
	d, err := zstd.NewReader(io.NewSectionReader(f, offset, length))
	if err != nil {
		return t, 0, err
	}
	defer d.Close()
	return t, length + split, json.NewDecoder(d).Decode(&t)
}
