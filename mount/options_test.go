package mount

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
)

func policyPtr(p Policy) *Policy { return &p }

func TestOptions(t *testing.T) {
	hex := digestA.String()
	for _, row := range []struct {
		list string
		want Options
	}{
		{"", Options{}},
		{",,", Options{}},
		{"defaults,noauto,nofail,_netdev,x-systemd.automount,x-y=z,X-mount.mkdir,comment=hi,noatime,nomand,uhelper=x", Options{}},
		{"ro", Options{ReadOnly: true}},
		{"ro,rw", Options{ReadWrite: true}},
		{"rw,ro", Options{ReadOnly: true}},
		{"store=/s", Options{Store: "/s"}},
		{"store=/a,store=/b", Options{Store: "/b"}},
		{"store=/a=b", Options{Store: "/a=b"}},
		{"basedir=/a", Options{Basedirs: []string{"/a"}}},
		{"basedir=/a:/b,basedir=c", Options{Basedirs: []string{"/a", "/b", "c"}}},
		{`basedir=/a\,b\\c`, Options{Basedirs: []string{`/a,b\c`}}},
		{`basedir=/a\`, Options{Basedirs: []string{`/a\`}}},
		{"digest=" + hex, Options{Digest: digestA}},
		{"digest=" + strings.ToUpper(hex), Options{Digest: digestA}},
		{"digest=" + digestA512.String(), Options{Digest: digestA512}},
		{"verity", Options{Verity: policyPtr(Require)}},
		{"verity=require", Options{Verity: policyPtr(Require)}},
		{"verity=auto", Options{Verity: policyPtr(Auto)}},
		{"verity,verity=off", Options{Verity: policyPtr(Off)}},
		{"tryverity", Options{TryVerity: true}},
		{"mode=native", Options{Mode: ModeNative}},
		{"mode=hybrid", Options{Mode: ModeHybrid}},
		{"mode=fuse,mode=auto", Options{}},
		{"passthrough,mode=fuse,check", Options{Passthrough: true, Mode: ModeFUSE, Check: true}},
		{"upperdir=/u,workdir=/w,rw", Options{UpperDir: "/u", WorkDir: "/w", ReadWrite: true}},
		{"transient,idmap=/proc/1/ns/user", Options{Transient: true, IDMap: "/proc/1/ns/user"}},
		{"allow_other,log=/l", Options{AllowOther: true, Log: "/l"}},
		{"nosuid,nodev,noexec", Options{NoSuid: true, NoDev: true, NoExec: true}},
		{"nosuid,nodev,noexec,suid,dev,exec", Options{}},
		// As mount(8) puts it for fstab's "user,exec".
		{"rw,nosuid,nodev,user,_netdev,exec", Options{ReadWrite: true, NoSuid: true, NoDev: true}},
		{"users", Options{NoSuid: true, NoDev: true, NoExec: true}},
		{"user=bob,suid", Options{NoDev: true, NoExec: true}},
		{"owner", Options{NoSuid: true, NoDev: true}},
		{"group,dev", Options{NoSuid: true}},
	} {
		got, err := ParseOptions(row.list, false)
		if err != nil {
			t.Errorf("%s: %v", row.list, err)
		} else if !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s: %+v, want %+v", row.list, got, row.want)
		}
	}
}

func TestOptionsRefused(t *testing.T) {
	hex := digestA.String()
	for list, text := range map[string]string{
		"stor=/s":                          "unknown option stor; did you mean store?",
		"basedri=/o":                       "did you mean basedir?",
		"digets=00":                        "did you mean digest?",
		"verify":                           "did you mean verity?",
		"no_suid":                          "did you mean nosuid?",
		"uperdir=/u":                       "did you mean upperdir?",
		"allow-other":                      "did you mean allow_other?",
		"modee=fuse":                       "did you mean mode?",
		"transiant":                        "did you mean transient?",
		"pass_through":                     "did you mean passthrough?",
		"idmpa=/x":                         "did you mean idmap?",
		"zzzzzz":                           "unknown option zzzzzz",
		"loop":                             "unknown option loop",
		"nosymfollow":                      "unknown option nosymfollow",
		"context=user_u":                   "have the labels that the image gives them",
		"remount,ro":                       "unmount and mount again",
		"bind":                             "then bind what is mounted",
		"store":                            "store needs a value",
		"store=":                           "store needs a value",
		"basedir=/a::/b":                   "a path is empty",
		"basedir=:":                        "a path is empty",
		"digest=12":                        "digest",
		"digest=" + hex + "00":             "digest",
		"digest=" + hex[:62] + "g0":        "digest",
		"verity=yes":                       "want require, auto or off",
		"verity=":                          "verity= needs a value",
		"tryverity=1":                      "takes no value",
		"nosuid=1":                         "takes no value",
		"mode=kernel":                      "want auto, native, hybrid or fuse",
		"upperdir=/u":                      "upperdir needs workdir",
		"workdir=/u":                       "workdir needs upperdir",
		"upperdir=/u,workdir=/w,transient": "exclude each other",
		"mode=native,passthrough":          "passthrough is for mode=fuse",
		"passthrough":                      "passthrough is for mode=fuse",
		"mode=fuse,transient":              "mode=fuse has none",
		"mode=fuse,upperdir=/u,workdir=/w": "mode=fuse has none",
	} {
		_, err := ParseOptions(list, false)
		var o *OptionError
		if !errors.As(err, &o) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %q", list, err, text)
		}
	}
}

// TestSloppy: -s forgives unknown names, not wrong values, and not what would
// mean another thing than mounting.
func TestSloppy(t *testing.T) {
	if o, err := ParseOptions("zzz,nodev,uid=7", true); err != nil || !o.NoDev {
		t.Errorf("%+v, %v", o, err)
	}
	for _, list := range []string{"digest=12", "verity=yes", "remount"} {
		if _, err := ParseOptions(list, true); err == nil {
			t.Errorf("%s is forgiven", list)
		}
	}
}

func TestOptionsPolicy(t *testing.T) {
	none := fsverity.Digest{}
	for _, row := range []struct {
		list      string
		digest    fsverity.Digest
		ours      Policy
		composefs Policy
	}{
		{"", none, Auto, Off},
		{"", digestA, Auto, Require},
		{"verity", none, Require, Objects},
		{"verity", digestA, Require, Require},
		{"tryverity", none, Auto, Auto},
		{"tryverity", digestA, Auto, Require},
		{"tryverity,verity", none, Require, Objects},
		{"verity=auto", digestA, Auto, Auto},
		{"verity=off", digestA, Off, Off},
	} {
		o, err := ParseOptions(row.list, false)
		must(t, err)
		if got := o.Policy(); got != row.ours {
			t.Errorf("%q: %q, want %q", row.list, got, row.ours)
		}
		if got := o.ComposefsPolicy(row.digest); got != row.composefs {
			t.Errorf("mount.composefs %q, digest %v: %q, want %q", row.list, !row.digest.IsZero(), got, row.composefs)
		}
	}
}

func TestReadOnlyAnyway(t *testing.T) {
	for list, want := range map[string]bool{"": false, "ro": false, "rw": true, "rw,transient": false, "rw,upperdir=/u,workdir=/w": false, "rw,ro": false} {
		o, err := ParseOptions(list, false)
		must(t, err)
		if o.ReadOnlyAnyway() != want {
			t.Errorf("%q: %v, want %v", list, !want, want)
		}
	}
}

func TestApplyOptions(t *testing.T) {
	dir := t.TempDir()
	o, err := ParseOptions("ro,nodev,check,idmap=/proc/self/ns/user,upperdir="+dir+",workdir="+dir, false)
	must(t, err)
	var r Request
	must(t, o.Apply(&r))
	if r.Upper.Name() != dir || r.Work.Name() != dir || r.IDMap == nil || !r.ReadOnly || !r.NoDev || !r.Check {
		t.Errorf("%+v", r)
	}
	r.CloseOptions()
	if r.Upper != nil || r.Work != nil || r.IDMap != nil {
		t.Errorf("still open: %+v", r)
	}
}

func TestApplyOptionsRefused(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for list, text := range map[string]string{
		"upperdir=" + file + ",workdir=" + dir:  "option upperdir",
		"upperdir=" + dir + ",workdir=/nowhere": "option workdir: open /nowhere",
		"idmap=/nowhere":                        "option idmap: open /nowhere",
	} {
		o, err := ParseOptions(list, false)
		must(t, err)
		var r Request
		var p *fs.PathError
		if err := o.Apply(&r); !errors.As(err, &p) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %q", list, err, text)
		}
		if r.Upper != nil || r.Work != nil {
			t.Errorf("%s: left open", list)
		}
	}
}

// TestOptionDocs: each option is in the manual or with one that is.
func TestOptionDocs(t *testing.T) {
	var all strings.Builder
	for _, d := range OptionDocs() {
		all.WriteString(d.Form + " " + d.Text + "\n")
	}
	for _, s := range optionTable() {
		switch s.name {
		case "rw", "user", "users", "owner", "group":
			continue // mount(8) explains them
		}
		if !strings.Contains(all.String(), s.name) {
			t.Errorf("option %s is nowhere explained", s.name)
		}
	}
}

func TestNearest(t *testing.T) {
	for _, row := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"store", "store", 0}, {"stor", "store", 1}, {"basedri", "basedir", 1}, {"kitten", "sitting", 3}} {
		if got := editDistance(row.a, row.b); got != row.want {
			t.Errorf("%q %q: %d, want %d", row.a, row.b, got, row.want)
		}
	}
	names := []string{"dev", "exec", "beta", "bets"}
	for typed, want := range map[string]string{"betx": "beta", "dxx": "", "exce": "exec", "": ""} {
		if got := Nearest(typed, names); got != want {
			t.Errorf("%q: %q, want %q", typed, got, want)
		}
	}
}

// FuzzOptions: no list makes the parser panic; what it refuses it refuses in one
// line of its own type; and what it reads it reads again when lists are cut.
func FuzzOptions(f *testing.F) {
	f.Add("ro,verity,basedir=/a:/b,upperdir=/u,workdir=/w", false)
	f.Add(`digest=`+digestA.String()+`,store=/a\,b\`, true)
	f.Add("mode=fuse,passthrough,check,transient,idmap=/p,log=/l,allow_other", false)
	f.Add("user,exec,x-a=b,,remount", true)
	f.Fuzz(func(t *testing.T, list string, sloppy bool) {
		var o, cut Options
		err := o.Parse(list, sloppy)
		var bad *OptionError
		if err != nil && !errors.As(err, &bad) {
			t.Fatalf("%q: %T %v", list, err, err)
		}
		if err == nil && o.Validate() != nil && !errors.As(o.Validate(), &bad) {
			t.Fatalf("%q: %v", list, o.Validate())
		}
		for _, item := range splitOptions(list) {
			escaped := strings.NewReplacer(`\`, `\\`, ",", `\,`).Replace(item)
			if err := cut.Parse(escaped, sloppy); err != nil {
				break
			}
		}
		if err == nil && !reflect.DeepEqual(o, cut) {
			t.Fatalf("%q: %+v, cut at commas %+v", list, o, cut)
		}
	})
}
