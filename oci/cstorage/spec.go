package cstorage

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/oci"
)

// place is the part of a reference in brackets: which store. All of it may be empty.
type place struct {
	driver, graphRoot, runRoot string
	options                    []string // of the driver, in brackets
	images                     []string // stores that are read beside it
}

// target is the rest: which image.
type target struct {
	name   string        // as written, without what follows an @
	digest digest.Digest // of a manifest or image index
	id     string        // of the image, or the beginning of it
}

// parse reads [[DRIVER@]GRAPHROOT[+RUNROOT][:OPTIONS]]REFERENCE, by the rules of the transport containers-storage of
// go.podman.io/image, which has no page but that of containers-transports(5).
func parse(s string) (place, target, error) {
	var p place
	if inner, ok := strings.CutPrefix(s, "["); ok {
		spec, rest, ok := strings.Cut(inner, "]")
		if !ok {
			return p, target{}, errors.New("the bracket is not closed")
		}
		var err error
		if p, err = parsePlace(spec); err != nil {
			return p, target{}, err
		}
		s = rest
	}
	t, err := parseTarget(s)
	return p, t, err
}

func parsePlace(spec string) (p place, err error) {
	driver, rest, ok := strings.Cut(spec, "@")
	if !ok {
		driver, rest = "", spec
	} else if driver == "" {
		return p, errors.New("the driver before @ is missing")
	}
	rest, options, _ := strings.Cut(rest, ":")
	p.driver = driver
	p.graphRoot, p.runRoot, _ = strings.Cut(rest, "+")
	if p.graphRoot == "" {
		return p, errors.New("the directory of the store is missing: want [DRIVER@GRAPHROOT]")
	}
	for _, path := range []string{p.graphRoot, p.runRoot} {
		if path != "" && !filepath.IsAbs(path) {
			return p, fmt.Errorf("%s is no absolute path", shown(path))
		}
	}
	if options != "" {
		p.options = strings.Split(options, ",")
	}
	p.images = imageStores(p.options)
	return p, nil
}

// imageStores picks the additional image stores out of a driver's options, which are named overlay.imagestore=DIR, or
// without the driver. The others matter to mounts, and to what writes.
func imageStores(options []string) (dirs []string) {
	for _, o := range options {
		key, dir, _ := strings.Cut(o, "=")
		key = strings.ToLower(key[strings.LastIndexByte(key, '.')+1:])
		if (key == "imagestore" || key == "additionalimagestore") && filepath.IsAbs(dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// minID is how long the beginning of an ID has to be that stands for the whole.
const minID = 3

func parseTarget(s string) (t target, err error) {
	name, after, at := strings.Cut(s, "@")
	t.name = name
	switch {
	case !at:
	case strings.Contains(after, ":"):
		t.digest = digest.Digest(after)
		err = oci.CheckDigest(t.digest)
	case validID(after) && len(after) >= minID:
		t.id = after
	default:
		err = fmt.Errorf("%s is neither a digest nor the ID of an image", shown(after))
	}
	if err == nil && name == "" && !at {
		err = errors.New("the image is missing: want its name, or @ and its ID")
	}
	return t, err
}

// names are those that an image may have in the store that is asked for by this name, the likeliest first. Names there are
// full ones: of one that names no registry either docker.io's, or localhost's, by which podman build names images.
func names(name string) []string {
	first, _, slash := strings.Cut(name, "/")
	switch {
	case name == "":
		return nil
	case slash && (strings.ContainsAny(first, ".:") || first == "localhost"):
		return []string{strings.Replace(name, "index.docker.io/", "docker.io/", 1)}
	case slash:
		return []string{"docker.io/" + name, "localhost/" + name}
	}
	return []string{"docker.io/library/" + name, "localhost/" + name}
}

// splitTag cuts a full name into repository and tag.
func splitTag(name string) (repository, tag string) {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:]
	}
	return name, ""
}
