package powercut

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/flatroot/flatroot/fsck"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/store"
)

// A repair that is cut off has damaged nothing more and forgotten nothing: what was found damaged is repaired or still noted
// as damaged, so that another repair mends all, and so does a pull, whether it reads everything or not.
func TestRepairCut(t *testing.T) {
	need(t)
	dir := sources(t)
	forEach(t, func(t *testing.T, r *rig) {
		c := repairCut{world: world{at: r.at, sources: dir}}
		rec := r.record(t, nil, func(at string, mark func()) {
			stop, err := neighbour(r.filesystem, at)
			if err != nil {
				t.Fatal(err)
			}
			err = c.perform(mark)
			if err := errors.Join(err, stop()); err != nil {
				t.Fatal(err)
			}
		})
		rec.begin = rec.position(marksDamaged)
		c.recording = rec
		states := rec.choose(pick(24, 500), *seed)
		r.tryAll(t, rec, states, func(s state, _ string) {
			if err := c.examine(s); err != nil {
				t.Errorf("%s, %v: %v", r.name, s, err)
			}
		})
		t.Logf("%s: %d events, %d of them while %d objects were repaired", r.name, len(rec.events), len(rec.events)-rec.begin, len(c.damaged))
	})
}

// The marks of the recording.
const (
	marksDamaged  = 1 // fsck has found all damage, and its notes are durable
	marksRepaired = 2
)

// repairCut is a store with a damaged image that is repaired.
type repairCut struct {
	world
	*recording
	image   string
	damaged []fsverity.Digest
}

// perform pulls an image, damages it, has that found and repaired.
func (c *repairCut) perform(mark func()) error {
	p := promise{}
	var err error
	for _, s := range []step{steps[0], pull("v1", "web")} {
		if p, err = s.run(c.world, p); err != nil {
			return err
		}
	}
	c.image = p.Names["web"]
	if err := c.damage(); err != nil {
		return err
	}
	if err := c.exits(4, "fsck"); err != nil {
		return err
	}
	if err := c.sync(); err != nil {
		return err
	}
	mark()
	if err := c.exits(1, "fsck", "--repair"); err != nil {
		return err
	}
	mark()
	return nil
}

// exits runs flatroot, which has to exit with one of these statuses, a set of bits.
func (c *repairCut) exits(status int, args ...string) error {
	_, err := c.command(args...)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == status {
		return nil
	}
	return fmt.Errorf("flatroot %v did not exit with %d: %w", args, status, err)
}

func (c *repairCut) sync() error {
	s, err := store.Open(c.store(), store.OpenOptions{})
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Sync()
}

// filesDamaged is how many objects are damaged that are contents of files.
const filesDamaged = 12

// damage changes a byte of one object of each kind and of some files, at places that depend on nothing.
func (c *repairCut) damage() error {
	s, err := store.Open(c.store(), store.OpenOptions{})
	if err != nil {
		return err
	}
	defer s.Close()
	i, err := index.Find(s, "web")
	if err != nil {
		return err
	}
	manifest, err := s.Entry(store.Streams, "oci-manifest-"+i.Manifest.String())
	if err != nil {
		return err
	}
	files, err := objectsOf(s, i.Layers[0].Stream)
	if err != nil {
		return err
	}
	c.damaged = append(c.damaged, i.Image, i.Layers[1].Stream, manifest)
	for n := range filesDamaged {
		c.damaged = append(c.damaged, files[n*len(files)/filesDamaged])
	}
	for _, d := range c.damaged {
		if err := c.flip(d); err != nil {
			return err
		}
	}
	return nil
}

// objectsOf lists the objects of a layer's files, each once.
func objectsOf(s *store.Store, id fsverity.Digest) (all []fsverity.Digest, err error) {
	f, err := s.OpenObject(id)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := s.ObjectSize(id)
	if err != nil {
		return nil, err
	}
	err = fsck.Tracers()[store.Streams](f, size, func(_ store.Edge, d fsverity.Digest) error {
		if !slices.Contains(all, d) {
			all = append(all, d)
		}
		return nil
	})
	return all, err
}

func (c *repairCut) path(d fsverity.Digest) string {
	return filepath.Join(c.store(), "objects", d.ObjectPath())
}

// flip exchanges an object for one in which a byte is another. In place it could not be changed if it had fs-verity.
func (c *repairCut) flip(d fsverity.Digest) error {
	b, err := os.ReadFile(c.path(d))
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 1
	if err := os.Remove(c.path(d)); err != nil {
		return err
	}
	return os.WriteFile(c.path(d), b, 0o644)
}

func (c *repairCut) examine(s state) error {
	if err := c.look(c.marks(s) >= marksRepaired); err != nil {
		return err
	}
	if err := c.mend(s); err != nil {
		return err
	}
	if err := c.look(true); err != nil {
		return fmt.Errorf("mended: %w", err)
	}
	if _, err := c.flatroot("gc"); err != nil {
		return err
	}
	return c.fsck(true)
}

// look reads the whole store.
func (c *repairCut) look(repaired bool) error {
	s, err := store.Open(c.store(), store.OpenOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer s.Close()
	h, err := hold(s)
	if err != nil {
		return err
	}
	noted, err := s.Bad()
	if err != nil {
		return err
	}
	for _, d := range append(h.corrupt, h.missing...) {
		switch {
		case repaired:
			return fmt.Errorf("%v is not whole, though all is repaired", d)
		case !slices.Contains(c.damaged, d):
			return fmt.Errorf("%v is not whole, and was never damaged", d)
		case h.missing != nil && slices.Contains(h.missing, d):
			return fmt.Errorf("%v, which was damaged, is not there any more", d)
		case noted[d] == "":
			return fmt.Errorf("%v is damaged, and not noted as such", d)
		}
	}
	if !repaired {
		return nil
	}
	return c.names(s, promise{Names: map[string]string{"web": c.image}}, promise{Names: map[string]string{"web": c.image}})
}

// mend makes the store whole in one of three ways.
func (c *repairCut) mend(s state) error {
	if s.number%3 == 0 {
		if err := c.repair(); err != nil {
			return err
		}
		return c.fsck(false)
	}
	args := []string{"pull", c.source("v1"), "--name", "web"}
	if s.number%3 == 1 {
		args = append(args, "--verify")
	}
	got, err := c.flatroot(args...)
	if err == nil && got != c.image {
		err = fmt.Errorf("pulled again, the image is %s, not %s", got, c.image)
	}
	return err
}

// repair may find something to do, or nothing.
func (c *repairCut) repair() error {
	_, err := c.command("fsck", "--repair")
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil
	}
	return err
}
