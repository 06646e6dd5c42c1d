package chunk

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// Survey is what is known of the layers of an image that was not cut by this program: what its manifest and its history say,
// and what other tools have recorded. How large a layer or a component is without compression is not known.
type Survey struct {
	// Tool is the one that has said what is in the layers: chunkah, rpm-ostree or rechunk; empty: none has.
	Tool   string          `json:"tool,omitempty"`
	Size   int64           `json:"compressed_size"` // bytes of all blobs
	Layers []SurveyedLayer `json:"layers"`          // lowest first
	// Groups are components that rechunk has put together, each group in a layer of which it doesn't say which it is.
	Groups [][]string `json:"groups,omitempty"`
}

// SurveyedLayer is a layer of a Survey.
type SurveyedLayer struct {
	Size       int64    `json:"compressed_size"` // bytes of the blob
	Components []string `json:"components,omitempty"`
	History    string   `json:"history,omitempty"` // a comment, or the command that made it
}

// NewSurvey reads it from an image.
func NewSurvey(img *oci.Image) (*Survey, error) {
	var config struct {
		Config  struct{ Labels map[string]string } `json:"config"`
		History []ocispec.History                  `json:"history"`
	}
	if err := json.Unmarshal(img.Config, &config); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	s := &Survey{Layers: make([]SurveyedLayer, len(img.Layers))}
	for n, l := range img.Layers {
		to := &s.Layers[n]
		to.Size = l.Descriptor.Size
		s.Size += to.Size
		for _, a := range annotators() {
			if text := l.Descriptor.Annotations[a.key]; text != "" && to.Components == nil {
				s.Tool, to.Components = cmp.Or(s.Tool, a.tool), namesOf(foreign(strings.Split(text, a.separator)))
			}
		}
	}
	if text, ok := config.Config.Labels[rechunkLabel]; ok {
		s.rechunk(text)
	}
	s.remember(config.History)
	return s, nil
}

// rechunk takes what rechunk's label says, if it can be read.
func (s *Survey) rechunk(text string) {
	p, err := parseRechunk(text)
	if err != nil {
		return
	}
	s.Tool = p.Tool
	for _, l := range p.Layers {
		s.Groups = append(s.Groups, namesOf(l))
	}
}

func namesOf(l RecordedLayer) (names []string) {
	for _, c := range l.Components {
		names = append(names, c.Name)
	}
	return names
}

// remember takes what the history says, unless it is of other layers.
func (s *Survey) remember(entries []ocispec.History) {
	var said []string
	for _, h := range entries {
		if !h.EmptyLayer {
			said = append(said, cmp.Or(h.Comment, h.CreatedBy))
		}
	}
	if len(said) != len(s.Layers) {
		return
	}
	for n, text := range said {
		s.Layers[n].History = text
	}
}
