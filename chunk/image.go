package chunk

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// ComponentsAnnotation is what a layer's descriptor is annotated with: the names of its components with commas between them,
// as far as 4096 bytes go; a list that is cut ends with an ellipsis. What could be misread in a name, such as a comma, is
// written as in a URL, %2C. It is for people and scanners: the next build reads PlanLabel.
const ComponentsAnnotation = "org.flatroot.chunk.components"

const (
	// createdBy is what the history says of layers that were written here.
	createdBy = "flatroot chunk"
	// cacheMember is what BuildKit's inline cache is called in a config. It says which instruction made which layer, by the
	// layer's number: kept, it would have builds take the wrong layers.
	cacheMember = "moby.buildkit.cache.v0"
	// finalLabel names the layer that ends an OSTree commit. Its readers refuse an image without that layer.
	finalLabel = "ostree.final-diffid"

	maxAnnotation = 4096 // bytes; so that a manifest of MaxLayers layers stays far below oci.MaxManifestSize
	maxComment    = 200  // bytes; a line or two
)

// WrittenLayer is a layer that has been written, and what is in it.
type WrittenLayer struct {
	oci.Layer
	Components []string // their names
	// Note is what the history says of it; empty: its components.
	Note string
}

// ImageOptions are NewImage's.
type ImageOptions struct {
	// Source is the image that the layers were made of; nil: there is none, as for a directory.
	Source *oci.Image
	// Platform is that of an image without a source; zero: this machine's.
	Platform oci.Platform
	// KeepBase is the number of the source's lowest layers that stay as they are, below those that were written.
	KeepBase int
	// Created is the time of the image and its layers; zero: the source's.
	Created time.Time
	// Labels are added to those of the source, and take the place of those of the same name.
	Labels map[string]string
}

// NewImage makes config and manifest, OCI's always, of layers that have been written, lowest first. Both depend on nothing
// but what is given.
//
// The config is the source's, fields that nobody knows included, but for its layers, its time, added labels, and what would
// be wrong with other layers: BuildKit's inline cache and a label that names a layer that has gone. Its history stays, as
// entries without layers, save that of earlier chunking, and is followed by an entry for each layer. The manifest has the
// source's annotations, and one on each layer that says what is in it.
func NewImage(layers []WrittenLayer, o ImageOptions) (*oci.Image, error) {
	b := &imageBuilder{o: o, config: members{}}
	if err := b.read(); err != nil {
		return nil, fmt.Errorf("take over the source: %w", err)
	}
	if err := b.add(layers); err != nil {
		return nil, err
	}
	config, err := b.newConfig()
	if err != nil {
		return nil, fmt.Errorf("make config: %w", err)
	}
	manifest, err := b.newManifest(config)
	if err != nil {
		return nil, fmt.Errorf("make manifest: %w", err)
	}
	img, err := oci.ParseImage(oci.Describe(ocispec.MediaTypeImageManifest, manifest), manifest, config)
	if err != nil {
		return nil, fmt.Errorf("new image: %w", err)
	}
	return img, nil
}

// members is a JSON object of which only some members are looked at.
type members map[string]json.RawMessage

