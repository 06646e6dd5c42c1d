package mount

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
)

var (
	digestA    = fsverity.Sum(fsverity.SHA256, []byte("a"))
	digestB    = fsverity.Sum(fsverity.SHA256, []byte("b"))
	digestA512 = fsverity.Sum(fsverity.SHA512, []byte("a"))
)

// fullFeatures is a new kernel over ext4 with fs-verity, the image enabled.
func fullFeatures() Features {
	return Features{
		Privileged: true, Erofs: true, Overlay: true,
		LayerAdd: true, LayerFD: true, OverlayVerity: true, Loop: true, Memfd: true,
		Image:   ImageFacts{Size: 4096, NoACL: true, Verity: digestA, CanVerity: true},
		Objects: []DirFacts{{Path: "/o", CanVerity: true}},
		Sample:  SampleFacts{Found: 8, Verity: 8},
	}
}

// noVerity is the same without fs-verity anywhere.
func noVerity() Features {
	f := fullFeatures()
	f.Image.Verity, f.Image.CanVerity = fsverity.Digest{}, false
	f.Objects[0].CanVerity = false
	f.Sample.Verity = 0
	return f
}

func with(f Features, change func(*Features)) Features {
	change(&f)
	return f
}

// planRow is one request, kernel and the plan or refusal that they make.
type planRow struct {
	name     string
	request  Request
	features Features
	check    string // Verification.String(), if a plan is made
	steps    string // the ops, if a plan is made
	err      error  // that the refusal wraps
	text     string // that the refusal, or else the explanation, contains
}

var one = []*os.File{os.Stdin} // any file: plans don't look into it

