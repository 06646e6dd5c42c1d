package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/erofs/disk"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/archive"
	"github.com/flatroot/flatroot/oci/cstorage"
	"github.com/flatroot/flatroot/oci/dir"
	"github.com/flatroot/flatroot/oci/layout"
	"github.com/flatroot/flatroot/oci/registry"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/tree"
)

// isPath tells whether an argument is a path. The standard input is one.
func isPath(arg string) bool {
	return arg == "-" || strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, ".")
}

// asDigest reads an argument that is a digest.
func asDigest(arg string) (fsverity.Digest, bool) {
	if n := len(arg); n != 64 && n != 128 {
		return fsverity.Digest{}, false
	}
	d, err := fsverity.ParseDigest(arg)
	return d, err == nil
}

// checkName refuses a name by which an image could not be found again.
func checkName(name string) error {
	_, digest := asDigest(name)
	switch {
	case isPath(name):
		return &usageError{msg: fmt.Sprintf("%q can't be an image's name: it would be taken for a path", name)}
	case digest:
		return &usageError{msg: fmt.Sprintf("%q can't be an image's name: it would be taken for a digest", name)}
	case hasTransport(name):
		return &usageError{msg: fmt.Sprintf("%q can't be an image's name: it would be taken for an image elsewhere", name)}
	case strings.HasPrefix(name, "-"):
		return &usageError{msg: fmt.Sprintf("%q can't be an image's name: it would be taken for a flag", name)}
	}
	if _, err := store.EncodeTag(name); err != nil {
		return &usageError{msg: err.Error()}
	}
	return nil
}

// openSource opens an image somewhere else.
func (c *console) openSource(arg string, p oci.Platform) (oci.Source, oci.Reference, error) {
	return c.openSourceTold(arg, p, c.listener())
}

// openSourceTold does that; who is told hears of why it takes longer.
func (c *console) openSourceTold(arg string, p oci.Platform, told listener) (oci.Source, oci.Reference, error) {
	ref, err := oci.ParseReference(arg)
	if err != nil {
		return nil, ref, &usageError{msg: err.Error(), hint: sourceHint(arg)}
	}
	var src oci.Source
	switch ref.Transport {
	case oci.OCI:
		src, err = layout.Open(ref, layout.Options{Platform: p})
	case oci.OCIArchive, oci.DockerArchive:
		src, err = archive.Open(ref, archive.Options{Platform: p, Inflating: told.inflating})
	case oci.Dir:
		src, err = dir.Open(ref, dir.Options{Platform: p})
	case oci.Docker:
		src, err = registry.Open(ref, registry.Options{Platform: p, UserAgent: "flatroot/" + version, Told: told.note})
	case oci.ContainersStorage:
		src, err = cstorage.Open(ref, cstorage.Options{Platform: p, Waiting: c.tellLocked})
	default:
		err = &usageError{msg: fmt.Sprintf("this version can't read images from %s:", ref.Transport)}
	}
	if err != nil {
		return nil, ref, err
	}
	return src, ref, nil
}

// sourceHint says how a path that was given for an image elsewhere is to be written, if it leads to something.
func sourceHint(path string) string {
	has := func(name string) bool {
		_, err := os.Stat(filepath.Join(path, name))
		return err == nil
	}
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return ""
	case !st.IsDir():
		return fmt.Sprintf("an image in that file is %s:%s or %s:%[2]s", oci.OCIArchive, path, oci.DockerArchive)
	case has("oci-layout"):
		return fmt.Sprintf("the layout there is %s:%s", oci.OCI, path)
	case has("manifest.json"):
		return fmt.Sprintf("the image there is %s:%s", oci.Dir, path)
	}
	return fmt.Sprintf("`flatroot build %s` makes an image of the directory", path)
}

// openSink opens the place that an image is pushed to. Who is told hears of why it takes longer.
func openSink(ctx context.Context, ref oci.Reference, told listener) (oci.Sink, error) {
	switch ref.Transport {
	case oci.OCI:
		return layout.Create(ctx, ref)
	case oci.OCIArchive:
		return archive.Create(ctx, ref)
	case oci.Docker:
		return registry.OpenSink(ref, registry.Options{UserAgent: "flatroot/" + version, Told: told.note})
	case oci.ContainersStorage:
		return cstorage.Create(ref)
	}
	return nil, noSink("push", ref)
}

// canWrite tells whether openSink knows a reference's transport.
func canWrite(ref oci.Reference) bool {
	return slices.Contains([]oci.Transport{oci.OCI, oci.OCIArchive, oci.Docker, oci.ContainersStorage}, ref.Transport)
}

