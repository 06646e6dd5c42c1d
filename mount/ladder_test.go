package mount

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
)

func noServer(context.Context, Serving) error { return errors.New("plans don't start servers") }

// Machines, from the strongest to the weakest user.

// root is root of a new machine whose stores have no fs-verity.
func rootFeatures() Features {
	f := noVerity()
	f.FUSEDevice, f.FUSE, f.FUSEPassthrough, f.FUSEIDMap = true, true, true, true
	return f
}

func rootWithVerity() Features {
	f := fullFeatures()
	f.FUSEDevice, f.FUSE, f.FUSEPassthrough, f.FUSEIDMap = true, true, true, true
	return f
}

// inNamespace is root of a user namespace.
func inNamespace(f Features) Features {
	f.Privileged, f.Namespaced = false, true
	f.UserOverlay, f.UserOverlayVerity = true, true
	return f
}

// plainUser is anybody on a machine with fusermount3.
func plainUser(f Features) Features {
	return Features{Memfd: true, Loop: true, FUSEDevice: true, Fusermount: "/bin/fusermount3",
		Image: f.Image, Objects: f.Objects, Sample: f.Sample}
}

func noFUSE(f *Features) {
	f.FUSEDevice, f.FUSE, f.FUSELack = false, false, "open /dev/fuse: no such file or directory"
}

// ladderRow is a request with servers, and what it comes to.
type ladderRow struct {
	name     string
	request  Request
	features Features
	plan     string // mode, view, verification and steps; empty: refused
	text     string // that the explanation or the refusal has
}

const (
	nativeKernel   = "native image=kernel objects=kernel: erofs overlay attach"
	fuseSealed     = "fuse plain image=sealed objects=user: seal fuse attach"
	fuseBlocks     = "fuse plain image=blocks objects=user: fuse attach"
	fuseNoDigest   = "fuse plain image=unchecked objects=user: fuse attach"
	fusermountPlan = "fuse plain image=sealed objects=user: seal fusermount"
)

var (
	auto, require = Request{ExpectDigest: digestA}, Request{ExpectDigest: digestA, Verity: Require}
	off           = Request{ExpectDigest: digestA, Verity: Off}
	objectsOnly   = Request{Verity: Objects}
)

