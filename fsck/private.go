package fsck

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

// checkPrivate checks what lies below flatroot/, and looks for what was left unfinished.
func (c *checker) checkPrivate(context.Context) error {
	if len(c.Names) > 0 {
		return nil
	}
	for _, n := range []struct {
		where string
		check func(name, text string) (stale string, err error)
	}{
		{index.NotesVerified, c.checkVerifiedNote},
		{index.NotesBlobs, c.checkBlobNote},
		{index.NotesIndexes, c.checkIndexNote},
	} {
		if err := c.checkNotes(n.where, n.check); err != nil {
			c.problem(NoteBad, "flatroot/"+n.where, reason(err))
		}
	}
	if err := c.checkOrigins(); err != nil {
		c.problem(NoteBad, "flatroot/"+index.DirOrigins, reason(err))
	}
	if err := c.checkSignatures(); err != nil {
		c.problem(NoteBad, "flatroot/"+index.DirSignatures, reason(err))
	}
	traces, err := c.s.Traces()
	if err != nil {
		c.problem(NoteBad, "flatroot", fmt.Errorf("look for traces: %w", reason(err)))
	}
	for _, p := range traces {
		c.problem(Garbage, p, errors.New("`flatroot gc` removes it, and what only it leads to"))
	}
	paths, err := c.s.Unfinished()
	if err != nil {
		c.problem(NoteBad, "flatroot", fmt.Errorf("look for what was left unfinished: %w", reason(err)))
	}
	for _, p := range paths {
		c.problem(Unfinished, p, errors.New("a process is at work, or one was killed; `flatroot gc` removes what is left over"))
	}
	return nil
}

// checkNotes holds each note of a kind against the catalogue.
func (c *checker) checkNotes(where string, check func(name, text string) (string, error)) error {
	for name, err := range c.s.Notes(where) {
		if err != nil {
			return err
		}
		subject := "flatroot/" + where + "/" + name
		text, err := c.s.Note(where, name)
		stale := ""
		switch {
		case errors.Is(err, store.ErrNotFound):
			continue
		case err == nil:
			stale, err = check(name, text)
		}
		if err != nil {
			c.problem(NoteBad, subject, reason(err))
		} else if stale != "" {
			c.problem(NoteStale, subject, errors.New(stale))
		}
	}
	return nil
}

func (c *checker) hasStream(entry string) bool {
	_, ok := c.graph.entries[store.Streams][entry]
	if !ok { // it may be newer than the catalogue that was read
		_, err := c.s.Entry(store.Streams, entry)
		ok = err == nil
	}
	return ok
}

func (c *checker) checkVerifiedNote(name, text string) (string, error) {
	if !isDigest(name) {
		return "", errors.New("its name is no diffID")
	}
	if _, err := fsverity.ParseDigest(text); err != nil {
		return "", err
	}
	if !c.hasStream(layerPrefix + name) {
		return "the store does not have that layer", nil
	}
	return "", nil
}

func (c *checker) checkBlobNote(name, text string) (string, error) {
	if !isDigest(name) || !isDigest(text) {
		return "", fmt.Errorf("it says that a blob has the diffID %.100q", text)
	}
	if !c.hasStream(layerPrefix + text) {
		return "the store does not have that layer", nil
	}
	return "", nil
}

func (c *checker) checkIndexNote(name, text string) (string, error) {
	at, _, _ := strings.Cut(name, "@")
	if !isDigest(at) || !isDigest(text) {
		return "", fmt.Errorf("it says that an image index stands for manifest %.100q", text)
	}
	if !c.hasStream(manifestPrefix + text) {
		return "the store does not have that manifest", nil
	}
	return "", nil
}

// checkFiles holds each file of a kind, DIGEST.json, against the catalogue.
func (c *checker) checkFiles(where, whose string, read func(d string) error, has func(d string) bool) error {
	for name, err := range c.s.Notes(where) {
		if err != nil {
			return err
		}
		subject := "flatroot/" + where + "/" + name
		d, ok := strings.CutSuffix(name, ".json")
		if !ok || !isDigest(d) {
			c.problem(NoteBad, subject, fmt.Errorf("its name is not %s", whose))
			continue
		}
		switch err := read(d); {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			c.problem(NoteBad, subject, reason(err))
		case !has(d):
			c.problem(NoteStale, subject, errors.New("the store does not have that layer or manifest"))
		}
	}
	return nil
}

func (c *checker) checkOrigins() error {
	return c.checkFiles(index.DirOrigins, "a layer's diffID or a manifest's digest", func(d string) error {
		_, err := index.LayerOrigin(c.s, oci.DiffID(d))
		return err
	}, func(d string) bool { return c.hasStream(layerPrefix+d) || c.hasDocument(d) })
}

// hasDocument tells whether the store has a manifest or image index.
func (c *checker) hasDocument(d string) bool {
	return c.hasStream(manifestPrefix+d) || c.hasStream(indexPrefix+d)
}

func (c *checker) checkSignatures() error {
	return c.checkFiles(index.DirSignatures, "a manifest's digest", func(d string) error {
		_, err := index.Signatures(c.s, digest.Digest(d))
		return err
	}, c.hasDocument)
}
