package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/tree"
	"github.com/flatroot/flatroot/tree/dump"
)

// operandHelp says what the arguments of commands are that take any tree.
const operandHelp = `An argument that begins with / or . is a path: of a directory, of a tar, compressed or not, of a composefs-dump, or of an EROFS image; - is a tar or a dump on standard input. One of 64 or 128 hex digits is the digest of an image in the store. One that begins with a transport, such as docker:// or oci:, is an image there, stored nowhere. All others are names in the store, and if there is none such, references to a registry.`

// found is what an argument leads to: an input, a source, or an image in the store.
type found struct {
	arg    string
	input  *input
	source oci.Source
	image  *os.File
	info   *index.Info // of an image that was found by its name
	store  *store.Store
}

// Close closes all that is open.
func (f *found) Close() error {
	var errs []error
	if f.input != nil {
		errs = append(errs, f.input.Close())
	}
	if f.source != nil {
		errs = append(errs, f.source.Close())
	}
	if f.image != nil {
		errs = append(errs, f.image.Close())
	}
	if f.store != nil {
		errs = append(errs, f.store.Close())
	}
	return errors.Join(errs...)
}

// find opens what an argument leads to; operandHelp has the rules.
func (c *console) find(arg string, o treeOptions) (*found, error) {
	f := &found{arg: arg}
	var err error
	switch d, isDigest := asDigest(arg); {
	case isPath(arg):
		f.input, err = openInput(arg, c.stdin)
	case hasTransport(arg):
		f.source, _, err = c.openSource(arg, o.platform)
	case isDigest:
		err = f.openDigest(c, d)
	default:
		err = f.openName(c, o)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f *found) openDigest(c *console, d fsverity.Digest) (err error) {
	if f.store, err = c.readStore(); err == nil {
		f.image, err = openStored(f.store, d)
	}
	return err
}

func (f *found) openName(c *console, o treeOptions) error {
	err := f.openNamed(c, o)
	if !errors.Is(err, index.ErrNoImage) && !errors.Is(err, store.ErrNotStore) {
		return err
	}
	if _, noRef := oci.ParseReference(f.arg); noRef != nil {
		return orPath(f.arg, err)
	}
	f.source, _, err = c.openSource(f.arg, o.platform)
	return err
}

// orPath says of an error about a name that there is a file of that name.
func orPath(name string, err error) error {
	if _, there := os.Lstat(name); there == nil {
		return &hintError{err, "the file here is ./" + name}
	}
	return err
}

// openNamed opens an image of the store: its EROFS image, or its layers if another image than that is asked for.
func (f *found) openNamed(c *console, o treeOptions) (err error) {
	if f.store, err = c.readStore(); err != nil {
		return err
	}
	if f.info, err = index.FindFor(f.store, f.arg, o.platform); err != nil {
		return err
	}
	other := o.algorithm != 0 && o.algorithm != f.store.Algorithm() || o.rules != "" && o.rules != f.info.Rules
	if other && f.info.Manifest != "" {
		f.source = newStoredSource(f.store, f.info)
		return nil
	}
	f.image, err = openStored(f.store, f.info.Image)
	return err
}

// tree reads the tree.
func (f *found) tree(ctx context.Context, c console, o treeOptions) (*tree.Tree, error) {
	options := o.options()
	t, err := f.readTree(ctx, c, o, options)
	if err == nil && o.algorithm != 0 && t.Algorithm() != o.algorithm {
		err = fmt.Errorf("%s has %s digests, and no contents of which others could be made", f.arg, t.Algorithm())
	}
	return t, err
}

func (f *found) readTree(ctx context.Context, c console, o treeOptions, options index.ImportOptions) (*tree.Tree, error) {
	switch {
	case f.source != nil:
		return index.ReadTree(ctx, f.source, o.hash(), options)
	case f.image != nil:
		return readImage(f.image, o.algorithm)
	case f.input.hasLayer():
		tar, done := f.input.tarOf(ctx, o.dir(c))
		defer done()
		return index.BuildTree(ctx, o.hash(), tar, f.input.path, options)
	case f.input.content == isImage:
		return readImage(f.input.file, o.algorithm)
	}
	return f.input.parseDump(o.algorithm)
}

// hasLayer tells whether an input makes a layer, rather than a tree as it is.
func (in *input) hasLayer() bool { return in.content == isDirectory || in.content == isTar }

func (in *input) parseDump(a fsverity.Algorithm) (*tree.Tree, error) {
	return dump.Parse(in.reader, dump.Options{File: in.path, Algorithm: a})
}