var ladderRows = []ladderRow{
	// Root, with fs-verity: the kernel does all.
	{"auto", auto, rootWithVerity(), nativeKernel, ""},
	{"require", require, rootWithVerity(), nativeKernel, ""},
	{"objects", objectsOnly, rootWithVerity(), "native image=unchecked objects=kernel: erofs overlay attach", ""},
	{"off", off, rootWithVerity(), "native image=kernel objects=unchecked: erofs overlay attach", ""},
	{"wrong digest", Request{ExpectDigest: digestB}, rootWithVerity(), "", digestB.String()},
	{"require, no digest", Request{Verity: Require}, rootWithVerity(), "", "give digest=HEX"},

	// Root, without: a server checks, where something must be checked.
	{"auto, no fs-verity", auto, rootFeatures(), fuseSealed, "reaches no more than image=sealed objects=unchecked"},
	{"auto, no fs-verity, why", auto, rootFeatures(), fuseSealed, "the file system of /o has no fs-verity"},
	{"auto, no digest, no fs-verity", Request{}, rootFeatures(), fuseNoDigest, "no digest was given"},
	{"require, no fs-verity", require, rootFeatures(), fuseSealed, "verity=require needs fs-verity on the image"},
	{"objects, no fs-verity", objectsOnly, rootFeatures(), fuseNoDigest, ""},
	{"off, no fs-verity", off, rootFeatures(), "native image=sealed objects=unchecked: seal erofs overlay attach", ""},
	{"require, large image", with1(require, func(r *Request) { r.SealLimit = 4095 }), rootFeatures(), fuseBlocks, "every block of it that it uses"},
	{"require, no memfd", require, with(rootFeatures(), func(f *Features) { f.Memfd = false }), fuseBlocks, ""},
	{"auto, no loop devices", auto, with(rootFeatures(), func(f *Features) { f.Loop = false }), fuseSealed, ""},
	{"require, objects stored without", require, with(rootWithVerity(), func(f *Features) { f.Sample.Verity = 0 }),
		"fuse plain image=kernel objects=user: fuse attach", "stored without fs-verity"},
	{"require native, objects stored without", with1(require, func(r *Request) { r.Mode = ModeNative }),
		with(rootWithVerity(), func(f *Features) { f.Sample.Verity = 0 }), nativeKernel, ""},

	// The image's file system has no fs-verity, that of the objects has.
	{"auto, image elsewhere", auto, imageElsewhere(), "native image=sealed objects=kernel: seal erofs overlay attach", ""},
	{"require, image elsewhere", require, imageElsewhere(), "hybrid overlay image=sealed objects=kernel: seal fuse overlay attach", "needs fs-verity on the image"},
	{"require, other algorithm", Request{ExpectDigest: digestA512, Verity: Require}, rootWithVerity(),
		"hybrid overlay image=sealed objects=kernel: seal fuse overlay attach", "sha512"},
	{"auto, image elsewhere, large", with1(auto, func(r *Request) { r.SealLimit = 1 }), imageElsewhere(),
		"hybrid overlay image=blocks objects=kernel: fuse overlay attach", "image=once"},

	// No EROFS, no overlayfs, an old one.
	{"auto, no erofs", auto, with(rootWithVerity(), func(f *Features) { f.Erofs = false }),
		"hybrid overlay image=kernel objects=kernel: fuse overlay attach", "no EROFS"},
	{"off, no erofs", off, with(rootFeatures(), func(f *Features) { f.Erofs = false }),
		"hybrid overlay image=sealed objects=unchecked: seal fuse overlay attach", "no EROFS"},
	{"off, no overlay", off, with(rootFeatures(), func(f *Features) { f.Overlay = false }),
		"fuse plain image=sealed objects=unchecked: seal fuse attach", "no overlayfs"},
	{"require, old overlay", require, with(rootWithVerity(), func(f *Features) { f.OverlayVerity = false }),
		"fuse plain image=kernel objects=user: fuse attach", "no option verity"},

	// No /dev/fuse.
	{"auto, no fuse", auto, with(rootFeatures(), noFUSE), "native image=sealed objects=unchecked: seal erofs overlay attach", "there is no /dev/fuse"},
	{"require, no fuse", require, with(rootFeatures(), noFUSE), "", "load the module fuse"},
	{"mode fuse, no fuse", with1(auto, func(r *Request) { r.Mode = ModeFUSE }), with(rootFeatures(), noFUSE), "", "there is no /dev/fuse"},

	// A mode that was asked for.
	{"hybrid", with1(auto, func(r *Request) { r.Mode = ModeHybrid }), rootFeatures(),
		"hybrid overlay image=sealed objects=unchecked: seal fuse overlay attach", "no fs-verity"},
	{"hybrid, require", with1(require, func(r *Request) { r.Mode = ModeHybrid }), rootFeatures(), "", "needs the kernel to check objects"},
	{"native, require", with1(require, func(r *Request) { r.Mode = ModeNative }), rootFeatures(), "", "needs fs-verity on the image"},
	{"fuse, off", with1(off, func(r *Request) { r.Mode = ModeFUSE }), rootFeatures(), "fuse plain image=sealed objects=unchecked: seal fuse attach", ""},

	// User namespaces.
	{"namespace, auto", auto, inNamespace(rootFeatures()), fuseSealed, "native mounts need root"},
	{"namespace, off", off, inNamespace(rootFeatures()), "hybrid useroverlay image=sealed objects=unchecked: seal fuse overlay attach", ""},
	{"namespace, require, fs-verity", require, inNamespace(rootWithVerity()), "hybrid useroverlay image=kernel objects=kernel: fuse overlay attach", ""},
	{"namespace, require, fs-verity, no option for it", require,
		with(inNamespace(rootWithVerity()), func(f *Features) { f.UserOverlayVerity = false }), "fuse plain image=kernel objects=user: fuse attach", ""},
	{"namespace, off, old overlay", off, with(inNamespace(rootFeatures()), func(f *Features) { f.UserOverlay = false }),
		"fuse plain image=sealed objects=unchecked: seal fuse attach", "kernel 6.16"},
	{"namespace, native", with1(off, func(r *Request) { r.Mode = ModeNative }), inNamespace(rootFeatures()), "", "need root"},
	{"namespace, device shut", off, with(inNamespace(rootFeatures()), func(f *Features) {
		f.FUSE, f.FUSELack = false, "open /dev/fuse: permission denied"
	}), "", "mode 0666"},

	// Anybody.
	{"user, auto", auto, plainUser(noVerity()), fusermountPlan, "native mounts need root"},
	{"user, require", require, plainUser(noVerity()), fusermountPlan, ""},
	{"user, no fusermount", require, with(plainUser(noVerity()), func(f *Features) { f.Fusermount = "" }), "", "install the package fuse3"},
	{"user, no fuse", require, with(plainUser(noVerity()), noFUSE), "", "there is no /dev/fuse"},
	{"user, device shut", require, with(plainUser(noVerity()), func(f *Features) { f.FUSELack = "open /dev/fuse: permission denied" }), "", "mode 0666"},
	{"user, hybrid", with1(auto, func(r *Request) { r.Mode = ModeHybrid }), plainUser(noVerity()), "", "unshare -Urm"},

	// Passthrough is taken only when asked for, and checks no reads.
	{"passthrough, require", passthrough(Require), rootWithVerity(), "", "leave passthrough out"},
	{"passthrough, objects", passthrough(Objects), rootWithVerity(), "", "leave passthrough out"},
	{"passthrough, auto, fs-verity", passthrough(Auto), rootWithVerity(), "fuse plain passthrough image=kernel objects=once: fuse attach", "doesn't see what is read"},
	{"passthrough, auto", passthrough(Auto), rootFeatures(), "fuse plain passthrough image=sealed objects=once: seal fuse attach", "when it is opened"},
	{"passthrough, off", passthrough(Off), rootFeatures(), "fuse plain passthrough image=sealed objects=unchecked: seal fuse attach", ""},
	{"passthrough, old kernel", passthrough(Off), with(rootFeatures(), func(f *Features) { f.FUSEPassthrough = false }), "", "kernel 6.9"},
	{"passthrough, no root", passthrough(Off), inNamespace(rootFeatures()), "", "passthrough needs root"},
	{"passthrough, not fuse", with1(passthrough(Off), func(r *Request) { r.Mode = ModeHybrid }), rootFeatures(), "", "mode=fuse alone"},

	// Writable layers need overlayfs.
	{"transient", with1(auto, func(r *Request) { r.Transient = true }), rootFeatures(),
		"native image=sealed objects=unchecked: seal erofs transient overlay attach", "no writable layer"},
	{"transient, require", with1(require, func(r *Request) { r.Transient = true }), rootFeatures(), "", "mode=native or mode=hybrid"},
	{"transient, namespace", with1(auto, func(r *Request) { r.Transient = true }), inNamespace(rootFeatures()),
		"hybrid useroverlay image=sealed objects=unchecked: seal fuse transient overlay attach", ""},
	{"transient, fuse", with1(auto, func(r *Request) { r.Transient, r.Mode = true, ModeFUSE }), rootFeatures(), "", "no writable layer"},
	{"upper", upper(auto), with(rootFeatures(), sameUpper), "native image=sealed objects=unchecked: seal erofs overlay attach", ""},
	{"upper elsewhere than work", upper(auto), rootFeatures(), "", "one file system"},
	{"upper without work", with1(auto, func(r *Request) { r.Upper = os.Stdin }), rootFeatures(), "", "both upperdir= and workdir="},
	{"work without upper", with1(auto, func(r *Request) { r.Work = os.Stdin }), rootFeatures(), "", "both upperdir= and workdir="},
	{"upper and transient", with1(upper(auto), func(r *Request) { r.Transient = true }), with(rootFeatures(), sameUpper), "", "not both"},

	// Idmapped mounts.
	{"idmap, native", idMapped(off), rootFeatures(), "native image=sealed objects=unchecked: seal erofs idmap overlay attach", ""},
	{"idmap, hybrid", with1(idMapped(off), func(r *Request) { r.Mode = ModeHybrid }), rootFeatures(),
		"hybrid overlay image=sealed objects=unchecked: seal fuse idmap overlay attach", ""},
	{"idmap, fuse", idMapped(require), rootFeatures(), "fuse plain image=sealed objects=user: seal fuse idmap attach", ""},
	{"idmap, old FUSE", idMapped(require), with(rootFeatures(), func(f *Features) { f.FUSEIDMap = false }), "", "kernel 6.12"},
	{"idmap, user", idMapped(require), plainUser(noVerity()), "", "idmapped mounts need root"},

	{"check", with1(auto, func(r *Request) { r.Check = true }), rootFeatures(), "fuse plain image=sealed objects=user: seal check fuse attach", ""},
}