var planRows = []planRow{
	// What is verified, with all that a kernel can have.
	{"auto, everything there", Request{ExpectDigest: digestA}, fullFeatures(),
		"image=kernel objects=kernel", "erofs overlay attach", nil, "the kernel checks every block"},
	{"require, everything there", Request{ExpectDigest: digestA, Verity: Require}, fullFeatures(),
		"image=kernel objects=kernel", "erofs overlay attach", nil, "verity=require"},
	{"off, the digest still counts", Request{ExpectDigest: digestA, Verity: Off}, fullFeatures(),
		"image=kernel objects=unchecked", "erofs overlay attach", nil, "content of objects is not checked"},
	{"objects, digest too", Request{ExpectDigest: digestA, Verity: Objects}, fullFeatures(),
		"image=kernel objects=kernel", "erofs overlay attach", nil, ""},
	{"objects, no digest", Request{Verity: Objects}, fullFeatures(),
		"image=unchecked objects=kernel", "erofs overlay attach", nil, "no digest was given"},
	{"auto, no digest", Request{}, fullFeatures(),
		"image=unchecked objects=kernel", "erofs overlay attach", nil, "no digest was given"},
	{"off, no digest", Request{Verity: Off}, fullFeatures(),
		"image=unchecked objects=unchecked", "erofs overlay attach", nil, ""},

	// Wrong digests never mount.
	{"auto, wrong digest", Request{ExpectDigest: digestB}, fullFeatures(), "", "", &DigestError{}, digestB.String()},
	{"require, wrong digest", Request{ExpectDigest: digestB, Verity: Require}, fullFeatures(), "", "", &DigestError{}, ""},
	{"off, wrong digest", Request{ExpectDigest: digestB, Verity: Off}, fullFeatures(), "", "", &DigestError{}, ""},
	{"objects, wrong digest", Request{ExpectDigest: digestB, Verity: Objects}, fullFeatures(), "", "", &DigestError{}, ""},

	// Require is refused where the kernel can't vouch.
	{"require, no digest", Request{Verity: Require}, fullFeatures(), "", "", ErrRefused, "give digest=HEX"},
	{"require, no fs-verity", Request{ExpectDigest: digestA, Verity: Require}, noVerity(), "", "", ErrRefused, "has no fs-verity"},
	{"require, image not enabled", Request{ExpectDigest: digestA, Verity: Require},
		with(fullFeatures(), func(f *Features) { f.Image.Verity = fsverity.Digest{} }), "", "", ErrRefused, "not enabled"},
	{"require, other algorithm", Request{ExpectDigest: digestA512, Verity: Require}, fullFeatures(), "", "", ErrRefused, "sha512"},
	{"require, objects elsewhere", Request{ExpectDigest: digestA, Verity: Require},
		with(fullFeatures(), func(f *Features) { f.Objects = []DirFacts{{"/o", true}, {"/tmpfs", false}} }), "", "", ErrRefused, "file system of /tmpfs"},
	{"require, old overlayfs", Request{ExpectDigest: digestA, Verity: Require},
		with(fullFeatures(), func(f *Features) { f.OverlayVerity = false }), "", "", ErrRefused, "kernel 6.6"},
	{"require, objects without: the kernel refuses each", Request{ExpectDigest: digestA, Verity: Require},
		with(fullFeatures(), func(f *Features) { f.Sample.Verity = 0 }), "image=kernel objects=kernel", "erofs overlay attach", nil, ""},
	{"objects, no fs-verity", Request{Verity: Objects}, noVerity(), "", "", ErrRefused, "has no fs-verity"},

	// Auto takes what it can get, and says what is missing.
	{"auto, no fs-verity: sealed copy", Request{ExpectDigest: digestA}, noVerity(),
		"image=sealed objects=unchecked", "seal erofs overlay attach", nil, "sealed copy in memory"},
	{"auto, no memfd", Request{ExpectDigest: digestA}, with(noVerity(), func(f *Features) { f.Memfd = false }),
		"image=once objects=unchecked", "hash erofs overlay attach", nil, "can still be changed"},
	{"auto, no loop devices", Request{ExpectDigest: digestA}, with(noVerity(), func(f *Features) { f.Loop = false }),
		"image=once objects=unchecked", "hash erofs overlay attach", nil, "/dev/loop-control"},
	{"auto, image too large to copy", Request{ExpectDigest: digestA, SealLimit: 4095}, noVerity(),
		"image=once objects=unchecked", "hash erofs overlay attach", nil, "limit of 4095"},
	{"auto, image just small enough", Request{ExpectDigest: digestA, SealLimit: 4096}, noVerity(),
		"image=sealed objects=unchecked", "seal erofs overlay attach", nil, ""},
	{"auto, default limit", Request{ExpectDigest: digestA}, with(noVerity(), func(f *Features) { f.Image.Size = 1<<30 + 1 }),
		"image=once objects=unchecked", "hash erofs overlay attach", nil, "1073741824"},
	{"off, no fs-verity: digest compared", Request{ExpectDigest: digestA, Verity: Off}, noVerity(),
		"image=sealed objects=unchecked", "seal erofs overlay attach", nil, ""},
	{"auto, image on tmpfs, objects with fs-verity", Request{ExpectDigest: digestA},
		with(fullFeatures(), func(f *Features) { f.Image.Verity, f.Image.CanVerity = fsverity.Digest{}, false }),
		"image=sealed objects=kernel", "seal erofs overlay attach", nil, ""},
	{"auto, other algorithm", Request{ExpectDigest: digestA512}, fullFeatures(),
		"image=sealed objects=kernel", "seal erofs overlay attach", nil, "fs-verity is sha256"},
	{"auto, objects stored without", Request{ExpectDigest: digestA}, with(fullFeatures(), func(f *Features) { f.Sample.Verity = 0 }),
		"image=kernel objects=unchecked", "erofs overlay attach", nil, "stored without fs-verity"},
	{"auto, one object damaged", Request{ExpectDigest: digestA}, with(fullFeatures(), func(f *Features) { f.Sample.Verity = 7 }),
		"image=kernel objects=kernel", "erofs overlay attach", nil, ""},
	{"auto, no objects in the image", Request{ExpectDigest: digestA}, with(fullFeatures(), func(f *Features) { f.Sample = SampleFacts{} }),
		"image=kernel objects=kernel", "erofs overlay attach", nil, ""},
	{"auto, old overlayfs", Request{ExpectDigest: digestA}, with(fullFeatures(), func(f *Features) { f.OverlayVerity = false }),
		"image=kernel objects=unchecked", "erofs overlay attach", nil, "no option verity"},
	{"auto, nothing asked, no fs-verity", Request{}, noVerity(),
		"image=unchecked objects=unchecked", "erofs overlay attach", nil, ""},

	// What a machine may lack, and requests that make no sense.
	{"no privilege", Request{}, with(fullFeatures(), func(f *Features) { f.Privileged = false }), "", "", fs.ErrPermission, "root"},
	{"no erofs", Request{}, with(fullFeatures(), func(f *Features) { f.Erofs = false }), "", "", ErrRefused, "EROFS"},
	{"no overlay", Request{}, with(fullFeatures(), func(f *Features) { f.Overlay = false }), "", "", ErrRefused, "overlayfs"},
	{"no object directory", Request{Objects: []*os.File{}}, fullFeatures(), "", "", ErrRefused, "basedir="},
	{"unknown policy", Request{Verity: "requires"}, fullFeatures(), "", "", ErrRefused, "requires"},
	{"mode native", Request{Mode: ModeNative}, fullFeatures(),
		"image=unchecked objects=kernel", "erofs overlay attach", nil, ""},
	{"mode hybrid", Request{Mode: ModeHybrid}, fullFeatures(), "", "", ErrUnavailable, "mode=hybrid"},
	{"mode fuse", Request{Mode: ModeFUSE}, fullFeatures(), "", "", ErrUnavailable, "mode=fuse"},
}

