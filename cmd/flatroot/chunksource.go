package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/chunk"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/tree"
)

// chunkSource is what is cut into layers: a tree, with its contents, and the image that it is of.
type chunkSource struct {
	name    string
	tree    *tree.Tree
	content chunk.Content
	image   *oci.Image      // nil: it is a directory
	from    []oci.Reference // where the image was fetched from, if it was
	store   *store.Store    // that has the image; nil: none has
	info    *index.Info     // of the image in the store
	dir     *index.DirTree  // nil: it is none
}

func (s *chunkSource) Close() error {
	var errs []error
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.dir != nil {
		errs = append(errs, s.dir.Close())
	}
	return errors.Join(errs...)
}

// openChunkSource opens what an argument leads to. Contents have to be read in another order than layers have them, so an
// image that is elsewhere comes into the store, without a name.
func (c *console) openChunkSource(ctx context.Context, arg string, o chunkOptions) (*chunkSource, error) {
	s := &chunkSource{name: arg}
	var err error
	switch {
	case isPath(arg):
		err = s.openPath(ctx, c, arg, o)
	case hasTransport(arg):
		err = s.fetch(ctx, c, arg, o)
	default:
		err = s.openName(ctx, c, arg, o)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// importOptions are those by which an image gets no name.
func (o chunkOptions) importOptions(m meter) index.ImportOptions {
	options := o.reading.options()
	options.Rules, options.Progress, options.KeepBlobs = index.Faithful1, m, o.keepBase != ""
	return options
}

func (s *chunkSource) openPath(ctx context.Context, c *console, path string, o chunkOptions) error {
	in, err := openInput(path, c.stdin)
	if err != nil {
		return err
	}
	defer in.Close()
	switch in.content {
	case isDirectory:
		if o.keepBase != "" {
			return errors.New("--keep-base: a directory has no layers that could be kept")
		}
		return s.openDir(ctx, c, in, o)
	case isTar:
		return s.imported(ctx, c, o, func(st *store.Store, options index.ImportOptions) (*index.Report, error) {
			return index.Build(ctx, st, in.reader, in.path, options)
		})
	}
	return fmt.Errorf("%s has no files' contents: give an image, a directory or a tar", path)
}

// checkRoot refuses a directory that is hardly meant to be the root of an image: an OCI layout, or one that has DEST in it, so
// that the next image would have this one in it.
func checkRoot(dir string, o chunkOptions) error {
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return nil // it is no directory, or what is wrong with it is told when it is opened
	}
	if isLayout(dir) {
		return &hintError{fmt.Errorf("%s is an OCI layout, not the root of a tree", dir), sourceHint(dir)}
	}
	if o.ref.Transport != oci.OCI && o.ref.Transport != oci.OCIArchive {
		return nil
	}
	dest, err := existing(o.ref.Path)
	if err != nil || o.oneFileSystem && deviceOf(dest) != deviceOf(dir) {
		return err
	}
	if within, err := isWithin(dest, dir); !within || err != nil {
		return err
	}
	return fmt.Errorf("DEST %s lies in %s: the next image would have this one in it; write it elsewhere", o.ref, dir)
}

func isLayout(dir string) bool {
	for _, name := range []string{ocispec.ImageLayoutFile, ocispec.ImageIndexFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// isWithin tells whether an absolute path without symlinks is a directory, or below it.
func isWithin(path, dir string) (bool, error) {
	root, err := os.Stat(dir)
	if err != nil {
		return false, err
	}
	for {
		if st, err := os.Stat(path); err == nil && os.SameFile(st, root) {
			return true, nil
		}
		up := filepath.Dir(path)
		if up == path {
			return false, nil
		}
		path = up
	}
}

// existing is as much of a path as there is, without symlinks.
func existing(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for {
		real, err := filepath.EvalSymlinks(path)
		absent := errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
		if !absent || path == filepath.Dir(path) {
			return real, err
		}
		path = filepath.Dir(path)
	}
}

// deviceOf is the number of the file system that a path is on; 0: that can't be told.
func deviceOf(path string) uint64 {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0
	}
	return st.Dev
}

// openDir reads a directory, but not yet what its files have in them.
func (s *chunkSource) openDir(ctx context.Context, c *console, in *input, o chunkOptions) (err error) {
	s.name = in.path
	m := c.startProgress()
	defer m.stop()
	m.Step("reading " + in.path)
	s.dir, err = index.ReadDir(ctx, fsverity.SHA256, in.path, treeOptions{oneFileSystem: o.oneFileSystem}.dir(*c), o.reading.limits)
	if err != nil {
		return err
	}
	s.tree, s.content = s.dir.Tree, s.dir.Open
	return nil
}

func (s *chunkSource) fetch(ctx context.Context, c *console, arg string, o chunkOptions) error {
	src, ref, err := c.openSource(arg, o.platform)
	if err != nil {
		return err
	}
	defer src.Close()
	s.name, s.from = ref.String(), []oci.Reference{ref}
	return s.imported(ctx, c, o, func(st *store.Store, options index.ImportOptions) (*index.Report, error) {
		return index.Import(ctx, st, src, options)
	})
}

// imported has something brought into the store.
func (s *chunkSource) imported(ctx context.Context, c *console, o chunkOptions, bring func(*store.Store, index.ImportOptions) (*index.Report, error)) (err error) {
	if s.store, err = c.openStore(); err != nil {
		return err
	}
	m := c.startProgress()
	r, err := bring(s.store, o.importOptions(m))
	m.stop()
	if err != nil {
		return err
	}
	i, err := index.FindManifest(s.store, r.Manifest, index.Faithful1)
	if err != nil {
		return err
	}
	return s.stored(ctx, i)
}

// openName opens an image of the store or, if there is none of that name, one of a registry. A directory's name is hardly meant to
// be that.
func (s *chunkSource) openName(ctx context.Context, c *console, arg string, o chunkOptions) (err error) {
	if s.store, err = c.openStore(); err != nil {
		return orPath(arg, err)
	}
	i, err := index.Find(s.store, arg)
	if err == nil {
		return s.stored(ctx, i)
	}
	_, noRef := oci.ParseReference(arg)
	if _, noPath := os.Lstat(arg); !errors.Is(err, index.ErrNoImage) || noRef != nil || noPath == nil {
		return orPath(arg, err)
	}
	if err := s.Close(); err != nil {
		return err
	}
	s.store = nil
	return s.fetch(ctx, c, arg, o)
}

// blob is that of a layer of the image, by its number.
func (s *chunkSource) blob(n int) index.Blob {
	b := index.StoredBlob(s.store, s.info, n)
	b.From = slices.Concat(s.from, b.From)
	return b
}

// stored takes an image of the store.
func (s *chunkSource) stored(ctx context.Context, i *index.Info) (err error) {
	if i.Manifest == "" {
		return fmt.Errorf("%s was built from a dump: it has no layers, and of its files' contents nobody knows whether they are here", s.name)
	}
	s.info = i
	if s.tree, err = index.StoredTree(ctx, s.store, i.StoredLayers(), index.Faithful1); err != nil {
		return err
	}
	if s.image, err = documentsOf(i); err != nil {
		return err
	}
	s.content = func(n tree.Node) (io.ReadCloser, error) { return s.store.OpenObject(s.tree.Digest(n)) }
	return nil
}
