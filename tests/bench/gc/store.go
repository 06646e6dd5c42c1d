package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
	"github.com/flatroot/flatroot/tests/bench/kit"
	"github.com/flatroot/flatroot/tree"
)

// removedList, beside the store, has the paths of the objects that are garbage.
const removedList = ".removed"

// maker makes a store with two images, as imports make it, of files that are like no others. All images have the same base
// layer and one of their own.
type maker struct {
	s    *store.Store
	base []fsverity.Digest
	err  error
}

// makeStore has own objects in the layer of either image alone, and the others in both. The second image has lost its name.
func makeStore(path string, objects, own int) error {
	if err := store.Init(path, store.InitOptions{Verity: store.VerityOff}); err != nil {
		return err
	}
	s, err := store.Open(path, store.OpenOptions{})
	if err != nil {
		return err
	}
	defer s.Close()
	m := &maker{s: s}
	m.base = m.files("base", objects-2*own)
	base := m.layer("base", m.base)
	m.image("kept", base, m.files("kept", own))
	before := m.names()
	gone := m.files("gone", own)
	m.image("gone", base, gone)
	if m.err == nil {
		m.err = s.RemoveRef(store.Streams, "oci/gone")
	}
	if m.err == nil {
		m.err = s.Settled()
	}
	after := m.names()
	if m.err != nil {
		return m.err
	}
	var list strings.Builder
	for d := range after {
		if !before[d] {
			fmt.Fprintln(&list, "objects/"+d.ObjectPath())
		}
	}
	return os.WriteFile(path+removedList, []byte(list.String()), 0o644)
}

// names are all objects.
func (m *maker) names() map[fsverity.Digest]bool {
	all := map[fsverity.Digest]bool{}
	for first := range 256 {
		ds, _, err := m.s.ObjectNames(byte(first))
		m.keep(err)
		for _, d := range ds {
			all[d] = true
		}
	}
	return all
}

func (m *maker) keep(err error) {
	if m.err == nil {
		m.err = err
	}
}

func (m *maker) put(b []byte) fsverity.Digest {
	d := fsverity.Sum(m.s.Algorithm(), b)
	_, err := m.s.PutObject(d, b)
	m.keep(err)
	return d
}

// files makes n objects.
func (m *maker) files(what string, n int) []fsverity.Digest {
	ds := make([]fsverity.Digest, n)
	errs := [2]error{}
	var wg sync.WaitGroup
	for part := range errs {
		wg.Go(func() {
			for i := part; i < n && errs[part] == nil; i += len(errs) {
				b := fmt.Appendf(nil, "%s %d: a file that is too long for being kept in the image itself, as most are.\n", what, i)
				ds[i] = fsverity.Sum(m.s.Algorithm(), b)
				_, errs[part] = m.s.PutObject(ds[i], b)
			}
		})
	}
	wg.Wait()
	m.keep(errs[0])
	m.keep(errs[1])
	return ds
}

func digestName(what string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(what))) }

// stream makes a stream and its entry.
func (m *maker) stream(kind stream.ContentType, entry string, refs []stream.NamedRef, fill func(*stream.Writer) error) fsverity.Digest {
	w := stream.NewWriter(m.s.Algorithm(), kind, stream.WriterOptions{})
	defer w.Close()
	for _, r := range refs {
		m.keep(w.NamedRef(r.Name, r.ID))
	}
	m.keep(fill(w))
	var b bytes.Buffer
	_, err := w.WriteTo(&b)
	m.keep(err)
	id := m.put(b.Bytes())
	m.link(store.Streams, entry, id)
	return id
}

func (m *maker) link(k store.Kind, entry string, d fsverity.Digest) {
	if m.err == nil {
		_, m.err = m.s.Link(k, entry, d)
	}
}

