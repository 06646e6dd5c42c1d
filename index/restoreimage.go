package index

import (
	"context"
	"fmt"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
	"github.com/flatroot/flatroot/tree"
)

// RestoreImage makes an image anew from the layers that the store has, lowest first, and its entry. The digest has to be
// want, or nothing is stored. All is durable in the end.
func RestoreImage(ctx context.Context, s *store.Store, layers []StoredLayer, r Rules, want fsverity.Digest, w ImageWriter) error {
	t, err := StoredTree(ctx, s, layers, r)
	if err != nil {
		return fmt.Errorf("restore image %s: %w", want, err)
	}
	if err := restoreImage(s, t, r, want, w); err != nil {
		return fmt.Errorf("restore image %s: %w", want, err)
	}
	return nil
}

func restoreImage(s *store.Store, t *tree.Tree, r Rules, want fsverity.Digest, w ImageWriter) error {
	o, err := s.NewObject()
	if err != nil {
		return err
	}
	defer o.Abort()
	if err := w(o, t); err != nil {
		return err
	}
	if got := o.Sum(); got != want {
		return &ExpectError{Want: want, Got: got, Rules: r}
	}
	if err := markRotten(s, want); err != nil {
		return err
	}
	if _, _, err := o.Commit(); err != nil {
		return err
	}
	if err := s.Sync(); err != nil {
		return err
	}
	if _, err := s.Link(store.Images, want.String(), want); err != nil {
		return err
	}
	return s.Sync()
}

// imageRefs finds the images of a config whose references are lost: those of our rules that the store has an entry of. If it
// has none, the one of oci-1 is made.
func imageRefs(ctx context.Context, s *store.Store, layers []StoredLayer, w ImageWriter) ([]stream.NamedRef, error) {
	var refs []stream.NamedRef
	want := map[Rules]fsverity.Digest{}
	for _, r := range []Rules{OCI1, Faithful1} {
		t, err := StoredTree(ctx, s, layers, r)
		if err != nil {
			return nil, err
		}
		h := fsverity.NewHasher(s.Algorithm())
		if err := w(h, t); err != nil {
			return nil, err
		}
		want[r] = h.Sum()
		if id, err := s.Entry(store.Images, want[r].String()); err == nil && id == want[r] {
			refs = append(refs, stream.NamedRef{Name: imageKey(r), ID: id})
		}
	}
	if len(refs) > 0 {
		return refs, nil
	}
	refs = append(refs, stream.NamedRef{Name: imageKey(OCI1), ID: want[OCI1]})
	return refs, RestoreImage(ctx, s, layers, OCI1, want[OCI1], w)
}
