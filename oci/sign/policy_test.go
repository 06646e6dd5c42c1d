package sign_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/sign"
	"github.com/flatroot/flatroot/oci/sign/signtest"
)

func policy(t *testing.T, text string) *sign.Policy {
	t.Helper()
	p, err := sign.ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestScopes looks for the scope that decides: the others reject.
func TestScopes(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "real/lay")
	if err := os.MkdirAll(real, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(real), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	resolved, err := filepath.EvalSymlinks(real)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ref, transport string
		scopes         []string // the most specific first; "-" is the default of all
	}{
		{"docker://registry.example.com:5000/a/b/c:v1", "docker", []string{
			"registry.example.com:5000/a/b/c:v1", "registry.example.com:5000/a/b/c", "registry.example.com:5000/a/b",
			"registry.example.com:5000/a", "registry.example.com:5000", "*.example.com", "*.com", "", "-"}},
		{"docker://registry.example.com/a:v1@" + string(manifest), "docker", []string{
			"registry.example.com/a@" + string(manifest), "registry.example.com/a", "registry.example.com", "*.example.com", "*.com", "", "-"}},
		{"docker://busybox", "docker", []string{"docker.io/library/busybox:latest", "docker.io/library/busybox", "docker.io/library", "docker.io", "*.io", "", "-"}},
		{"docker://REGISTRY.example.com/a:v1", "docker", []string{"Registry.Example.COM/a:v1", "Registry.Example.COM/a", ""}},
		{"docker://localhost/a:v1", "docker", []string{"localhost/a", "localhost", "", "-"}},
		{"oci:" + dir + "/link/lay:v1", "oci", []string{resolved, filepath.Dir(resolved), filepath.Dir(filepath.Dir(resolved)), "", "-"}},
		{"oci-archive:" + real, "oci-archive", []string{resolved, filepath.Dir(resolved), "", "-"}},
		{"dir:" + real, "dir", []string{resolved, "", "-"}},
		{"docker-archive:" + real, "docker-archive", []string{"", "-"}},
		{"containers-storage:x", "containers-storage", []string{"", "-"}},
	} {
		ref := reference(t, c.ref)
		if strings.HasPrefix(c.ref, "docker://REGISTRY") && ref.Host != "registry.example.com" {
			t.Fatal(ref.Host)
		}
		for i := range c.scopes {
			// This scope accepts, those that are more general reject, and more specific ones are of somebody else.
			scopes := map[string]any{}
			standard := []map[string]string{{"type": "reject"}}
			for _, s := range c.scopes[i:] {
				if s != "-" {
					scopes[s] = []map[string]string{{"type": "reject"}}
				}
			}
			for _, s := range c.scopes {
				if strings.Contains(s, "/") {
					scopes[s+"x"] = []map[string]string{{"type": "reject"}}
				}
			}
			if c.scopes[i] == "-" {
				standard[0]["type"] = "insecureAcceptAnything"
			} else {
				scopes[c.scopes[i]] = []map[string]string{{"type": "insecureAcceptAnything"}}
			}
			text, err := json.Marshal(map[string]any{"default": standard, "transports": map[string]any{c.transport: scopes, "atomic": map[string]any{"x": standard}}})
			if err != nil {
				t.Fatal(err)
			}
			if a, err := policy(t, string(text)).Check(context.Background(), &sign.Subject{Reference: ref, Manifest: manifest}); err != nil || a != nil {
				t.Errorf("%s: scope %q: %v", c.ref, c.scopes[i], err)
			}
			if !policy(t, string(text)).Accepts(ref) {
				t.Errorf("%s: scope %q does not accept all", c.ref, c.scopes[i])
			}
			turned := strings.NewReplacer("insecureAcceptAnything", "reject", "reject", "insecureAcceptAnything").Replace(string(text))
			if _, err := policy(t, turned).Check(context.Background(), &sign.Subject{Reference: ref, Manifest: manifest}); err == nil {
				t.Errorf("%s: scope %q does not reject", c.ref, c.scopes[i])
			}
			if policy(t, turned).Accepts(ref) {
				t.Errorf("%s: scope %q accepts all", c.ref, c.scopes[i])
			}
		}
	}
}

