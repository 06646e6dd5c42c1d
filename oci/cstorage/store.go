package cstorage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/oci"
)

// drivers are those whose layers are directories, in the order in which they are looked for. The others, btrfs and zfs, keep
// layers as subvolumes, which nothing here mounts.
var drivers = []string{"overlay", "vfs"}

// root is a directory with images and layers: the store's graph root, or one of the image stores that are read beside it.
type root struct {
	dir
	driver string
}

func (r *root) images() string { return r.driver + "-images" }
func (r *root) layers() string { return r.driver + "-layers" }

// layerDir is where a layer's files are.
func (r *root) layerDir(id string) string {
	if r.driver == "vfs" {
		return "vfs/dir/" + id
	}
	return r.driver + "/" + id + "/diff"
}

// store is the roots that are read together, the graph root first.
type store struct {
	driver string
	roots  []*root
	run    *dir // the run root, which has layers that don't outlive a boot; nil: it is not there
}

// openStore opens the directories of a store. Only the first one has to be there.
func openStore(p place) (*store, error) {
	s := new(store)
	if err := s.open(p); err != nil {
		return nil, errors.Join(explainAccess(err), s.close())
	}
	return s, nil
}

func (s *store) open(p place) error {
	first, err := openDir(p.graphRoot)
	if err != nil {
		return err
	}
	s.roots = []*root{{dir: first}}
	if s.driver, err = findDriver(first, p.driver); err != nil {
		return err
	}
	s.roots[0].driver = s.driver
	for _, path := range p.images {
		d, err := openDir(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		s.roots = append(s.roots, &root{d, s.driver})
	}
	if p.runRoot == "" {
		return nil
	}
	if d, err := openDir(p.runRoot); err == nil { // else nothing in it is for us
		s.run = &d
	}
	return nil
}

func (s *store) close() error {
	var errs []error
	for _, r := range s.roots {
		errs = append(errs, r.Close())
	}
	if s.run != nil {
		errs = append(errs, s.run.Close())
	}
	return errors.Join(errs...)
}

// driverName is the name that a driver has in the store.
func driverName(said string) string {
	if said == "overlay2" { // its name elsewhere
		return "overlay"
	}
	return said
}

// findDriver finds out whose the layers are, if that is not said: the store's own tools go by what is there as well.
func findDriver(d dir, said string) (string, error) {
	said = driverName(said)
	switch {
	case said != "" && !slices.Contains(drivers, said):
		return "", fmt.Errorf("layers of the storage driver %s can't be read, only those of %s; `skopeo copy containers-storage:… oci:DIR` makes an OCI layout of an image",
			shown(said), strings.Join(drivers, " and "))
	case said != "":
		return said, nil
	}
	for _, driver := range drivers {
		there, err := d.has(driver + "-images")
		if there || err != nil {
			return driver, err
		}
	}
	return "", fmt.Errorf("%s is no store of containers-storage: it has no %s-images", d.f.Name(), strings.Join(drivers, "-images and no "))
}

// lock takes the locks of all layers, then of all images: the order in which the store's own tools take them.
func (s *store) lock(ctx context.Context, waiting func(string)) (locks, error) {
	held, err := s.lockLayers(ctx, waiting)
	if err != nil {
		return nil, err
	}
	return s.lockAll(ctx, held, func(r *root) string { return r.images() + "/images.lock" }, waiting)
}

func (s *store) lockLayers(ctx context.Context, waiting func(string)) (locks, error) {
	return s.lockAll(ctx, nil, func(r *root) string { return r.layers() + "/layers.lock" }, waiting)
}

// lockAll takes one lock of each root beside those that are held. After an error none is held.
func (s *store) lockAll(ctx context.Context, held locks, name func(*root) string, waiting func(string)) (locks, error) {
	for _, r := range s.roots {
		f, err := r.lock(ctx, name(r), waiting)
		if err != nil {
			return nil, errors.Join(explainAccess(err), held.release())
		}
		if f != nil {
			held = append(held, f)
		}
	}
	return held, nil
}

// find looks for an image in all roots, under the locks.
func (s *store) find(t target) (*imageRecord, error) {
	var all []*imageRecord
	for _, r := range s.roots {
		err := readRecords(r.dir, r.images()+"/images.json", func(i *imageRecord) {
			if validID(i.ID) {
				i.root = r
				all = append(all, i)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return pick(all, t)
}

// errNoImage is what is wrapped when the store does not have the image.
var errNoImage = errors.New("there is no such image in the store")

// pick finds the image that is meant.
func pick(all []*imageRecord, t target) (*imageRecord, error) {
	switch {
	case t.id != "":
		return byID(all, t.id)
	case t.digest != "":
		return byDigest(all, t)
	}
	for _, name := range names(t.name) {
		if _, tag := splitTag(name); tag == "" {
			name += ":" + oci.DefaultTag
		}
		for _, i := range all {
			if slices.Contains(i.Names, name) {
				return i, nil
			}
		}
	}
	if len(t.name) >= minID && validID(t.name) {
		if i, err := byID(all, t.name); err == nil || !errors.Is(err, errNoImage) {
			return i, err
		}
	}
	return nil, fmt.Errorf("%w; %s", errNoImage, listNames(all))
}

func byID(all []*imageRecord, id string) (found *imageRecord, err error) {
	for _, i := range all {
		switch {
		case i.ID == id:
			return i, nil
		case !strings.HasPrefix(i.ID, id), found != nil && i.ID == found.ID:
		case found != nil:
			return nil, fmt.Errorf("the IDs of several images begin with %s", id)
		default:
			found = i
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w; %s", errNoImage, listNames(all))
	}
	return found, nil
}

// byDigest finds an image that has a manifest of this digest, and a name in the repository that is asked for. Its tag is not
// compared: the digest is what counts.
func byDigest(all []*imageRecord, t target) (*imageRecord, error) {
	wanted := map[string]bool{}
	for _, name := range names(t.name) {
		repository, _ := splitTag(name)
		wanted[repository] = true
	}
	for _, i := range all {
		if i.Digest != t.digest && !slices.Contains(i.BigDataNames, manifestKey(t.digest)) {
			continue
		}
		named := func(name string) bool {
			name, _, _ = strings.Cut(name, "@")
			repository, _ := splitTag(name)
			return wanted[repository]
		}
		if t.name == "" || slices.ContainsFunc(i.Names, named) {
			return i, nil
		}
	}
	return nil, fmt.Errorf("%w; %s", errNoImage, listNames(all))
}

// listNames says which names there are, in order, and not too many.
func listNames(all []*imageRecord) string {
	const most = 20
	var names []string
	for _, i := range all {
		for _, n := range i.Names {
			names = append(names, shown(n))
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	switch {
	case len(names) == 0:
		return "no image there has a name"
	case len(names) > most:
		return "there is " + strings.Join(names[:most], ", ") + " and others"
	}
	return "there is " + strings.Join(names, ", ")
}

// readLayers reads the records of all layers, under the locks. The first of an ID counts, as for the store's own tools.
func (s *store) readLayers() (map[string]*layerRecord, error) {
	all := map[string]*layerRecord{}
	keep := func(l *layerRecord) {
		if validID(l.ID) && all[l.ID] == nil {
			all[l.ID] = l
		}
	}
	for _, r := range s.roots {
		for _, name := range []string{"/layers.json", "/volatile-layers.json"} {
			if err := readRecords(r.dir, r.layers()+name, keep); err != nil {
				return nil, err
			}
		}
	}
	if s.run != nil {
		if err := readRecords(*s.run, s.driver+"-layers/volatile-layers.json", keep); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// maxChain bounds the layers of an image. Overlay mounts of 500 are the most that the store's own tools make.
const maxChain = 2000

// chain lists the layers from the lowest up to the one that is on top; none if top is empty.
func chain(all map[string]*layerRecord, top string) ([]*layerRecord, error) {
	var list []*layerRecord
	for id := top; id != ""; {
		l := all[id]
		switch {
		case l == nil:
			return nil, fmt.Errorf("the store has no layer %s", shown(id))
		case l.incomplete():
			return nil, fmt.Errorf("layer %s is incomplete: a pull of it was interrupted; pull the image again", id)
		case len(list) == maxChain:
			return nil, fmt.Errorf("the image has more than %d layers, or layers below themselves", maxChain)
		}
		list = append(list, l)
		id = l.Parent
	}
	slices.Reverse(list)
	return list, nil
}

// manifestKey is the name of the big data that a manifest of this digest is kept as.
func manifestKey(d digest.Digest) string { return "manifest-" + d.String() }

// currentManifest is the name of the big data that is the image's own manifest.
const currentManifest = "manifest"

// data reads big data of an image: a document of bounded size.
func (i *imageRecord) data(key string) ([]byte, error) {
	b, err := i.root.small(i.root.images()+"/"+i.ID+"/"+fileName(key), oci.MaxManifestSize)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return b, nil
}

// explainAccess adds to an error that something must not be read what can be done about it.
func explainAccess(err error) error {
	if errors.Is(err, os.ErrPermission) && os.Geteuid() != 0 {
		return fmt.Errorf("%w; of a store of one's own, files with other owners can be read in its user namespace: `podman unshare flatroot pull …`", err)
	}
	return err
}
