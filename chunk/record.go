package chunk

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// PlanLabel is the label of an image's config that records its plan: of annotations, some tools lose those of layers.
const PlanLabel = "org.flatroot.chunk.plan"

const (
	recordVersion = 1
	// digestLength is how many characters of a component's digest are recorded, of hexadecimal ones 64 bits. Should two be the
	// same by chance, a layer keeps its place for which a better one might have been found, nothing else.
	digestLength = 16
	// seenMax is how many changes of a component are recorded, the newest.
	seenMax = 64
	// recordMax bounds a label that is read, in bytes; registries take manifests and configs of 4 MiB.
	recordMax = 2 << 20
)

const secondsOfDay = 24 * 60 * 60

// firstDay and lastDay are those of the years 1 and 9999, in days since 1970: others can't be written down in JSON.
const (
	firstDay = -719162
	lastDay  = 2932896
)

// record is what the label has.
type record struct {
	Version int           `json:"version"`
	Now     int64         `json:"now"` // the clock of the statistics, in seconds since 1970
	Layers  []recordLayer `json:"layers"`
}

type recordLayer struct {
	Chance     int64             `json:"p"` // millionths
	Components []recordComponent `json:"c"`
}

type recordComponent struct {
	Name   string  `json:"n"`
	Digest string  `json:"d"`
	Size   int64   `json:"z"`           // bytes
	Seen   []int64 `json:"s,omitempty"` // days since 1970 on which builds saw it changed, oldest first
}

// Digest completes a plan with the digests that its components have now: they need not be known before.
func (p *Plan) Digest(components []Component) {
	digests := map[string]string{}
	for _, c := range components {
		digests[c.Name] = c.Digest
	}
	for _, l := range p.Layers {
		for i, c := range l.Components {
			l.Components[i].Digest = digests[c.Name]
		}
	}
}

// Record is what the next build is to know of a plan.
func (p *Plan) Record() *Previous {
	r := &Previous{Tool: "flatroot", Now: p.Now}
	for _, l := range p.Layers {
		out := RecordedLayer{Chance: l.Chance}
		for _, c := range l.Components {
			out.Components = append(out.Components, Recorded{Name: c.Name, Digest: shortDigest(c.Digest), Size: c.Size, Changes: p.seen[c.Name]})
		}
		r.Layers = append(r.Layers, out)
	}
	return r
}

func shortDigest(d string) string { return d[:min(len(d), digestLength)] }

// Same tells of each layer whether its components are the same now. So everything that it has is as it was, times included.
func (r *Previous) Same(components []Component) []bool {
	digests := map[string]string{}
	for _, c := range components {
		digests[c.Name] = shortDigest(c.Digest)
	}
	same := make([]bool, len(r.Layers))
	for n, l := range r.Layers {
		same[n] = !slices.ContainsFunc(l.Components, func(c Recorded) bool { return c.Digest == "" || digests[c.Name] != c.Digest })
	}
	return same
}

// Label is the text of PlanLabel.
func (r *Previous) Label() (string, error) {
	out := record{Version: recordVersion, Now: r.Now.Unix(), Layers: []recordLayer{}}
	for _, l := range r.Layers {
		to := recordLayer{Chance: l.Chance, Components: []recordComponent{}}
		for _, c := range l.Components {
			to.Components = append(to.Components, recordComponent{c.Name, shortDigest(c.Digest), c.Size, days(c.Changes)})
		}
		out.Layers = append(out.Layers, to)
	}
	b, err := json.Marshal(out)
	if err == nil && len(b) > recordMax {
		err = fmt.Errorf("it would take %d bytes of at most %d in the image's config", len(b), recordMax)
	}
	if err != nil {
		return "", fmt.Errorf("record the plan: %w", err)
	}
	return string(b), nil
}

// days are the newest times, without those on the same day.
func days(times []time.Time) []int64 {
	var ds []int64
	for _, t := range times {
		ds = append(ds, floorDiv(t.Unix(), secondsOfDay))
	}
	slices.Sort(ds)
	ds = slices.Compact(ds)
	return ds[max(0, len(ds)-seenMax):]
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// parseLabel reads the text of PlanLabel.
func parseLabel(text string) (*Previous, error) {
	if len(text) > recordMax {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(text), recordMax)
	}
	var in record
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		return nil, err
	}
	if in.Version != recordVersion {
		return nil, fmt.Errorf("it has version %d, and this program knows %d", in.Version, recordVersion)
	}
	p := &Previous{Tool: "flatroot", Now: time.Unix(in.Now, 0).UTC()}
	if in.Layers != nil && len(in.Layers) == 0 { // all is in the layers of a base
		return p, nil
	}
	for _, l := range in.Layers {
		to := RecordedLayer{Chance: min(max(l.Chance, 0), 1_000_000)}
		for _, c := range l.Components {
			if len(c.Seen) > seenMax {
				return nil, fmt.Errorf("component %q has %d changes, more than %d", c.Name, len(c.Seen), seenMax)
			}
			r := Recorded{Name: c.Name, Digest: c.Digest, Size: min(max(c.Size, 0), sizeMax)}
			for _, d := range c.Seen {
				if d < firstDay || d > lastDay {
					return nil, fmt.Errorf("component %q changed %d days after 1970", c.Name, d)
				}
				r.Changes = append(r.Changes, time.Unix(d*secondsOfDay, 0).UTC())
			}
			to.Components = append(to.Components, r)
		}
		p.Layers = append(p.Layers, to)
	}
	return p, p.check()
}

// Bounds of a plan that is read.
const (
	previousLayersMax     = 1024
	previousComponentsMax = 128 << 10
	nameMax               = 4096
)

// check refuses what no plan is: names must be told apart.
func (r *Previous) check() error {
	if len(r.Layers) > previousLayersMax {
		return fmt.Errorf("it has %d layers, more than %d", len(r.Layers), previousLayersMax)
	}
	names := map[string]bool{}
	for _, l := range r.Layers {
		for _, c := range l.Components {
			switch {
			case c.Name == "":
				return errors.New("a component has no name")
			case len(c.Name) > nameMax:
				return fmt.Errorf("the name of a component has %d bytes, more than %d", len(c.Name), nameMax)
			case names[c.Name]:
				return fmt.Errorf("the component %q is in two layers", c.Name)
			case len(names) == previousComponentsMax:
				return fmt.Errorf("it has more than %d components", previousComponentsMax)
			}
			names[c.Name] = true
		}
	}
	if len(names) == 0 {
		return errors.New("it has no components")
	}
	return nil
}