// TestStorageScopes refuses what it would have to understand.
func TestStorageScopes(t *testing.T) {
	p := policy(t, `{"default":[{"type":"insecureAcceptAnything"}],"transports":{"containers-storage":{"[overlay@/x]y":[{"type":"reject"}]}}}`)
	_, err := p.Check(context.Background(), &sign.Subject{Reference: reference(t, "containers-storage:x"), Manifest: manifest})
	wantRefusal(t, err, "containers-storage")
}

// TestBadPolicies has each of them refused as a whole.
func TestBadPolicies(t *testing.T) {
	one := func(requirement string) string { return `{"default":[` + requirement + `]}` }
	signed := func(members string) string { return one(`{"type":"sigstoreSigned",` + members + `}`) }
	for text, why := range map[string]string{
		``:                                       "JSON",
		`[]`:                                     "cannot unmarshal array",
		`null`:                                   "null",
		`{}`:                                     "default is missing",
		`{"default":[]}`:                         "nothing is required",
		`{"default":null}`:                       "nothing is required",
		`{"default":{}}`:                         "cannot unmarshal",
		`{"default":["x"]}`:                      "cannot unmarshal",
		one(`{}`):                                "type is missing",
		one(`null`):                              "type is missing",
		one(`{"type":"x"}`):                      `no type "x"`,
		one(`{"Type":"reject"}`):                 "type is missing",
		one(`{"type":"reject","more":1}`):        `no member "more"`,
		one(`{"type":"reject","type":"reject"}`): "twice",
		one(`{"type":"reject"}`) + "{}":          "after top-level value",
		`{"default":[{"type":"reject"}],"Transports":{}}`:                                                                           "no member",
		`{"default":[{"type":"reject"}],"transports":[]}`:                                                                           "cannot unmarshal",
		`{"default":[{"type":"reject"}],"transports":{"docker":{"a":[]}}}`:                                                          "nothing is required",
		`{"default":[{"type":"reject"}],"transports":{"docker":{"a":[{"type":"reject"}],"A":[{"type":"insecureAcceptAnything"}]}}}`: "twice",
		`{"default":[{"type":"reject"}],"transports":{"what":{"a":[{"type":"x"}]}}}`:                                                `no type "x"`,
		`{"default":[{"type":"reject"}],"transports":{"oci":{"a/b":[{"type":"reject"}]}}}`:                                          "no absolute path",
		`{"default":[{"type":"reject"}],"transports":{"dir":{"/":[{"type":"reject"}]}}}`:                                            "written",
		`{"default":[{"type":"reject"}],"transports":{"oci-archive":{"/a/../b":[{"type":"reject"}]}}}`:                              `"/b"`,
		`{"default":[{"type":"reject"}],"transports":{"docker-archive":{"/a":[{"type":"reject"}]}}}`:                                "only the scope",
		signed(`"x":1`): "no member",
		signed(`"signedIdentity":{"type":"matchExact"}`):                      "it has 0 of",
		signed(`"keyPath":"/a","keyData":"YQ=="`):                             "it has 2 of",
		signed(`"keyPath":"/a","fulcio":{}`):                                  "it has 2 of",
		signed(`"keyPath":""`):                                                "no key",
		signed(`"keyPaths":[]`):                                               "no key",
		signed(`"keyPath":1`):                                                 "keyPath",
		signed(`"keyData":"!"`):                                               "base64",
		signed(`"keyPath":"/a","signedIdentity":null`):                        "type is missing",
		signed(`"keyPath":"/a","signedIdentity":{"type":"any"}`):              `no type "any"`,
		signed(`"keyPath":"/a","signedIdentity":{"type":"matchExact","x":1}`): "no member",
		signed(`"keyPath":"/a","signedIdentity":{"type":"exactReference"}`):   "dockerReference is missing",
		signed(`"keyPath":"/a","signedIdentity":{"type":"exactReference","dockerReference":"a.example/b"}`):            "neither tag nor digest",
		signed(`"keyPath":"/a","signedIdentity":{"type":"exactReference","dockerReference":"A B"}`):                    "repository",
		signed(`"keyPath":"/a","signedIdentity":{"type":"exactRepository","dockerRepository":"https://a.example/b"}`):  "https",
		signed(`"keyPath":"/a","signedIdentity":{"type":"remapIdentity","prefix":"","signedPrefix":"a"}`):              "must not be empty",
		one(`{"type":"signedBy","keyType":"x","keyPath":"/a"}`):                                                        "keyType",
		one(`{"type":"signedBy","keyType":"GPGKeys"}`):                                                                 "it has 0 of",
		one(`{"type":"signedBy","keyPath":"/a"}`):                                                                      "keyType is missing",
		one(`{"type":"signedBaseLayer"}`):                                                                              "baseLayerIdentity is missing",
		`{"default":[{"type":"reject"}],"transports":` + strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 101): "nests deeper",
		strings.Repeat(" ", 5<<20): "more than",
	} {
		if _, err := sign.ParsePolicy([]byte(text)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%.200s: got %v, want %q", text, err, why)
		}
	}
}

