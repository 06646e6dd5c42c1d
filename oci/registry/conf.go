package registry

import (
	"errors"
	"fmt"

	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"

	"github.com/flatroot/flatroot/oci"
)

// errBlocked is why nothing is asked of a registry.
var errBlocked = errors.New("registries.conf blocks this registry")

// findPlaces says where an image is looked for: in the mirrors that containers-registries.conf(5) has for it, in their
// order, and then in the registry itself, which may have another location there. path is that of the file; empty: those
// that the page names.
func findPlaces(ref oci.Reference, path string) ([]place, error) {
	named, err := asNamed(ref)
	if err != nil {
		return nil, err
	}
	found, err := sysregistriesv2.FindRegistry(&types.SystemContext{SystemRegistriesConfPath: path}, named.Name())
	switch {
	case err != nil:
		return nil, fmt.Errorf("look for mirrors: %w", err)
	case found == nil:
		return []place{{ref: ref}}, nil
	case found.Blocked:
		return nil, errBlocked
	}
	sources, err := found.PullSourcesFromReference(named)
	if err != nil {
		return nil, fmt.Errorf("registries.conf, prefix %s: %w", oci.Printable(found.Prefix, 100), err)
	}
	var places []place
	for _, s := range sources {
		at := ref
		at.Host, at.Repository = reference.Domain(s.Reference), reference.Path(s.Reference)
		places = append(places, place{ref: at, insecure: s.Endpoint.Insecure, namespace: s.Endpoint.NamespaceProxy})
	}
	return places, nil
}

// pushPlace says where an image is written to: mirrors are for reading, and another location of a registry too.
func pushPlace(ref oci.Reference, path string) (place, error) {
	found, err := sysregistriesv2.FindRegistry(&types.SystemContext{SystemRegistriesConfPath: path}, ref.Host+"/"+ref.Repository)
	switch {
	case err != nil:
		return place{}, fmt.Errorf("look into registries.conf: %w", err)
	case found == nil:
		return place{ref: ref}, nil
	case found.Blocked:
		return place{}, errBlocked
	}
	return place{ref: ref, insecure: found.Insecure}, nil
}

// asNamed is a reference as the library has it. Of tag and digest the digest decides, as it does for us.
func asNamed(ref oci.Reference) (reference.Named, error) {
	named, err := reference.ParseNamed(ref.Host + "/" + ref.Repository)
	if err != nil {
		return nil, err
	}
	if ref.Digest != "" {
		return reference.WithDigest(named, ref.Digest)
	}
	return reference.WithTag(named, ref.Tag)
}

// place is where an endpoint has the image, as registries.conf says.
type place struct {
	ref       oci.Reference
	insecure  bool   // plain HTTP and certificates that nobody vouches for are fine
	namespace string // the registry that a proxy for several is to ask
}
