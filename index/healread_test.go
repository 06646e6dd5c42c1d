package index

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// TestHealUnreadable wants an object that can't be opened for a reason that says nothing of it. It must not be taken for
// restored without a look.
func TestHealUnreadable(t *testing.T) {
	ctx := context.Background()
	s := fastStore(t, fsverity.SHA256)
	src := hurtSource(t, wholeText)
	_, img := pullInto(t, s, src)
	lost := layerObjects(t, s, img.Layers[0].DiffID)[2]
	path := objectPath(s, lost)
	damages[len(damages)-1].do(t, path)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skipf("a lease, which others' opening has to wait for: %v", err)
	}
	restored, err := ObjectsFromStreams(ctx, s, []fsverity.Digest{lost})
	if len(restored) != 0 || !errors.Is(err, unix.EAGAIN) {
		t.Errorf("from streams: %v, %v", restored, err)
	}
	restored, _, err = RefetchObjects(ctx, s, src, img.Layers[0], []fsverity.Digest{lost}, HealOptions{})
	if len(restored) != 0 || !errors.Is(err, unix.EAGAIN) {
		t.Errorf("from the source: %v, %v", restored, err)
	}
	f.Close()
	healAll(t, s, src, img.Layers[0], lost)
	checkObjects(t, s, lost)
}

// TestRestoreDocumentWaitsAlone has a place to find documents that takes its time: others can change entries meanwhile, and
// what they change is not lost.
func TestRestoreDocumentWaitsAlone(t *testing.T) {
	h := newHurt(t, fsverity.SHA256, true)
	must(t, os.Remove(objectPath(h.s, mustEntry(t, h.s, h.config(0)))))
	asked := false
	find := func(d digest.Digest) ([]byte, error) {
		asked = true
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		unlock, err := h.s.LockEntries(ctx)
		if err != nil {
			return nil, err
		}
		unlock()
		must(t, os.Remove(objectPath(h.s, mustEntry(t, h.s, h.layer(0, 0)))))
		h.restoreLayer(0, 0) // to another stream
		return h.find(d)
	}
	must(t, RestoreDocument(context.Background(), h.s, h.config(0), find, writeImage))
	if !asked {
		t.Error("the document was not asked for")
	}
	h.checkAll()
}

// TestRestoreInline has streams of another tool, that hold their documents themselves: a right one stays, a wrong one of the
// same length is not taken for restored.
func TestRestoreInline(t *testing.T) {
	for _, wrong := range []bool{false, true} {
		for _, restore := range []func(h *hurt, entry string){(*hurt).restoreDocument, func(h *hurt, _ string) { _, err := h.pullAgain(0, false); must(h, err) }} {
			h := newHurt(t, fsverity.SHA256, false)
			for _, entry := range []string{h.config(0), h.manifest(0)} {
				id := h.inline(entry, wrong)
				must(t, h.s.Relink(store.Streams, entry, id))
				must(t, renameConfig(h.s, h.images[0].ConfigDescriptor.Digest, mustEntry(t, h.s, h.config(0)), ""))
				id = mustEntry(t, h.s, entry)
				restore(h, entry)
				if now := mustEntry(t, h.s, entry); (now != id) != wrong {
					t.Errorf("wrong %t: the stream of %s was %s and is %s", wrong, entry, id, now)
				}
				h.checkAll()
			}
		}
	}
}

// inline stores a document's stream once more, with its JSON inline.
func (h *hurt) inline(entry string, wrong bool) fsverity.Digest {
	h.Helper()
	id, refs, err := entryRefs(h.s, entry)
	must(h, err)
	raw, err := readDocument(h.s, id)
	must(h, err)
	if wrong {
		raw[len(raw)/2] ^= 1
	}
	l, err := openLayer(h.s, id)
	must(h, err)
	defer l.Close()
	id, err = putStream(h.s, l.Type(), func(w *stream.Writer) error {
		for _, r := range refs {
			must(h, w.NamedRef(r.Name, r.ID))
		}
		return w.Inline(raw)
	})
	must(h, err)
	return id
}