func with1(r Request, change func(*Request)) Request {
	change(&r)
	return r
}

func passthrough(v Policy) Request {
	return Request{ExpectDigest: digestA, Verity: v, Mode: ModeFUSE, Passthrough: true}
}

func upper(r Request) Request {
	r.Upper, r.Work = os.Stdin, os.Stdin
	return r
}

func sameUpper(f *Features) { f.Upper.SameMount = true }

func idMapped(r Request) Request {
	r.IDMap = os.Stdin
	return r
}

func imageElsewhere() Features {
	f := rootWithVerity()
	f.Image.Verity, f.Image.CanVerity = fsverity.Digest{}, false
	return f
}

func TestLadderPlans(t *testing.T) {
	for _, row := range ladderRows {
		t.Run(row.name, func(t *testing.T) {
			r := row.request
			r.Objects, r.Target, r.Start = one, "/t", noServer
			p, err := NewPlan(r, row.features)
			if row.plan == "" {
				checkRefused(t, p, err, row.text)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := outline(p); got != row.plan {
				t.Errorf("plan is %q, want %q", got, row.plan)
			}
			if got := p.Verification.Explain(); !strings.Contains(got, row.text) {
				t.Errorf("explanation %q lacks %q", got, row.text)
			}
			if got := p.Verification; r.Verity == Require && (!got.Full() || got.Objects == ObjectsOnce) {
				t.Errorf("verity=require comes to %s", got)
			}
		})
	}
}

func checkRefused(t *testing.T, p *Plan, err error, text string) {
	t.Helper()
	var d *DigestError
	switch {
	case err == nil:
		t.Fatalf("planned:\n%s", p)
	case !errors.Is(err, ErrRefused) && !errors.Is(err, fs.ErrPermission) && !errors.As(err, &d):
		t.Errorf("refusal %v is of no known kind", err)
	case !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n"):
		t.Errorf("refusal %q lacks %q", err, text)
	}
}

// outline is a plan in a line.
func outline(p *Plan) string {
	s := string(p.Mode)
	if p.Service != nil {
		s += " " + string(p.Service.View)
		if p.Service.Passthrough {
			s += " passthrough"
		}
	}
	return s + " " + p.Verification.String() + ": " + ops(p)
}

// TestLadder: what a machine can do, rung by rung, without a request.
func TestLadder(t *testing.T) {
	for _, c := range []struct {
		name  string
		start StartFunc
		f     Features
		ok    string
	}{
		{"root", noServer, rootFeatures(), "native hybrid fuse passthrough"},
		{"root, no servers", nil, rootFeatures(), "native"},
		{"root, no fuse", noServer, with(rootFeatures(), noFUSE), "native"},
		{"root, no erofs", noServer, with(rootFeatures(), func(f *Features) { f.Erofs = false }), "hybrid fuse passthrough"},
		{"namespace", noServer, inNamespace(rootFeatures()), "hybrid-userns fuse"},
		{"user", noServer, plainUser(noVerity()), "fusermount"},
		{"nothing", noServer, Features{}, ""},
	} {
		var ok []string
		for _, g := range Ladder(Request{Start: c.start}, c.f) {
			if g.OK != (g.Reason == nil) || g.About == "" || g.Plan != nil {
				t.Errorf("%s: %+v", c.name, g)
			}
			if g.OK {
				ok = append(ok, g.Name)
			}
		}
		if got := strings.Join(ok, " "); got != c.ok {
			t.Errorf("%s has %q, want %q", c.name, got, c.ok)
		}
	}
}

// TestLadderOfRequest: with a request the rungs that can serve it have plans.
func TestLadderOfRequest(t *testing.T) {
	r := Request{ExpectDigest: digestA, Verity: Require, Objects: one, Target: "/t", Start: noServer}
	want := map[string]string{
		"native": "needs fs-verity on the image", "hybrid": "needs the kernel to check objects", "hybrid-userns": "user namespaces",
		"fuse": "", "fusermount": "may not mount", "passthrough": "checked at each read",
	}
	for _, g := range Ladder(r, rootFeatures()) {
		switch text := want[g.Name]; {
		case text == "" && g.Plan == nil:
			t.Errorf("%s: no plan: %v", g.Name, g.Reason)
		case text != "" && (g.Plan != nil || g.Reason == nil || !strings.Contains(g.Reason.Error(), text)):
			t.Errorf("%s: %v, want %q", g.Name, g.Reason, text)
		}
	}
}