func (m *maker) layer(name string, files []fsverity.Digest) stream.NamedRef {
	diffID := digestName("layer " + name)
	id := m.stream(stream.OCILayer, "oci-layer-"+diffID, nil, func(w *stream.Writer) error {
		header := make([]byte, 512)
		for i, d := range files {
			copy(header, fmt.Sprintf("usr/%d", i))
			if err := w.Inline(header); err != nil {
				return err
			}
			if err := w.External(d, 100); err != nil {
				return err
			}
		}
		return nil
	})
	return stream.NamedRef{Name: diffID, ID: id}
}

// image makes all that a tagged image has.
func (m *maker) image(name string, base stream.NamedRef, own []fsverity.Digest) {
	refs := []stream.NamedRef{base, m.layer(name, own), {Name: stream.ImageV1, ID: m.erofs(own)}}
	document := func(what string) func(*stream.Writer) error {
		b := []byte(`{"` + what + `":"` + name + `"}` + strings.Repeat(" ", 100))
		d := m.put(b)
		return func(w *stream.Writer) error { return w.External(d, int64(len(b))) }
	}
	configName, manifestName := digestName("config "+name), digestName("manifest "+name)
	config := m.stream(stream.OCIConfig, "oci-config-"+configName, refs, document("config"))
	refs = []stream.NamedRef{{Name: "config:" + configName, ID: config}}
	m.stream(stream.OCIManifest, "oci-manifest-"+manifestName, refs, document("manifest"))
	if m.err == nil {
		m.err = m.s.SetRef(store.Streams, "oci/"+name, "oci-manifest-"+manifestName)
	}
}

// erofs makes an image of the base's files and its own, a thousand to a directory.
func (m *maker) erofs(own []fsverity.Digest) fsverity.Digest {
	t := tree.New(m.s.Algorithm(), tree.Attr{Mode: tree.Directory | 0o755, Nlink: 2})
	for part, files := range [][]fsverity.Digest{m.base, own} {
		var dir tree.Node
		for i, d := range files {
			var err error
			if i%1000 == 0 {
				dir, err = t.Add(tree.Root, fmt.Appendf(nil, "d%d-%d", part, i/1000), tree.Attr{Mode: tree.Directory | 0o755, Nlink: 2})
				m.keep(err)
			}
			n, err := t.Add(dir, fmt.Appendf(nil, "f%d", i), tree.Attr{Mode: tree.Regular | 0o644, Nlink: 1, Size: 100})
			m.keep(err)
			if err == nil {
				m.keep(t.SetObject(n, d))
			}
		}
	}
	o, err := m.s.NewObject()
	if err != nil {
		m.keep(err)
		return fsverity.Digest{}
	}
	defer o.Abort()
	_, err = erofs.Write(io.Writer(o), t, erofs.WriteOptions{Format: erofs.Format1})
	m.keep(err)
	d, _, err := o.Commit()
	m.keep(err)
	m.link(store.Images, d.String(), d)
	return d
}

// readRemoved reads which objects are garbage: paths below a store.
func (s *settings) readRemoved() error {
	b, err := os.ReadFile(s.path("store") + removedList)
	s.removed = strings.Fields(string(b))
	if err == nil && len(s.removed) < s.own {
		err = fmt.Errorf("%d objects are garbage, not %d", len(s.removed), s.own)
	}
	return err
}

// restore makes a copy of the store what it was: the links, and the objects that were removed.
func (s *settings) restore(i int) error {
	for _, dir := range []string{"streams", "images", "flatroot"} {
		if err := os.RemoveAll(filepath.Join(s.copyOf(i), dir)); err != nil {
			return err
		}
		if _, err := os.Lstat(filepath.Join(s.path("store"), dir)); err != nil {
			continue
		}
		if err := kit.Command("cp", "-a", filepath.Join(s.path("store"), dir), s.copyOf(i)); err != nil {
			return err
		}
	}
	for _, path := range s.removed {
		err := os.Link(filepath.Join(s.path("store"), path), filepath.Join(s.copyOf(i), path))
		if err != nil && !os.IsExist(err) {
			return err
		}
	}
	return nil
}