func TestNewPlan(t *testing.T) {
	for _, row := range planRows {
		t.Run(row.name, func(t *testing.T) {
			r := row.request
			if r.Objects == nil {
				r.Objects = one
			}
			r.Target = "/t"
			p, err := NewPlan(r, row.features)
			if row.err != nil {
				checkRefusal(t, err, row)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Verification.String(); got != row.check {
				t.Errorf("verification %q, want %q", got, row.check)
			}
			if got := ops(p); got != row.steps {
				t.Errorf("steps %q, want %q", got, row.steps)
			}
			if got := p.Verification.Explain(); !strings.Contains(got, row.text) {
				t.Errorf("explanation %q lacks %q", got, row.text)
			}
		})
	}
}

func checkRefusal(t *testing.T, err error, row planRow) {
	t.Helper()
	var d *DigestError
	if _, wantDigest := row.err.(*DigestError); wantDigest && !errors.As(err, &d) {
		t.Fatalf("got %v, want a digest error", err)
	} else if !wantDigest && !errors.Is(err, row.err) {
		t.Fatalf("got %v, want %v", err, row.err)
	}
	if !strings.Contains(err.Error(), row.text) {
		t.Errorf("error %q lacks %q", err, row.text)
	}
}

func ops(p *Plan) string {
	var names []string
	for _, s := range p.Steps {
		names = append(names, string(s.Op))
	}
	return strings.Join(names, " ")
}

// TestPlanString pins the text of whole plans: options, their order, the layer
// forms of three kernels.
func TestPlanString(t *testing.T) {
	all := Request{ExpectDigest: digestA, Objects: one, Target: "/t", NoSuid: true, NoDev: true, NoExec: true}
	old := with(fullFeatures(), func(f *Features) { f.LayerAdd, f.LayerFD = false, false })
	middle := with(noVerity(), func(f *Features) { f.LayerFD, f.Image.NoACL = false, false })
	detached := Request{Objects: one}
	served := Request{ExpectDigest: digestA, Objects: one, Target: "/t", NoSuid: true, Start: noServer}
	for _, c := range []struct {
		name string
		r    Request
		f    Features
		want string
	}{
		{"new kernel", all, fullFeatures(), `mode native, image=kernel objects=kernel
  erofs ro noacl
  overlay source=flatroot:` + digestA.String() + `:native:kernel:kernel metacopy=on redirect_dir=on verity=require layers-by:mount|name|string ro nosuid nodev noexec
  attach /t
`},
		{"kernel 6.8, ACLs, no fs-verity", all, middle, `mode native, image=sealed objects=unchecked
  seal
  erofs ro
  overlay source=flatroot:` + digestA.String() + `:native:sealed:unchecked metacopy=on redirect_dir=on layers-by:name|string ro nosuid nodev noexec
  attach /t
`},
		{"kernel 6.6, no digest, no target", detached, old, `mode native, image=unchecked objects=kernel
  erofs ro noacl
  overlay source=flatroot:` + digestA.String() + `:native:unchecked:kernel metacopy=on redirect_dir=on verity=require layers-by:string ro
`},
		{"fuse", served, rootFeatures(), `mode fuse, image=sealed objects=user
  server view=plain image=sealed objects=user
  seal
  fuse source=flatroot:` + digestA.String() + `:fuse:sealed:user subtype=flatroot ro rootmode=40000 default_permissions allow_other max_read=1048576 ro nosuid
  attach /t
`},
		{"hybrid in a user namespace, writable", with1(idMapped(upper(served)), func(r *Request) { r.Mode, r.Check = ModeHybrid, true }),
			with(inNamespace(rootWithVerity()), sameUpper), `mode hybrid, image=kernel objects=kernel
  server view=useroverlay image=kernel objects=kernel
  check
  fuse source=flatroot subtype=flatroot ro rootmode=40000 default_permissions allow_other max_read=1048576 ro
  idmap
  overlay source=flatroot:` + digestA.String() + `:hybrid:kernel:kernel userxattr verity=require index=off layers-by:mount|name|string upper nosuid
  attach /t
`},
		{"transient", with1(all, func(r *Request) { r.Transient = true }), fullFeatures(), `mode native, image=kernel objects=kernel
  erofs ro noacl
  transient
  overlay source=flatroot:` + digestA.String() + `:native:kernel:kernel metacopy=on redirect_dir=on verity=require index=off volatile layers-by:mount|name|string upper nosuid nodev noexec
  attach /t
`},
	} {
		p, err := NewPlan(c.r, c.f)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if got := p.String(); got != c.want {
			t.Errorf("%s:\n%swant\n%s", c.name, got, c.want)
		}
	}
}

func TestSource(t *testing.T) {
	v := Verification{Image: ImageSealed, Objects: ObjectsUser}
	for _, d := range []fsverity.Digest{{}, digestA, digestA512} {
		s := formatSource(d, ModeFUSE, v)
		got, m, w, ok := parseSource(s)
		if !ok || got != d || m != ModeFUSE || w.String() != v.String() {
			t.Errorf("%s reads as %v %s %s %v", s, got, m, w, ok)
		}
	}
	for _, bad := range []string{"", "overlay", lowerSource, "flatroot:", "flatroot:-:native:sealed", "flatroot:-:native:sealed:user:x",
		"flatroot:12:native:sealed:user", "flatroot:-:auto:sealed:user", "flatroot:-:native:yes:user", "flatroot:-:native:sealed:yes",
		"flatroot:-:native:sealed:", "composefs:-:native:sealed:user"} {
		if _, _, _, ok := parseSource(bad); ok {
			t.Errorf("%q is taken for one of our mounts", bad)
		}
	}
}

func TestFullVerification(t *testing.T) {
	var full bytes.Buffer
	for _, i := range []ImageCheck{ImageKernel, ImageSealed, ImageBlocks, ImageOnce, ImageUnchecked} {
		for _, o := range []ObjectCheck{ObjectsKernel, ObjectsUser, ObjectsOnce, ObjectsUnchecked} {
			if v := (Verification{Image: i, Objects: o}); v.Full() {
				full.WriteString(v.String() + "\n")
			}
		}
	}
	want := ""
	for _, i := range []string{"kernel", "sealed", "blocks"} {
		want += "image=" + i + " objects=kernel\nimage=" + i + " objects=user\n"
	}
	if full.String() != want {
		t.Errorf("full:\n%swant\n%s", full.String(), want)
	}
}

// TestPlanDigest: the digest that a mount is known by is the one expected, or else what
// the kernel measures.
func TestPlanDigest(t *testing.T) {
	for _, c := range []struct {
		expect fsverity.Digest
		f      Features
		want   fsverity.Digest
	}{
		{digestA, noVerity(), digestA},
		{fsverity.Digest{}, fullFeatures(), digestA},
		{fsverity.Digest{}, noVerity(), fsverity.Digest{}},
	} {
		p, err := NewPlan(Request{ExpectDigest: c.expect, Objects: one, Target: "/t"}, c.f)
		must(t, err)
		if got := p.Digest(); got != c.want {
			t.Errorf("expecting %v: %v, want %v", c.expect, got, c.want)
		}
	}
}
