package chunk

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Where other tools record what is in a layer.
const (
	// rechunkLabel is a label of the config with JSON (rechunk, src/rechunk/model.py, ExportInfoV2).
	rechunkLabel = "dev.hhd.rechunk.info"
	// chunkahAnnotation is one of a layer, with names between spaces (chunkah, src/ocibuilder.rs and src/cmd_build.rs).
	chunkahAnnotation = "org.chunkah.component"
	// ostreeAnnotation is one of a layer, with names between commas (ostree-ext, lib/src/container/mod.rs).
	ostreeAnnotation = "ostree.components"
)

// ErrNoPlan is what ReadPrevious returns of an image that has no plan recorded.
var ErrNoPlan = errors.New("no plan is recorded in it")

// ReadPrevious finds the plan of an image that was made by this program, rpm-ostree, rechunk or chunkah. The digests of
// other tools' components are not known: their layers have other bytes than ours, so nothing is kept, but what was together
// may stay together. An error says what is wrong with the record; the image may be used without it.
func ReadPrevious(labels map[string]string, layers []ocispec.Descriptor) (*Previous, error) {
	if text, ok := labels[PlanLabel]; ok {
		return reading("label "+PlanLabel, func() (*Previous, error) { return parseLabel(text) })
	}
	if text, ok := labels[rechunkLabel]; ok {
		return reading("label "+rechunkLabel, func() (*Previous, error) { return parseRechunk(text) })
	}
	for _, a := range annotators() {
		if hasAnnotation(layers, a.key) {
			return reading("annotation "+a.key, func() (*Previous, error) { return parseAnnotations(a, layers) })
		}
	}
	return nil, ErrNoPlan
}

// annotator is a tool that annotates layers with the names of their components.
type annotator struct{ tool, key, separator string }

func annotators() []annotator {
	return []annotator{{"chunkah", chunkahAnnotation, " "}, {"rpm-ostree", ostreeAnnotation, ","}}
}

func reading(what string, read func() (*Previous, error)) (*Previous, error) {
	p, err := read()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return p, nil
}

func hasAnnotation(layers []ocispec.Descriptor, key string) bool {
	for _, l := range layers {
		if l.Annotations[key] != "" {
			return true
		}
	}
	return false
}

func parseAnnotations(a annotator, layers []ocispec.Descriptor) (*Previous, error) {
	p := &Previous{Tool: a.tool}
	for _, l := range layers {
		if text := l.Annotations[a.key]; text != "" {
			p.Layers = append(p.Layers, foreign(strings.Split(text, a.separator)))
		}
	}
	return p, p.check()
}

// parseRechunk reads rechunk's label.
func parseRechunk(text string) (*Previous, error) {
	if len(text) > recordMax {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(text), recordMax)
	}
	var in struct {
		Layers [][]string `json:"layers"`
	}
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		return nil, err
	}
	p := &Previous{Tool: "rechunk"}
	for _, l := range in.Layers {
		p.Layers = append(p.Layers, foreign(l))
	}
	return p, p.check()
}

// foreign makes components of other tools' names, as far as they are any.
func foreign(names []string) (l RecordedLayer) {
	for _, n := range names {
		n = strings.TrimSpace(n)
		for _, prefix := range []string{"meta:", "dedi:"} { // rechunk's marks
			n = strings.TrimPrefix(n, prefix)
		}
		if n == "" || n == "null" {
			continue
		}
		if !strings.Contains(n, "/") {
			n = "rpm/" + n // rpm-ostree and rechunk know no other packages
		}
		l.Components = append(l.Components, Recorded{Name: n})
	}
	return l
}
