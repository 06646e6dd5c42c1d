package mount

import (
	"fmt"
	"strings"

	"github.com/flatroot/flatroot/fsverity"
)

// Op is what a Step does.
type Op string

const (
	// OpHash computes the image's digest from its file and compares it.
	OpHash Op = "hash"
	// OpSeal copies the image into sealed memory and goes on with the copy.
	OpSeal Op = "seal"
	// OpCheck looks for each object that the image names.
	OpCheck Op = "check"
	// OpErofs makes a detached EROFS mount of the image.
	OpErofs Op = "erofs"
	// OpFUSE makes a detached FUSE mount and has a server started for it.
	OpFUSE Op = "fuse"
	// OpFusermount has fusermount3 make a FUSE mount, on the target at once, and
	// has a server started for it.
	OpFusermount Op = "fusermount"
	// OpIDMap shows the owners in the mount just made through a user namespace.
	OpIDMap Op = "idmap"
	// OpTransient makes the directories of a writable layer in memory.
	OpTransient Op = "transient"
	// OpOverlay makes the detached overlay of the mount before and the objects.
	OpOverlay Op = "overlay"
	// OpAttach puts the last mount on the target; missing if there is none.
	OpAttach Op = "attach"
)

// Option is one file system option for the kernel; without a value it is a flag.
type Option struct {
	Key, Value string
}

func (o Option) String() string {
	if o.Value == "" {
		return o.Key
	}
	return o.Key + "=" + o.Value
}

// LayerForm is a way of telling overlayfs its layers.
type LayerForm string

const (
	// LayersByMount: lowerdir+ and datadir+ as descriptors, the lower one of a
	// mount that is attached nowhere (kernel 6.15).
	LayersByMount LayerForm = "mount"
	// LayersByName: lowerdir+ and datadir+ as text; the lower mount is attached
	// to a private directory meanwhile.
	LayersByName LayerForm = "name"
	// LayersByString: all in one lowerdir=A::B (kernel 6.5), attached as well.
	LayersByString LayerForm = "string"
)

// Step is one thing to do.
type Step struct {
	Op      Op
	Options []Option    // OpErofs, OpFUSE, OpFusermount, OpOverlay: in this order
	Forms   []LayerForm // OpOverlay: tried in this order until the kernel knows one
	Upper   bool        // OpOverlay: with a writable layer on top
	Attrs   []string    // OpFUSE, OpFusermount, OpOverlay: mount attributes
	Program string      // OpFusermount: its path
	Target  string      // OpAttach, OpFusermount
}

func (s Step) String() string {
	words := []string{string(s.Op)}
	if s.Program != "" {
		words = append(words, "by:"+s.Program)
	}
	for _, o := range s.Options {
		words = append(words, o.String())
	}
	if len(s.Forms) > 0 {
		var forms []string
		for _, f := range s.Forms {
			forms = append(forms, string(f))
		}
		words = append(words, "layers-by:"+strings.Join(forms, "|"))
	}
	if s.Upper {
		words = append(words, "upper")
	}
	words = append(words, s.Attrs...)
	if s.Target != "" {
		words = append(words, s.Target)
	}
	return strings.Join(words, " ")
}

// Plan is what will be done for a Request. NewPlan makes it, Do or Detach
// carry it out while the request's files are open.
type Plan struct {
	Mode         Mode
	Source       string // as mountinfo will show it
	Verification Verification
	Service      *Service // the FUSE server that it takes; nil for ModeNative
	Steps        []Step

	request Request
}

// String is the plan as text, a line per step.
func (p *Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "mode %s, %s\n", p.Mode, p.Verification)
	if p.Service != nil {
		fmt.Fprintf(&b, "  server %s\n", p.Service)
	}
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "  %s\n", s)
	}
	return b.String()
}

// newPlan begins a plan with all that comes before the first mount.
func newPlan(r Request, f Features, m Mode, i imagePlan, o objectPlan) *Plan {
	v := Verification{Image: i.check, Objects: o.check, Why: appendReason(i.why, o.why)}
	digest := r.ExpectDigest
	if digest.IsZero() {
		digest = f.Image.Verity
	}
	p := &Plan{Mode: m, Verification: v, Source: formatSource(digest, m, v), request: r}
	p.Steps = i.steps
	if r.Check {
		p.Steps = append(p.Steps, Step{Op: OpCheck})
	}
	return p
}

// Digest is the image's as the mount will show it: the one expected, else what fs-verity
// says; zero if neither is there.
func (p *Plan) Digest() fsverity.Digest {
	d, _, _, _ := parseSource(p.Source)
	return d
}

func (p *Plan) addIDMap() {
	if p.request.IDMap != nil {
		p.Steps = append(p.Steps, Step{Op: OpIDMap})
	}
}

func (p *Plan) addAttach() {
	if p.request.Target != "" {
		p.Steps = append(p.Steps, Step{Op: OpAttach, Target: p.request.Target})
	}
}

// attrNames are the mount attributes that a request wants.
func (r *Request) attrNames() []string {
	var names []string
	for _, a := range []struct {
		set  bool
		name string
	}{{r.ReadOnly || !r.writable(), "ro"}, {r.NoSuid, "nosuid"}, {r.NoDev, "nodev"}, {r.NoExec, "noexec"}} {
		if a.set {
			names = append(names, a.name)
		}
	}
	return names
}

// xattrClass is where overlayfs finds what the image says about objects.
type xattrClass string

const (
	trustedXattrs xattrClass = "trusted" // trusted.overlay.*, for root
	userXattrs    xattrClass = "user"    // user.overlay.*, for user namespaces
)

// addOverlay adds the steps from the lower mount to the tree on its target.
func (p *Plan) addOverlay(f Features, class xattrClass) {
	r := &p.request
	p.addIDMap()
	if r.Transient {
		p.Steps = append(p.Steps, Step{Op: OpTransient})
	}
	s := Step{Op: OpOverlay, Options: []Option{{"source", p.Source}}, Upper: r.writable(), Attrs: r.attrNames()}
	if class == trustedXattrs {
		// Set here because a kernel's defaults for them vary, and files are
		// empty or unreachable without.
		s.Options = append(s.Options, Option{"metacopy", "on"}, Option{"redirect_dir", "on"})
	} else {
		// The kernel refuses these two along with userxattr, and needs neither
		// for data-only layers.
		s.Options = append(s.Options, Option{"userxattr", ""})
	}
	if p.Verification.Objects == ObjectsKernel {
		s.Options = append(s.Options, Option{"verity", "require"})
	}
	s.Options = append(s.Options, r.upperOptions()...)
	s.Forms = layerForms(f)
	p.Steps = append(p.Steps, s)
	p.addAttach()
}

func layerForms(f Features) []LayerForm {
	var forms []LayerForm
	if f.LayerFD {
		forms = append(forms, LayersByMount)
	}
	if f.LayerAdd {
		forms = append(forms, LayersByName)
	}
	return append(forms, LayersByString)
}