// noSink says that nothing is written to a place of that kind.
func noSink(command string, ref oci.Reference) error {
	return &usageError{
		command: command, msg: fmt.Sprintf("this version can't push to %s", ref),
		hint: "docker://HOST/REPOSITORY[:TAG] is a registry, oci:DIR[:NAME] an OCI layout, oci-archive:FILE[:NAME] one in a tar, containers-storage:NAME podman's storage",
	}
}

// hasTransport tells whether an argument says itself that it is an image somewhere else.
func hasTransport(arg string) bool {
	for _, t := range []oci.Transport{oci.OCI, oci.OCIArchive, oci.DockerArchive, oci.ContainersStorage, oci.Dir} {
		if strings.HasPrefix(arg, string(t)+":") {
			return true
		}
	}
	return strings.HasPrefix(arg, string(oci.Docker)+"://")
}

// content is what a path holds.
type content int

const (
	isDirectory content = iota
	isImage             // EROFS
	isDump
	isTar // or else
)

// input is an open path.
type input struct {
	path    string
	content content
	file    *os.File  // nil: a directory
	reader  io.Reader // of the file, from its start
}

func (in *input) Close() error {
	if in.file == nil {
		return nil
	}
	return in.file.Close()
}

// openInput opens a path and finds out what it holds, from its first bytes.
func openInput(path string, stdin io.Reader) (*input, error) {
	if path == "-" {
		in := &input{path: "standard input"}
		return in, in.sniff(stdin)
	}
	// Not to wait for a writer, should it be a FIFO of which nobody knows.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	in := &input{path: path, file: f}
	st, err := f.Stat()
	switch {
	case err != nil:
	case st.IsDir():
		in.file = nil
		return in, f.Close()
	case !st.Mode().IsRegular():
		err = fmt.Errorf("%s is neither a directory nor a regular file; - reads the standard input", path)
	default:
		err = in.sniff(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return in, nil
}

// superMagicEnd is where the superblock's magic number ends.
const superMagicEnd = disk.SuperblockOffset + 4

// dumpStart is how a composefs-dump begins: with the line of the root.
const dumpStart = "/ "

func (in *input) sniff(r io.Reader) error {
	b := bufio.NewReaderSize(r, 128<<10)
	in.reader, in.content = b, isTar
	head, err := b.Peek(superMagicEnd)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", in.path, err)
	}
	switch {
	case len(head) == 0:
		return fmt.Errorf("%s is empty: neither a tar, a dump nor an image", in.path)
	case strings.HasPrefix(string(head), dumpStart):
		in.content = isDump
	case in.file != nil && isErofs(head):
		in.content = isImage
	}
	return nil
}

// isErofs tells whether the first bytes of a file, enough for the superblock's magic, are those of an EROFS image.
func isErofs(head []byte) bool {
	return len(head) >= superMagicEnd && binary.LittleEndian.Uint32(head[superMagicEnd-4:]) == disk.SuperMagic
}

// openStored opens the image with a digest in a store.
func openStored(s *store.Store, d fsverity.Digest) (*os.File, error) {
	// Only what is registered as an image: objects are any files.
	entry, err := s.Entry(store.Images, d.String())
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, fmt.Errorf("store %s has no image %s", s.Dir(), d)
	case err != nil:
		return nil, err
	case entry != d:
		return nil, fmt.Errorf("store %s is damaged: images/%s leads to object %s", s.Dir(), d, entry)
	}
	return s.OpenObject(d)
}

// readImage reads the tree of an open image file.
func readImage(f *os.File, a fsverity.Algorithm) (*tree.Tree, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	img, err := erofs.Open(f, st.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return erofs.ReadTree(img, erofs.ReadOptions{Algorithm: a})
}

// writeImage is the index.ImageWriter of a format. *made, if there is one, is what was written last.
func writeImage(f erofs.Format, made *erofs.Summary) index.ImageWriter {
	return func(w io.Writer, t *tree.Tree) error {
		s, err := erofs.Write(w, t, erofs.WriteOptions{Format: f})
		if made != nil {
			*made = s
		}
		return err
	}
}

// tarOf streams the tar of what is a directory or a tar; done is called after the last read.
func (in *input) tarOf(ctx context.Context, o index.DirOptions) (r io.Reader, done func()) {
	if in.content == isTar {
		return in.reader, func() {}
	}
	tar := index.OpenDirTar(ctx, in.path, o)
	return tar, func() { tar.Close() }
}
