package mount

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// specRequest has files whose names a Spec can show.
func specRequest(t *testing.T) Request {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "image"), nil, 0o644))
	must(t, os.Mkdir(filepath.Join(dir, "o:1"), 0o755))
	t.Chdir(dir)
	image, err := OpenImage("image")
	must(t, err)
	objects, err := OpenObjects("o:1")
	must(t, err)
	t.Cleanup(func() {
		image.Close()
		closeAll(objects)
	})
	return Request{Image: image, ExpectDigest: digestA, Objects: objects, Start: noServer}
}

func TestSpec(t *testing.T) {
	r := specRequest(t)
	const head = `"image":{"path":"image","digest":"$D","check":"$C"},"objects":["o:1"],"verification":{"image":"$C","objects":"$O"},"mounts":[`
	const layers = `"lowerdir+=${image}","datadir+=o:1"`
	for _, c := range []struct {
		name   string
		change func(*Request)
		f      Features
		want   string
	}{
		{"native", func(r *Request) { r.NoSuid = true }, rootWithVerity(), `{"mode":"native",` + header(head, "kernel", "kernel") +
			`{"type":"erofs","source":"image","target":"${image}","options":["ro","noacl"]},` +
			`{"type":"overlay","source":"flatroot:$D:native:kernel:kernel","target":"${target}","options":[` + layers + `,"metacopy=on","redirect_dir=on","verity=require","ro","nosuid"]}]}`},
		{"native, lower-only, on a target", func(r *Request) { r.Transient, r.Target = true, "/t" }, rootWithVerity(), `{"mode":"native",` + header(head, "kernel", "kernel") +
			`{"type":"erofs","source":"image","target":"${image}","options":["ro","noacl"]},` +
			`{"type":"overlay","source":"flatroot:$D:native:kernel:kernel","target":"/t","options":[` + layers + `,"metacopy=on","redirect_dir=on","verity=require","ro"]}]}`},
		{"native, kernel 6.6", nil, with(rootWithVerity(), func(f *Features) { f.LayerAdd, f.LayerFD = false, false }), `{"mode":"native",` + header(head, "kernel", "kernel") +
			`{"type":"erofs","source":"image","target":"${image}","options":["ro","noacl"]},` +
			`{"type":"overlay","source":"flatroot:$D:native:kernel:kernel","target":"${target}","options":["lowerdir=${image}::o\\:1","metacopy=on","redirect_dir=on","verity=require","ro"]}]}`},
		{"hybrid", func(r *Request) { r.Mode = ModeHybrid }, rootWithVerity(), `{"mode":"hybrid",` + header(head, "kernel", "kernel") +
			`{"type":"fuse.flatroot","source":"flatroot","target":"${image}","options":["ro","default_permissions","allow_other","max_read=1048576"],` +
			`"service":{"view":"overlay","digest":"$D","image":"kernel","objects":"kernel","passthrough":false}},` +
			`{"type":"overlay","source":"flatroot:$D:hybrid:kernel:kernel","target":"${target}","options":[` + layers + `,"metacopy=on","redirect_dir=on","verity=require","ro"]}]}`},
		{"fuse", func(r *Request) { r.Mode, r.NoExec = ModeFUSE, true }, rootFeatures(), `{"mode":"fuse",` + header(head, "sealed", "user") +
			`{"type":"fuse.flatroot","source":"flatroot:$D:fuse:sealed:user","target":"${target}","options":["ro","default_permissions","allow_other","max_read=1048576","noexec"],` +
			`"service":{"view":"plain","digest":"$D","image":"sealed","objects":"user","passthrough":false}}]}`},
		{"fusermount", func(r *Request) { r.Target = "/t" }, plainUser(noVerity()), `{"mode":"fuse",` + strings.Replace(header(head, "sealed", "user"), `"user"}`, `"user","why_not_more":["native mounts need root (CAP_SYS_ADMIN)","hybrid mounts need root, or a user namespace with a mount namespace of its own"]}`, 1) +
			`{"type":"fuse.flatroot","source":"flatroot:$D:fuse:sealed:user","target":"/t","options":["default_permissions","max_read=1048576","ro","nosuid","nodev"],` +
			`"service":{"view":"plain","digest":"$D","image":"sealed","objects":"user","passthrough":false}}]}`},
	} {
		r := r
		if c.change != nil {
			c.change(&r)
		}
		p, err := NewPlan(r, c.f)
		must(t, err)
		got, err := json.Marshal(p)
		must(t, err)
		if want := strings.ReplaceAll(c.want, "$D", digestA.String()); string(got) != want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, want)
		}
	}
}

func header(s, image, objects string) string {
	return strings.NewReplacer("$C", image, "$O", objects).Replace(s)
}

// TestServiceJSON: a service comes out of its text as it went in.
func TestServiceJSON(t *testing.T) {
	for _, s := range []Service{
		{View: ViewPlain, Image: ImageUnchecked, Objects: ObjectsUser},
		{View: ViewUserOverlay, Digest: digestA512, Image: ImageBlocks, Objects: ObjectsUnchecked, Passthrough: true},
	} {
		b, err := json.Marshal(s)
		must(t, err)
		var got Service
		if err := json.Unmarshal(b, &got); err != nil || got != s {
			t.Errorf("%s reads as %+v, %v", b, got, err)
		}
	}
}