// TestUncheckable has policies that are well formed and ask for what can't be checked here: no image meets them, and images
// that they are not about don't mind.
func TestUncheckable(t *testing.T) {
	for requirement, why := range map[string]string{
		`{"type":"reject"}`: "rejected",
		`{"type":"signedBy","keyType":"GPGKeys","keyPath":"/nowhere"}`:                           "signedBy asks for a signature by GPGKeys",
		`{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}`:                   "signedBaseLayer",
		`{"type":"sigstoreSigned","fulcio":{"caPath":"/x","oidcIssuer":"y","subjectEmail":"z"}}`: "by a certificate",
		`{"type":"sigstoreSigned","pki":{"caRootsPath":"/x"}}`:                                   "by a certificate",
		`{"type":"sigstoreSigned","keyPath":"/nowhere","rekorPublicKeyPath":"/x"}`:               "transparency log",
		`{"type":"sigstoreSigned","keyPath":"/nowhere"}`:                                         "no such file",
		`{"type":"sigstoreSigned","keyPaths":["/nowhere","/nowhere/else"]}`:                      "no such file",
		`{"type":"sigstoreSigned","keyData":"YQ=="}`:                                             "no public key in PEM",
	} {
		s := signtest.New("P-256")
		src := newBeside().attach(manifest, signtest.Image(s.Of(manifest, app+":v1")))
		p := policy(t, `{"default":[`+requirement+`]}`)
		_, err := p.Check(context.Background(), subject(t, src))
		wantRefusal(t, err, why)
		if p.Accepts(subject(t, src).Reference) {
			t.Errorf("%s accepts all", requirement)
		}
		p = policy(t, `{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"registry.example.net":[`+requirement+`]}}}`)
		if _, err := p.Check(context.Background(), subject(t, src)); err != nil {
			t.Errorf("%s: an image that it is not about: %v", requirement, err)
		}
	}
}

