package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/mount"
)

// goodMachine can do everything but passthrough, on a file system with fs-verity.
func goodMachine() mount.Features {
	return mount.Features{
		Privileged: true, Erofs: true, Overlay: true, LayerAdd: true, LayerFD: true, OverlayVerity: true, Loop: true, Memfd: true,
		FUSEDevice: true, FUSE: true,
		Objects: []mount.DirFacts{{Path: "/store/objects", CanVerity: true}},
	}
}

// TestDoctorReport: what the report says of an image yet to be pulled.
func TestDoctorReport(t *testing.T) {
	serve := func(context.Context, mount.Serving) error { return nil }
	for _, row := range []struct {
		name   string
		change func(*mount.Features)
		off    bool // the store has verity off
		auto   string
		rungs  string // that can be had
	}{
		{"everything", func(*mount.Features) {}, false, "native kernel kernel", "native hybrid fuse"},
		{"store without fs-verity", func(*mount.Features) {}, true, "fuse sealed user", "native hybrid fuse"},
		{"file system without", func(f *mount.Features) { f.Objects[0].CanVerity = false }, false, "fuse sealed user", "native hybrid fuse"},
		{"no EROFS", func(f *mount.Features) { f.Erofs = false }, false, "hybrid kernel kernel", "hybrid fuse"},
		{"no overlayfs", func(f *mount.Features) { f.Overlay = false }, false, "fuse kernel user", "fuse"},
		{"fusermount3 alone", func(f *mount.Features) { f.Privileged, f.FUSE, f.Fusermount = false, false, "/bin/fusermount3" },
			false, "fuse kernel user", "fusermount"},
		{"nothing", func(f *mount.Features) { *f = mount.Features{Objects: f.Objects} }, false, "", ""},
	} {
		f := goodMachine()
		row.change(&f)
		q := &patient{sample: true, verity: !row.off}
		q.request = mount.Request{ExpectDigest: fsverity.Sum(fsverity.SHA256, nil), Objects: []*os.File{os.Stdin}, Target: "/", Start: serve}
		r := q.examine(f)
		var have []string
		for _, g := range r.Rungs {
			if g.Available {
				have = append(have, g.Name)
			} else if g.Reason == "" {
				t.Errorf("%s: no reason why there is no %s", row.name, g.Name)
			}
		}
		if got := strings.Join(have, " "); got != row.rungs {
			t.Errorf("%s: rungs %q, want %q", row.name, got, row.rungs)
		}
		auto := ""
		if a := r.Auto; a != nil {
			auto = strings.Join([]string{string(a.Mode), string(a.Image), string(a.Objects)}, " ")
		}
		if auto != row.auto || (auto == "") != (r.Refuse != "") {
			t.Errorf("%s: auto %q, refused %q, want %q", row.name, auto, r.Refuse, row.auto)
		}
		checkPrinted(t, row.name, r)
	}
}

func checkPrinted(t *testing.T, name string, r *doctorReport) {
	t.Helper()
	var b bytes.Buffer
	if err := r.print(&b); err != nil {
		t.Fatal(err)
	}
	want := "nothing can be mounted: "
	if r.Auto != nil {
		want = "mode=auto takes " + string(r.Auto.Mode)
	}
	if !strings.Contains(b.String(), want) || strings.Count(b.String(), "\nnative ") != 1 {
		t.Errorf("%s: no %q in\n%s", name, want, b.String())
	}
}

func TestDoctorAdvice(t *testing.T) {
	r := &doctorReport{Rungs: []doctorRung{{Name: "hybrid-userns", Advice: "enter one"}, {Name: "fuse", Advice: "x"}}}
	r.adviseNamespaces("")
	if got := r.Rungs[0].Advice; got != "enter one" {
		t.Errorf("allowed: %q", got)
	}
	r.adviseNamespaces("a.b=1")
	if got := r.Rungs[0].Advice + r.Rungs[1].Advice; got != "allow user namespaces (sysctl a.b=1), then enter onex" {
		t.Errorf("forbidden: %q", got)
	}
	for _, row := range []struct {
		kind     string
		inKernel bool
		want     string
	}{{"ext4", true, "tune2fs -O verity /dev/x"}, {"ext4", false, "CONFIG_FS_VERITY"}, {"btrfs", true, "CONFIG_FS_VERITY"}, {"tmpfs", true, "keep the store there"}} {
		if got := verityAdvice(row.kind, "/dev/x", row.inKernel); !strings.Contains(got, row.want) {
			t.Errorf("%s %v: %q", row.kind, row.inKernel, got)
		}
	}
}

func TestNamespacesForbidden(t *testing.T) {
	sys := t.TempDir()
	for path, content := range map[string]string{"user/max_user_namespaces": "100\n", "kernel/unprivileged_userns_clone": "1\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(sys, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sys, path), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := namespacesForbidden(sys); got != "" {
		t.Errorf("allowed, but %q", got)
	}
	if err := os.WriteFile(filepath.Join(sys, "user/max_user_namespaces"), []byte("0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := namespacesForbidden(sys); got != "user.max_user_namespaces=15000" {
		t.Errorf("forbidden, but %q", got)
	}
}

func TestFindMount(t *testing.T) {
	const info = `21 1 0:20 / /sys rw shared:2 - sysfs sysfs rw
22 1 8:1 / /a\040b rw,relatime - ext4 /dev/sda1 rw
222 1 0:30 / /c rw - tmpfs - rw
bad line
23 1
`
	for id, want := range map[uint64]string{22: "ext4 /dev/sda1", 222: "tmpfs -", 2: " ", 23: " "} {
		kind, device := findMount(strings.NewReader(info), id)
		if kind+" "+device != want {
			t.Errorf("mount %d is %s %s, want %s", id, kind, device, want)
		}
	}
}
