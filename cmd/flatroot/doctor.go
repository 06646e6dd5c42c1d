package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/store"
)

func doctorCommand() *command {
	return &command{
		name: "doctor", args: "[NAME|DIGEST|IMAGE]", max: 1,
		usage: "tell how images can be mounted here, and what to change",
		about: `Tries out, without mounting anything, what this kernel, this user and the file system of the store can do, and lists the ways of mounting in the order in which flatroot mount prefers them: whether each can be had, what it checks, and if not, why, and what would change that. At the end stands what mode=auto takes.

With an image it is about that image as it is in the store, else about one that is pulled now.`,
		examples: []example{
			{"this machine", "flatroot doctor"},
			{"why a mount is not better checked", "flatroot doctor web"},
			{"for a program", "flatroot doctor --json | jq -r .auto.mode"},
		},
		exits: []exit{{exitOK, "There is a way to mount."}, {exitFailed, "There is none, or the image can't be read."}, {exitUsage, "Wrong usage."}},
		run: func(_ context.Context, v *invocation) error {
			return runDoctor(v.console, v.Args().First(), v.stdout)
		},
	}
}

// doctorReport is what doctor finds out.
type doctorReport struct {
	Kernel string       `json:"kernel"`
	User   int          `json:"uid"`
	Store  doctorStore  `json:"store"`
	Image  string       `json:"image,omitempty"` // its digest, where it is known
	Rungs  []doctorRung `json:"rungs"`
	Auto   *doctorAuto  `json:"auto,omitempty"` // what mode=auto takes
	Refuse string       `json:"refused,omitempty"`
}

// doctorStore is the place where objects are.
type doctorStore struct {
	Dir    string `json:"dir"`
	Exists bool   `json:"exists"`
	Type   string `json:"file_system,omitempty"`
	Verity bool   `json:"verity"` // the file system has fs-verity
	Advice string `json:"advice,omitempty"`
}

// doctorRung is a way of mounting.
type doctorRung struct {
	Name      string            `json:"name"`
	Mode      mount.Mode        `json:"mode"`
	About     string            `json:"about"`
	Available bool              `json:"available"`
	Image     mount.ImageCheck  `json:"image_check,omitempty"`
	Objects   mount.ObjectCheck `json:"object_check,omitempty"`
	Reason    string            `json:"reason,omitempty"`
	Advice    string            `json:"advice,omitempty"`
}

type doctorAuto struct {
	Mode    mount.Mode        `json:"mode"`
	Image   mount.ImageCheck  `json:"image_check"`
	Objects mount.ObjectCheck `json:"object_check"`
	Why     []string          `json:"why_not_more,omitempty"`

	explained string
}