// TestIdentities holds what a signer called an image against what was asked for.
func TestIdentities(t *testing.T) {
	s := signtest.New("P-256")
	key := filepath.Join(t.TempDir(), "cosign.pub")
	if err := os.WriteFile(key, s.PEM, 0o644); err != nil {
		t.Fatal(err)
	}
	exact := `{"type":"exactReference","dockerReference":"` + app + `:v1"}`
	repository := `{"type":"exactRepository","dockerRepository":"` + app + `"}`
	remap := `{"type":"remapIdentity","prefix":"mirror.example.net/m","signedPrefix":"registry.example.com"}`
	hub := `{"type":"exactReference","dockerReference":"busybox:1"}`
	for _, c := range []struct {
		asked, identity, signedAs string
		ok                        bool
	}{
		{app + ":v1", "", app + ":v1", true},
		{app + ":v1", "", app + ":v2", false},
		{app + ":v1", "", app, false},
		{app + "@" + string(manifest), "", app + ":v1", true},
		{app + "@" + string(manifest), "", app, false},
		{app + "@" + string(manifest), "", "registry.example.com/org/b:v1", false},
		{app + ":v1@" + string(manifest), "", app + ":v9", true},
		{app + ":v1", `{"type":"matchExact"}`, app + ":v1", true},
		{app + ":v1", `{"type":"matchExact"}`, app, false},
		{app + "@" + string(manifest), `{"type":"matchExact"}`, app + ":v1", false},
		{app + "@" + string(manifest), `{"type":"matchExact"}`, app + "@" + string(manifest), true},
		{app + ":v1", `{"type":"matchRepository"}`, app, true},
		{app + ":v1", `{"type":"matchRepository"}`, app + ":v2", true},
		{app + ":v1", `{"type":"matchRepository"}`, app + "x", false},
		{app + ":v1", `{"type":"matchRepository"}`, "org/app", false},
		{"registry.example.net/x:v3", exact, app + ":v1", true},
		{"registry.example.net/x:v3", exact, app + ":v3", false},
		{"registry.example.net/x:v3", repository, app + ":v7", true},
		{"registry.example.net/x:v3", repository, app, true},
		{"registry.example.net/x:v3", repository, "registry.example.net/x", false},
		{"mirror.example.net/m/org/app:v1", remap, app + ":v1", true},
		{"mirror.example.net/m/org/app:v1", remap, app + ":v2", false},
		{"mirror.example.net/m/org/app:v1", remap, "mirror.example.net/m/org/app:v1", false},
		{"mirror.example.net/mm/org/app:v1", remap, "mirror.example.net/mm/org/app:v1", true},
		{"docker.io/library/busybox:1", hub, "index.docker.io/library/busybox:1", true},
		{"docker.io/library/busybox:1", hub, "busybox:1", true},
		{"oci:/:v1", exact, app + ":v1", true},
		{"oci:/:v1", repository, app, true},
		{"oci:/:v1", "", app + ":v1", false},
		{"oci:/:v1", `{"type":"matchRepository"}`, app + ":v1", false},
	} {
		identity := ""
		if c.identity != "" {
			identity = `,"signedIdentity":` + c.identity
		}
		p := policy(t, fmt.Sprintf(`{"default":[{"type":"sigstoreSigned","keyPath":%q%s}]}`, key, identity))
		asked := c.asked
		if !strings.HasPrefix(asked, "oci:") {
			asked = "docker://" + asked
		}
		src := newBeside().attach(manifest, signtest.Image(s.Of(manifest, c.signedAs)))
		sub := &sign.Subject{Reference: reference(t, asked), Source: src, Root: manifest, Manifest: manifest}
		a, err := p.Check(context.Background(), sub)
		if ok := err == nil && len(a) == 1 && a[0].Reference == c.signedAs && a[0].Key.File == key; ok != c.ok || err == nil != c.ok {
			t.Errorf("%s as %s by %q: %v, %v", c.asked, c.signedAs, c.identity, a, err)
		}
		// A bundle says nothing of this, so that no policy takes one.
		bundle := newBeside().attach(manifest, signtest.Image(s.Bundle(manifest, "https://sigstore.dev/cosign/sign/v1")))
		_, err = p.Check(context.Background(), &sign.Subject{Reference: reference(t, asked), Source: bundle, Root: manifest, Manifest: manifest})
		wantRefusal(t, err, "bundle")
	}
}

