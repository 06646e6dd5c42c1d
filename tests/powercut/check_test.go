package powercut

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/fsck"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/store"
)

// holding is what the objects of a store look like. The check has its own way to find out what is referred to: each entry
// of a stream or image counts, whether a ref leads to it or not, since the next pull adopts it.
type holding struct {
	size    map[fsverity.Digest]int64 // of all that are there, bytes
	torn    map[fsverity.Digest]bool
	corrupt []fsverity.Digest // that are torn and referred to
	missing []fsverity.Digest // that are referred to and not there
}

// hold reads all objects of a store and all that its entries refer to.
func hold(s *store.Store) (*holding, error) {
	h := &holding{size: map[fsverity.Digest]int64{}, torn: map[fsverity.Digest]bool{}}
	if err := h.readObjects(filepath.Join(s.Dir(), "objects")); err != nil {
		return nil, err
	}
	seen := map[fsverity.Digest]bool{}
	for _, kind := range []store.Kind{store.Streams, store.Images} {
		for e, err := range s.Entries(kind) {
			if err != nil {
				return nil, err
			}
			if err := h.follow(s, kind, e.Digest, seen); err != nil {
				return nil, fmt.Errorf("%s/%s: %w", kind, e.Name, err)
			}
		}
	}
	return h, nil
}

func (h *holding) readObjects(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if path == dir && errors.Is(err, fs.ErrNotExist) {
			return nil // Init was cut off before it made the directory
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		d, err := fsverity.ParseDigest(filepath.Base(filepath.Dir(path)) + e.Name())
		if err != nil {
			return nil // a temporary name
		}
		content, err := os.ReadFile(path)
		h.size[d] = int64(len(content))
		h.torn[d] = err != nil || fsverity.Sum(d.Algorithm(), content) != d
		return nil
	})
}

// use notes that an object is referred to, and tells whether it is whole.
func (h *holding) use(d fsverity.Digest, seen map[fsverity.Digest]bool) bool {
	_, have := h.size[d]
	switch {
	case seen[d]:
	case !have:
		h.missing = append(h.missing, d)
	case h.torn[d]:
		h.corrupt = append(h.corrupt, d)
	}
	seen[d] = true
	return have && !h.torn[d]
}

func (h *holding) follow(s *store.Store, kind store.Kind, d fsverity.Digest, seen map[fsverity.Digest]bool) error {
	if seen[d] || !h.use(d, seen) {
		return nil
	}
	f, err := s.OpenObject(d)
	if err != nil {
		return err
	}
	defer f.Close()
	return fsck.Tracers()[kind](f, h.size[d], func(e store.Edge, to fsverity.Digest) error {
		switch e {
		case store.ToStream:
			return h.follow(s, store.Streams, to, seen)
		case store.ToImage:
			return h.follow(s, store.Images, to, seen)
		}
		h.use(to, seen)
		return nil
	})
}

// forgive takes objects off the lists of what is torn and corrupt.
func (h *holding) forgive(damaged []string) {
	forgiven := func(d fsverity.Digest) bool { return slices.Contains(damaged, d.String()) }
	maps.DeleteFunc(h.torn, func(d fsverity.Digest, _ bool) bool { return forgiven(d) })
	h.corrupt = slices.DeleteFunc(h.corrupt, forgiven)
}

// unreferenced tells of torn objects that nothing refers to: how many, and how many of them have the length that they ought
// to have.
func (h *holding) unreferenced(right map[string]int64) (torn, rightSize int) {
	for d, bad := range h.torn {
		if !bad {
			continue
		}
		torn++
		if size, ok := right[d.String()]; ok && size == h.size[d] {
			rightSize++
		}
	}
	return torn - len(h.corrupt), rightSize
}

// names compares the names in a store with what was announced before, and with what was about to be. The one whose image is
// damaged can't be found.
func (w world) names(s *store.Store, now, next promise) error {
	for _, name := range []string{"web", "old", "built"} {
		if name == "web" && len(now.Damaged)+len(next.Damaged) > 0 {
			continue
		}
		have := ""
		i, err := index.Find(s, name)
		switch {
		case err == nil:
			have = i.Image.String()
		case !errors.Is(err, index.ErrNoImage):
			return fmt.Errorf("%s: %w", name, err)
		}
		if have != now.Names[name] && have != next.Names[name] {
			return fmt.Errorf("%s is %q, was announced as %q, later as %q", name, have, now.Names[name], next.Names[name])
		}
	}
	return nil
}

// pushed checks that whatever the layout lists is whole, and that it has what was announced.
func (w world) pushed(p promise) error {
	var index ocispec.Index
	raw, err := os.ReadFile(filepath.Join(w.layout(), ocispec.ImageIndexFile))
	if errors.Is(err, fs.ErrNotExist) && !p.Pushed {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &index)
	}
	if err == nil && p.Pushed && len(index.Manifests) != 1 {
		err = fmt.Errorf("index.json lists %d images", len(index.Manifests))
	}
	for _, m := range index.Manifests {
		if err == nil {
			err = w.wholeImage(m)
		}
	}
	if err != nil {
		return fmt.Errorf("layout: %w", err)
	}
	return nil
}

func (w world) wholeImage(d ocispec.Descriptor) error {
	raw, err := w.blob(d)
	if err != nil {
		return err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	for _, part := range append(m.Layers, m.Config) {
		if _, err := w.blob(part); err != nil {
			return err
		}
	}
	return nil
}

func (w world) blob(d ocispec.Descriptor) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(w.layout(), "blobs", "sha256", d.Digest.Encoded()))
	if err == nil && digest.FromBytes(b) != d.Digest {
		err = fmt.Errorf("blob %s has other content", d.Digest)
	}
	return b, err
}

// fsckSummary is the last line of fsck --json, as far as it matters here.
type fsckSummary struct {
	Problems     *int `json:"problems"`
	Remarks      int  `json:"remarks"`
	Unreferenced int  `json:"unreferenced"`
}

// fsck wants a clean store; strictly, one in which nothing is left over either.
func (w world) fsck(strictly bool) error {
	out, err := w.command("fsck", "--json")
	if err != nil {
		return err
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	var s fsckSummary
	if err := json.Unmarshal(lines[len(lines)-1], &s); err != nil || s.Problems == nil {
		return fmt.Errorf("flatroot fsck printed %q", out)
	}
	if strictly && s.Remarks+s.Unreferenced > 0 {
		return fmt.Errorf("flatroot fsck after gc: %s", out)
	}
	return nil
}
