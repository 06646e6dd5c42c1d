package mount

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/fsverity"
)

// Spec is a plan as data for other programs, such as container engines that put
// an upper layer of their own on the tree: the mounts to make, in order. It has
// the lower layers alone, whatever the request wanted on top.
//
// It names the image and the object directories by path. What Do checks of the
// files that it has open, whoever uses a Spec must see to: Image says what.
type Spec struct {
	Mode         Mode             `json:"mode"`
	Image        SpecImage        `json:"image"`
	Objects      []string         `json:"objects"` // object directories, in search order
	Verification SpecVerification `json:"verification"`
	Mounts       []SpecMount      `json:"mounts"`
}

// SpecImage is the image file. Check tells what has to hold when it is mounted:
// with ImageKernel its fs-verity digest is Digest, with ImageSealed a copy that
// can't change any more has this digest and is what gets mounted, with ImageOnce
// the file has it.
type SpecImage struct {
	Path   string           `json:"path"`
	Digest *fsverity.Digest `json:"digest,omitempty"` // that it must have; nil: any
	Check  ImageCheck       `json:"check"`
}

// SpecVerification is what the mounts check when they are made as the Spec says.
type SpecVerification struct {
	Image   ImageCheck  `json:"image"`
	Objects ObjectCheck `json:"objects"`
	Why     []string    `json:"why_not_more,omitempty"`
}

// SpecMount is one mount. Within Source and Options ${NAME} stands for the mount
// whose Target that is; ${target} is left to whoever mounts.
type SpecMount struct {
	Type    string   `json:"type"` // of the file system
	Source  string   `json:"source"`
	Target  string   `json:"target"`
	Options []string `json:"options"`           // for the file system and the mount, as mount(8) takes them
	Service *Service `json:"service,omitempty"` // a FUSE server for it
}

// The names of mounts within a Spec.
const (
	specImage  = "${image}"
	specTarget = "${target}"
)

// Spec gives the plan as a specification. The request's files must still be open.
func (p *Plan) Spec() Spec {
	s := Spec{
		Mode:         p.Mode,
		Image:        SpecImage{Check: p.Verification.Image},
		Objects:      []string{},
		Verification: SpecVerification{p.Verification.Image, p.Verification.Objects, p.Verification.Why},
	}
	if f := p.request.Image; f != nil {
		s.Image.Path = f.Name()
	}
	if d := p.request.ExpectDigest; !d.IsZero() {
		s.Image.Digest = &d
	}
	for _, d := range p.request.Objects {
		s.Objects = append(s.Objects, d.Name())
	}
	for _, step := range p.Steps {
		if m, ok := p.specMount(step); ok {
			s.Mounts = append(s.Mounts, m)
		}
	}
	return s
}

// MarshalJSON writes the plan's Spec.
func (p *Plan) MarshalJSON() ([]byte, error) { return json.Marshal(p.Spec()) }

// specMount is the mount that a step makes; ok is false for other steps.
func (p *Plan) specMount(s Step) (m SpecMount, ok bool) {
	switch s.Op {
	case OpErofs:
		m = SpecMount{Type: "erofs", Target: specImage}
		if p.request.Image != nil {
			m.Source = p.request.Image.Name()
		}
	case OpFUSE, OpFusermount:
		m = SpecMount{Type: fuseType, Target: p.specTarget(), Service: p.Service}
		if p.Service.View != ViewPlain {
			m.Target = specImage
		}
	case OpOverlay:
		m = SpecMount{Type: "overlay", Target: p.specTarget()}
		m.Options = p.specLayers(s)
	default:
		return m, false
	}
	for _, o := range s.Options {
		switch {
		case o.Key == "source", o.Key == "fsname":
			m.Source = o.Value
		case o.Key == "subtype", o.Key == "rootmode": // said by the type, or for fsopen alone
		case slices.Contains(p.request.upperOptions(), o): // about what isn't there
		default:
			m.Options = append(m.Options, o.String())
		}
	}
	m.Options = appendNew(m.Options, p.specAttrs(s)...)
	return m, true
}

// specAttrs are the mount's attributes, which a lower layer never lacks "ro" in.
func (p *Plan) specAttrs(s Step) []string { return appendNew([]string{"ro"}, s.Attrs...) }

func appendNew(list []string, more ...string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

func (p *Plan) specTarget() string {
	if p.request.Target == "" {
		return specTarget
	}
	return p.request.Target
}

// layerEscaper writes a path as overlayfs reads it in lowerdir=A::B.
var layerEscaper = strings.NewReplacer(`\`, `\\`, `:`, `\:`)

func (p *Plan) specLayers(s Step) []string {
	if slices.Equal(s.Forms, []LayerForm{LayersByString}) {
		layers := specImage
		for _, d := range p.request.Objects {
			layers += "::" + layerEscaper.Replace(d.Name())
		}
		return []string{"lowerdir=" + layers}
	}
	options := []string{"lowerdir+=" + specImage}
	for _, d := range p.request.Objects {
		options = append(options, "datadir+="+d.Name())
	}
	return options
}