// TestSignedAs is the identity that is given beside a key.
func TestSignedAs(t *testing.T) {
	s := signtest.New("Ed25519")
	for _, c := range []struct {
		signedAs, of string
		ok           bool
	}{
		{app, app, true}, {app, app + ":v1", true}, {app + ":v1", app, false}, {app + ":v1", app + ":v1", true}, {app + ":v1", app + ":v2", false},
	} {
		id, err := sign.SignedAs(c.signedAs)
		if err != nil {
			t.Fatal(err)
		}
		for _, ref := range []string{"docker://mirror.example.net/x:v1", "oci:/:x"} {
			r := sign.SignedBy([]*sign.Key{keyOf(t, s)}, id)
			sub := &sign.Subject{Reference: reference(t, ref), Source: newBeside().attach(manifest, signtest.Image(s.Of(manifest, c.of))), Root: manifest, Manifest: manifest}
			if _, err := r.Check(context.Background(), sub); err == nil != c.ok {
				t.Errorf("%s signed as %s, asked for as %s: %v", ref, c.of, c.signedAs, err)
			}
		}
	}
	if _, err := sign.SignedAs("no/such thing"); err == nil {
		t.Error("no reference is one")
	}
}

// TestAllRequirements has an image signed by one of two that have to.
func TestAllRequirements(t *testing.T) {
	vendor, reviewer := signtest.New("P-256"), signtest.New("RSA")
	requirement := func(s *signtest.Signer) string {
		b, err := json.Marshal(s.PEM)
		if err != nil {
			t.Fatal(err)
		}
		return `{"type":"sigstoreSigned","keyData":` + string(b) + `,"signedIdentity":{"type":"matchRepository"}}`
	}
	p := policy(t, `{"default":[{"type":"insecureAcceptAnything"},`+requirement(vendor)+","+requirement(reviewer)+"]}")
	_, err := p.Check(context.Background(), subject(t, newBeside().attach(manifest, signtest.Image(vendor.Of(manifest, app)))))
	wantRefusal(t, err, "policy for all that it does not name")
	both := newBeside().attach(manifest, signtest.Image(vendor.Of(manifest, app), reviewer.Of(manifest, app)))
	a, err := p.Check(context.Background(), subject(t, both))
	if err != nil || len(a) != 2 || a[0].Key.Fingerprint != keyOf(t, vendor).Fingerprint || a[1].Key.Fingerprint != keyOf(t, reviewer).Fingerprint {
		t.Errorf("got %v, %v", a, err)
	}
}

func TestReadPolicy(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "policy.json")
	for _, text := range []string{"", `{"default":[{"type":"reject"}]`} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := sign.ReadPolicy(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, file := range []string{dir, dir + "/none", "/dev/zero"} {
		if _, err := sign.ReadPolicy(file); err == nil {
			t.Errorf("%s is read", file)
		}
	}
}

// FuzzPolicy reads whatever it is, and never accepts what the default rejects under a key that no scope is about.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte(`{"default":[{"type":"reject"}],"transports":{"docker":{"a.example":[{"type":"insecureAcceptAnything"}]}}}`))
	f.Add([]byte(`{"default":[{"type":"sigstoreSigned","keyPath":"/a","signedIdentity":{"type":"remapIdentity","prefix":"a","signedPrefix":"b"}}]}`))
	f.Add([]byte(`{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/a"}]}`))
	ref, err := oci.ParseReference("docker://" + app + ":v1")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := sign.ParsePolicy(b)
		if err != nil {
			return
		}
		_, err = p.Check(context.Background(), &sign.Subject{Reference: ref, Source: newBeside(), Root: manifest, Manifest: manifest})
		if err == nil && !strings.Contains(string(b), "insecure") && !strings.Contains(string(b), `\u`) {
			t.Error("accepted, and nobody has said so")
		}
	})
}
