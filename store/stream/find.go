package stream

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/flatroot/flatroot/fsverity"
)

// Names of named refs.
const (
	// ConfigPrefix and the config's digest name the config stream in a manifest's.
	ConfigPrefix = "config:"
	// ImageV1 names the EROFS image of format version 1 in a config stream, ImageV2
	// that of version 2. Version 0 has no name.
	ImageV1 = "composefs.image.v1"
	ImageV2 = "composefs.image"
	// BootImagePrefix begins the names of all images made for booting.
	BootImagePrefix = "composefs.image.boot"
)

// ErrNoRef: a stream has no named ref of the name asked for.
var ErrNoRef = errors.New("no such named ref")

// Object is an opened object; *os.File is one.
type Object interface {
	io.ReaderAt
	io.Closer
	Stat() (fs.FileInfo, error)
}

type sizedObject struct {
	Object
	size int64
}

func openObject(open Opener, id fsverity.Digest) (sizedObject, error) {
	o, err := open(id)
	if err != nil {
		return sizedObject{}, err
	}
	fi, err := o.Stat()
	if err != nil {
		o.Close()
		return sizedObject{}, fmt.Errorf("size of object %v: %w", id, err)
	}
	return sizedObject{o, fi.Size()}, nil
}

// FindImage follows an image's manifest stream to its config stream and from
// there to what has the name key, such as ImageV1, which is the ID of an EROFS
// image. The error wraps ErrNoRef if the config has no such name. The mount helper
// uses it, which must do without anything that knows JSON or tar.
func FindImage(open Opener, manifest fsverity.Digest, key string) (fsverity.Digest, error) {
	isConfig := func(name string) bool { return strings.HasPrefix(name, ConfigPrefix) }
	config, err := follow(open, manifest, OCIManifest, isConfig)
	if err != nil {
		return fsverity.Digest{}, fmt.Errorf("manifest stream %v: %w", manifest, err)
	}
	image, err := follow(open, config, OCIConfig, func(name string) bool { return name == key })
	if err != nil {
		return fsverity.Digest{}, fmt.Errorf("config stream %v: %s: %w", config, key, err)
	}
	return image, nil
}

// follow opens the stream id, of this type, and gives the one named ref wanted.
func follow(open Opener, id fsverity.Digest, t ContentType, want func(string) bool) (found fsverity.Digest, err error) {
	o, err := openObject(open, id)
	if err != nil {
		return found, err
	}
	defer o.Close()
	s, err := Open(o, o.size)
	if err != nil {
		return found, err
	}
	if s.Type() != t {
		return found, invalid("content type %v, want %v", s.Type(), t)
	}
	refs, err := s.NamedRefs()
	if err != nil {
		return found, err
	}
	for _, r := range refs {
		if !want(r.Name) {
			continue
		}
		if !found.IsZero() {
			return found, invalid("two named refs fit, %s is one", r.Name)
		}
		found = r.ID
	}
	if found.IsZero() {
		return found, ErrNoRef
	}
	return found, nil
}