// get decodes a member, if there is one.
func (m members) get(name string, v any) error {
	if raw, ok := m[name]; ok {
		if err := json.Unmarshal(raw, v); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (m members) set(name string, v any) (err error) {
	m[name], err = oci.EncodeJSON(v)
	return err
}

type imageBuilder struct {
	o           ImageOptions
	config      members
	annotations map[string]string
	history     []members
	layers      []ocispec.Descriptor
	diffIDs     []digest.Digest
}

// read takes what stays of the source.
func (b *imageBuilder) read() error {
	if b.o.Source == nil {
		return b.platform()
	}
	if n := len(b.o.Source.Layers); b.o.KeepBase < 0 || b.o.KeepBase > n {
		return fmt.Errorf("the source has %d layers, %d of them can't be kept", n, b.o.KeepBase)
	}
	doc, err := oci.ParseDocument(b.o.Source.Manifest, b.o.Source.Descriptor.MediaType)
	if err != nil {
		return err
	}
	b.annotations = doc.Annotations
	if err := json.Unmarshal(b.o.Source.Config, &b.config); err != nil {
		return err
	}
	delete(b.config, cacheMember)
	if err := b.config.get("history", &b.history); err != nil {
		return err
	}
	for _, l := range b.o.Source.Layers[:b.o.KeepBase] {
		l.Descriptor.MediaType = oci.OCILayer(l.Descriptor.MediaType)
		b.put(l)
	}
	return b.keepHistory()
}

func (b *imageBuilder) platform() error {
	if b.o.KeepBase != 0 {
		return errors.New("without a source there are no layers to keep")
	}
	p := cmp.Or(b.o.Platform, oci.DefaultPlatform())
	for _, f := range []struct{ name, value string }{{"os", p.OS}, {"architecture", p.Architecture}, {"variant", p.Variant}} {
		if f.value == "" {
			continue
		}
		if err := b.config.set(f.name, f.value); err != nil {
			return err
		}
	}
	return nil
}

func (b *imageBuilder) put(l oci.Layer) {
	b.layers = append(b.layers, l.Descriptor)
	b.diffIDs = append(b.diffIDs, digest.Digest(l.DiffID))
}

// keepHistory leaves entries of layers only to layers that are kept. If it is not certain which are theirs, these get
// others.
func (b *imageBuilder) keepHistory() error {
	var kept []members
	layer := 0
	for _, entry := range b.history {
		if entry == nil { // of a null
			entry = members{}
		}
		var empty bool
		var by string
		if err := errors.Join(entry.get("empty_layer", &empty), entry.get("created_by", &by)); err != nil {
			return fmt.Errorf("history: %w", err)
		}
		if !empty {
			layer++
		}
		switch {
		case empty || layer <= b.o.KeepBase:
		case by == createdBy:
			continue
		default:
			if err := entry.set("empty_layer", true); err != nil {
				return err
			}
		}
		kept = append(kept, entry)
	}
	b.history = kept
	if layer == len(b.o.Source.Layers) {
		return nil
	}
	return b.replaceHistory()
}

// replaceHistory gives kept layers entries of their own, where those of the source don't fit its layers.
func (b *imageBuilder) replaceHistory() error {
	for _, entry := range b.history {
		if err := entry.set("empty_layer", true); err != nil {
			return err
		}
	}
	for range b.o.KeepBase {
		entry := members{}
		if err := entry.set("comment", "kept as it was"); err != nil {
			return err
		}
		b.history = append(b.history, entry)
	}
	return nil
}

// add adds the layers that have been written, and says in history and annotations what is in them.
func (b *imageBuilder) add(layers []WrittenLayer) error {
	if !b.o.Created.IsZero() {
		if err := b.config.set("created", b.o.Created.UTC()); err != nil {
			return err
		}
	}
	for _, l := range layers {
		if len(l.Components) > 0 {
			annotations := maps.Clone(l.Descriptor.Annotations)
			if annotations == nil {
				annotations = map[string]string{}
			}
			annotations[ComponentsAnnotation] = list(l.Components)
			l.Descriptor.Annotations = annotations
		}
		b.put(l.Layer)
		entry := members{}
		if created, ok := b.config["created"]; ok {
			entry["created"] = created
		}
		err := errors.Join(entry.set("created_by", createdBy), entry.set("comment", cmp.Or(l.Note, comment(l.Components))))
		if err != nil {
			return err
		}
		b.history = append(b.history, entry)
	}
	return nil
}

func (b *imageBuilder) newConfig() ([]byte, error) {
	if err := b.config.set("rootfs", ocispec.RootFS{Type: "layers", DiffIDs: append([]digest.Digest{}, b.diffIDs...)}); err != nil {
		return nil, err
	}
	if err := b.config.set("history", append([]members{}, b.history...)); err != nil {
		return nil, err
	}
	if err := b.label(); err != nil {
		return nil, err
	}
	return oci.EncodeJSON(b.config)
}

// label adds the labels, and drops one that is not true any more.
func (b *imageBuilder) label() error {
	run, labels := members{}, map[string]string{}
	if err := b.config.get("config", &run); err != nil {
		return err
	}
	if err := run.get("Labels", &labels); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	final, isFinal := labels[finalLabel]
	stale := isFinal && !slices.Contains(b.diffIDs, digest.Digest(final))
	if len(b.o.Labels) == 0 && !stale {
		return nil
	}
	if run == nil {
		run = members{}
	}
	if labels == nil {
		labels = map[string]string{}
	}
	if stale {
		delete(labels, finalLabel)
	}
	maps.Copy(labels, b.o.Labels)
	return errors.Join(run.set("Labels", labels), b.config.set("config", run))
}

func (b *imageBuilder) newManifest(config []byte) ([]byte, error) {
	return oci.EncodeJSON(ocispec.Manifest{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageManifest,
		Config:      oci.Describe(ocispec.MediaTypeImageConfig, config),
		Layers:      append([]ocispec.Descriptor{}, b.layers...),
		Annotations: b.annotations,
	})
}

// comment says what is in a layer, for people.
func comment(components []string) string {
	var b strings.Builder
	for i, c := range components {
		c = oci.Printable(c, maxComment/2)
		if b.Len()+len(c) > maxComment {
			fmt.Fprintf(&b, " and %d more", len(components)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(c)
	}
	return b.String()
}

// more ends a list of components that is not complete.
const more = "…"

// list is the text of ComponentsAnnotation.
func list(names []string) string {
	var items []string
	size := len(more)
	for _, name := range names {
		item := escape(name)
		if size += len(item) + 1; size > maxAnnotation {
			items = append(items, more)
			break
		}
		items = append(items, item)
	}
	return strings.Join(items, ",")
}

func escape(name string) string {
	var b strings.Builder
	for len(name) > 0 {
		r, n := utf8.DecodeRuneInString(name)
		if r == utf8.RuneError || r < ' ' || r == 0x7f || strings.ContainsRune(",%"+more, r) {
			for _, c := range []byte(name[:n]) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		} else {
			b.WriteString(name[:n])
		}
		name = name[n:]
	}
	return b.String()
}