func runDoctor(c console, spec string, stdout io.Writer) error {
	q, err := c.patient(spec)
	if err != nil {
		return err
	}
	defer q.Close()
	f, err := mount.Probe(q.request)
	if err != nil {
		return err
	}
	r := q.examine(f)
	r.Kernel, r.User = kernelRelease(), os.Geteuid()
	r.Store = placeOf(q.request.Objects, f)
	r.Store.Dir, r.Store.Exists = c.store, q.exists
	r.adviseNamespaces(namespacesForbidden("/proc/sys"))
	if c.json {
		err = printJSON(stdout, r)
	} else {
		err = r.print(stdout)
	}
	if err == nil && r.Auto == nil {
		return &statusError{code: exitFailed}
	}
	return err
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// patient is what doctor looks at: an image, or the place of a store.
type patient struct {
	request mount.Request
	sample  bool // there is no image: one is assumed, as a pull would make it
	verity  bool // of the sample: it would get fs-verity, if the file system has it
	exists  bool // there is a store
	closer  io.Closer
}

// anyTarget stands for the directory to mount on, which doctor doesn't touch.
const anyTarget = "/"

func (q *patient) Close() error { return q.closer.Close() }

func (c *console) patient(spec string) (*patient, error) {
	if spec != "" {
		w, err := c.openSpec(spec, mount.Options{})
		if err != nil {
			return nil, err
		}
		r := mount.Request{Image: w.image, ExpectDigest: w.digest, Objects: w.objects, Target: anyTarget, Start: launcher(mount.Options{}, false).Start}
		return &patient{request: r, exists: true, closer: w}, nil
	}
	q := &patient{sample: true}
	q.request.Target, q.request.Start = anyTarget, launcher(mount.Options{}, false).Start
	q.request.ExpectDigest = fsverity.Sum(fsverity.SHA256, nil)
	dir, verity, err := c.objectsPlace()
	if err != nil {
		return nil, err
	}
	q.exists, q.verity = verity != "", verity != store.VerityOff
	place, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	q.request.Objects, q.closer = []*os.File{place}, place
	return q, nil
}

// objectsPlace is where the store's objects are, with its verity setting, or
// the directory in which a store would be made.
func (c *console) objectsPlace() (dir string, v store.Verity, err error) {
	s, err := store.Open(c.store, store.OpenOptions{ReadOnly: true})
	if err == nil {
		v = s.Verity()
		return filepath.Join(s.Dir(), "objects"), v, s.Close()
	}
	if !errors.Is(err, store.ErrNotStore) && !errors.Is(err, os.ErrNotExist) {
		return "", "", err
	}
	if dir, err = filepath.Abs(c.store); err != nil {
		return "", "", err
	}
	for dir != "/" {
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir, "", nil
}

// sampleSize is the size of an image that might be pulled, bytes.
const sampleSize = 16 << 20

// examine makes the report of what f and the request come to.
func (q *patient) examine(f mount.Features) *doctorReport {
	if q.sample {
		q.assume(&f)
	}
	rep := &doctorReport{}
	if !q.sample && !q.request.ExpectDigest.IsZero() {
		rep.Image = q.request.ExpectDigest.String()
	}
	for _, g := range mount.Ladder(q.request, f) {
		rep.Rungs = append(rep.Rungs, doctorRungOf(g))
	}
	p, err := mount.NewPlan(q.request, f)
	if err != nil {
		rep.Refuse = err.Error()
		return rep
	}
	v := p.Verification
	rep.Auto = &doctorAuto{Mode: p.Mode, Image: v.Image, Objects: v.Objects, Why: v.Why, explained: v.Explain()}
	return rep
}

// assume sets the facts of an image as a pull would make it: it and its objects
// have fs-verity where the file system has it and the store wants it.
func (q *patient) assume(f *mount.Features) {
	f.Image = mount.ImageFacts{Size: sampleSize, NoACL: true, CanVerity: f.Objects[0].CanVerity}
	f.Sample = mount.SampleFacts{Found: 1}
	if q.verity && f.Image.CanVerity {
		f.Image.Verity = q.request.ExpectDigest
		f.Sample.Verity = 1
	}
}

// adviseNamespaces adds to the rungs that a user namespace would open why one
// can't be had.
func (r *doctorReport) adviseNamespaces(sysctl string) {
	for i := range r.Rungs {
		if g := &r.Rungs[i]; sysctl != "" && g.Name == "hybrid-userns" && !g.Available && g.Advice != "" {
			g.Advice = "allow user namespaces (sysctl " + sysctl + "), then " + g.Advice
		}
	}
}

func doctorRungOf(g mount.Rung) doctorRung {
	d := doctorRung{Name: g.Name, Mode: g.Mode, About: g.About, Available: g.OK, Advice: g.Advice}
	if g.Plan != nil {
		d.Image, d.Objects = g.Plan.Verification.Image, g.Plan.Verification.Objects
	}
	if g.Reason != nil {
		// The advice has a place of its own.
		d.Reason = strings.TrimSuffix(g.Reason.Error(), "; "+g.Advice)
	}
	return d
}

func (r *doctorReport) print(w io.Writer) error {
	user := "root"
	if r.User != 0 {
		user = fmt.Sprintf("user %d", r.User)
	}
	_, err := fmt.Fprintf(w, "kernel %s, as %s\n%s\n\n", oneLine(r.Kernel), user, oneLine(r.Store.sentence()))
	if err != nil {
		return err
	}
	rows := [][]string{{"WAY", "HERE", "IMAGE", "OBJECTS", "WHAT IT IS, OR WHAT IT LACKS"}}
	for _, g := range r.Rungs {
		rows = append(rows, g.rows()...)
	}
	if err := table(w, rows); err != nil {
		return err
	}
	if r.Auto == nil {
		_, err = fmt.Fprintf(w, "\nnothing can be mounted: %s\n", oneLine(r.Refuse))
		return err
	}
	_, err = fmt.Fprintf(w, "\nmode=auto takes %s: %s\n", r.Auto.Mode, oneLine(r.Auto.explained))
	return err
}

func (s doctorStore) sentence() string {
	text := "store " + s.Dir
	if !s.Exists {
		text += " (not made yet)"
	}
	if s.Type != "" {
		text += " on " + s.Type
	}
	if s.Verity {
		return text + ", with fs-verity"
	}
	text += ", without fs-verity"
	if s.Advice != "" {
		text += ": " + s.Advice
	}
	return text
}

// rows are the lines of a table: what it is or why it isn't to be had, and
// below that what to do.
func (g doctorRung) rows() [][]string {
	if g.Available {
		return [][]string{{g.Name, "yes", dash(string(g.Image)), dash(string(g.Objects)), g.About}}
	}
	rows := [][]string{{g.Name, "no", "-", "-", g.Reason}}
	if g.Advice != "" {
		rows = append(rows, []string{"", "", "", "", "→ " + g.Advice})
	}
	return rows
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
