package main

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/oci/sign/signtest"
)

// signedRegistry is a real registry with an image index under os/web:v1, of which nothing is signed yet.
type signedRegistry struct {
	*fakeRegistry
	t               *testing.T
	url, ref        string
	image           *ocitest.Built
	index, manifest ocispec.Descriptor // manifest is this machine's
}

func newSignedRegistry(t *testing.T) *signedRegistry {
	t.Helper()
	t.Setenv(storeVariable, t.TempDir()+"/store")
	noPolicy(t)
	mustRun(t, "init")
	r := &signedRegistry{fakeRegistry: &fakeRegistry{}, t: t}
	h := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(true))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		r.requests = append(r.requests, q.Method+" "+q.URL.Path)
		r.mu.Unlock()
		h.ServeHTTP(w, q)
	}))
	t.Cleanup(s.Close)
	r.url = s.URL
	r.ref = strings.TrimPrefix(s.URL, "http://") + "/os/web:v1"
	b, err := ocitest.Index{Images: []ocitest.Image{
		ocitest.Sample(oci.DefaultPlatform()), ocitest.Sample(oci.Platform{OS: "linux", Architecture: "s390x"}),
	}}.Build()
	if err == nil {
		err = b.Push(s.URL, "os/web", "v1")
	}
	if err != nil {
		t.Fatal(err)
	}
	r.image, r.index, r.manifest = b, b.Root(), b.Find("manifest").Descriptor
	return r
}

// noPolicy keeps the user's own policy away.
func noPolicy(t *testing.T) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home+"/config")
	t.Setenv("CONTAINERS_POLICY_JSON", "")
	t.Setenv(policyVariable, "")
}

// sign puts signatures where cosign puts those of a digest.
func (r *signedRegistry) sign(of digest.Digest, list ...signtest.Signature) {
	r.t.Helper()
	if err := signtest.Image(list...).Push(r.url, "os/web", signtest.Tag(of)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *signedRegistry) repository() string { return strings.TrimSuffix(r.ref, ":v1") }

// refused is a pull that has to fail, before a layer is asked for, and to name nothing.
func (r *signedRegistry) refused(why string, args ...string) {
	r.t.Helper()
	before := mustRun(r.t, "images", "--json")
	r.fetched()
	status, stdout, stderr := flatroot(r.t, append([]string{"pull", r.ref}, args...)...)
	if status != exitFailed || stdout != "" || !strings.Contains(stderr, why) {
		r.t.Errorf("%q: status %d, %q, %s\nwant %q", args, status, stdout, stderr, why)
	}
	asked := r.fetched()
	for _, b := range r.image.Blobs {
		if oci.IsLayer(b.Descriptor.MediaType) && slices.Contains(asked, "GET /v2/os/web/blobs/"+b.Descriptor.Digest.String()) {
			r.t.Errorf("%q: a layer was asked for: %q", args, asked)
		}
	}
	if after := mustRun(r.t, "images", "--json"); after != before {
		r.t.Errorf("%q: there was %s, and is %s", args, before, after)
	}
}

// accepted is a pull that has to succeed; it returns what was reported.
func (r *signedRegistry) accepted(args ...string) (report index.Report) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(mustRun(r.t, append([]string{"pull", r.ref, "--json"}, args...)...)), &report); err != nil {
		r.t.Fatal(err)
	}
	return report
}

func tempFile(t *testing.T, name string, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestVerifyKey(t *testing.T) {
	r := newSignedRegistry(t)
	s, other := signtest.New("P-256"), signtest.New("Ed25519")
	key, otherKey := tempFile(t, "cosign.pub", s.PEM), tempFile(t, "other.pub", other.PEM)
	r.refused("it has no signature", "--verify-key", key)
	r.refused("no such file", "--verify-key", key+"x")
	r.refused("is no public key", "--verify-key", tempFile(t, "x", []byte("hello")))

	stranger := digest.FromString("another image")
	r.sign(r.index.Digest, s.Of(stranger, r.repository()), other.Of(r.index.Digest, "registry.example.com/os/web"))
	r.refused("another image", "--verify-key", key)
	r.refused("signed as registry.example.com/os/web", "--verify-key", otherKey)

	// One that is good among others, of the index.
	r.sign(r.index.Digest, s.Of(stranger, r.repository()), other.Of(r.index.Digest, "registry.example.com/os/web"), s.Of(r.index.Digest, r.repository()))
	report := r.accepted("--verify-key", otherKey, "--verify-key", key)
	if len(report.SignedBy) != 1 || report.Manifest != r.manifest.Digest || report.Layers.Fetched == 0 {
		t.Errorf("got %+v", report)
	}
	// It is in the store now, which does not help who has no signature.
	r.refused("signed as registry.example.com/os/web", "--verify-key", otherKey)
	r.refused("signed as registry.example.com/os/web", "--verify-key", otherKey, "--name", "again")
	r.refused("signed as", "--verify-key", otherKey, "--verify")
	r.refused("signed as registry.example.com/os/web, which exactReference", "--verify-key", otherKey, "--signed-as", "registry.example.com/os/web:v1")
	if again := r.accepted("--verify-key", otherKey, "--signed-as", "registry.example.com/os/web"); again.Layers.Fetched != 0 || len(again.SignedBy) != 1 {
		t.Errorf("again: %+v", again)
	}

	var n inspection
	if err := json.Unmarshal([]byte(mustRun(t, "inspect", r.ref, "--json")), &n); err != nil {
		t.Fatal(err)
	}
	if len(n.Signatures) != 2 || n.Signatures[0].Reference != "registry.example.com/os/web" || n.Signatures[1].KeyFile != key ||
		n.Signatures[1].Signed != r.index.Digest || !strings.Contains(string(n.Signatures[1].Payload), r.index.Digest.String()) {
		t.Errorf("got %+v", n.Signatures)
	}
	if text := mustRun(t, "inspect", r.ref); !strings.Contains(text, "signed:   by "+report.SignedBy[0].String()+" as "+r.repository()+", verified 20") {
		t.Errorf("got %s", text)
	}

	// What was noted goes with the image.
	mustRun(t, "rm", r.ref)
	mustRun(t, "gc")
	if left, _ := filepath.Glob(os.Getenv(storeVariable) + "/flatroot/signatures/*"); len(left) > 0 {
		t.Errorf("%q were left", left)
	}
	mustRun(t, "fsck")
}

// TestVerifyManifest has the manifest signed, by tag and as a referrer, and not the index that led to it.
func TestVerifyManifest(t *testing.T) {
	r := newSignedRegistry(t)
	s := signtest.New("RSA")
	key := tempFile(t, "cosign.pub", s.PEM)
	b := signtest.Referrer(r.manifest, signtest.Artifact, s.Of(r.manifest.Digest, r.repository()))
	if err := b.Push(r.url, "os/web", b.Root().Digest.String()); err != nil {
		t.Fatal(err)
	}
	if report := r.accepted("--verify-key", key); len(report.SignedBy) != 1 {
		t.Errorf("got %+v", report)
	}
	r.refused("no signature", "--verify-key", key, "--platform", "linux/s390x")
	r.sign(r.manifest.Digest, s.Of(r.manifest.Digest, r.repository()))
	if report := r.accepted("--verify-key", key); len(report.SignedBy) != 1 {
		t.Errorf("got %+v", report)
	}
}

// TestVerifyBundle has what cosign 3 makes.
func TestVerifyBundle(t *testing.T) {
	r := newSignedRegistry(t)
	s := signtest.New("P-256")
	key := tempFile(t, "cosign.pub", s.PEM)
	b := signtest.Referrer(r.index, signtest.BundleType, s.Bundle(r.index.Digest, "https://sigstore.dev/cosign/sign/v1"))
	if err := b.Push(r.url, "os/web", b.Root().Digest.String()); err != nil {
		t.Fatal(err)
	}
	if report := r.accepted("--verify-key", key); len(report.SignedBy) != 1 {
		t.Errorf("got %+v", report)
	}
	r.refused("bundle", "--verify-key", key, "--signed-as", r.repository())
}

// TestVerifyLiars has a manifest of signatures that lies about what it lists.
func TestVerifyLiars(t *testing.T) {
	r := newSignedRegistry(t)
	s := signtest.New("P-256")
	key := tempFile(t, "cosign.pub", s.PEM)
	for why, edit := range map[string]func(*ocispec.Descriptor){
		"answer of":              func(d *ocispec.Descriptor) { d.Size++ },
		"longer than":            func(d *ocispec.Descriptor) { d.Size-- },
		"not a container image ": func(d *ocispec.Descriptor) {},
		"more than 65536":        func(d *ocispec.Descriptor) { d.Size = 65537 },
		"404":                    func(d *ocispec.Descriptor) { d.Digest = digest.FromString("nothing") },
		"is missing":             func(d *ocispec.Descriptor) { d.Annotations = map[string]string{} },
		"illegal base64":         func(d *ocispec.Descriptor) { d.Annotations[signtest.Annotation] += "=" },
	} {
		sig := s.Of(r.index.Digest, r.repository())
		sig.Edit = edit
		if why == "not a container image " { // an image in place of signatures
			if err := r.image.Push(r.url, "os/web", signtest.Tag(r.index.Digest)); err != nil {
				t.Fatal(err)
			}
			why = "is an image index"
		} else {
			r.sign(r.index.Digest, sig)
		}
		r.refused(why, "--verify-key", key)
	}
}

func TestPolicy(t *testing.T) {
	r := newSignedRegistry(t)
	s := signtest.New("P-384")
	keyData, err := json.Marshal(s.PEM)
	if err != nil {
		t.Fatal(err)
	}
	host, _, _ := strings.Cut(r.ref, "/")
	standard := func(requirement string) string {
		return tempFile(t, "policy.json", []byte(`{"default":[`+requirement+`]}`))
	}
	scoped := func(scope, requirement string) string {
		return tempFile(t, "policy.json", []byte(`{"default":[{"type":"reject"}],"transports":{"docker":{"`+scope+`":[`+requirement+`]}}}`))
	}
	signed := `{"type":"sigstoreSigned","keyData":` + string(keyData) + `,"signedIdentity":{"type":"matchRepository"}}`
	accept := `{"type":"insecureAcceptAnything"}`
	r.refused("policy for all that it does not name", "--policy", standard(`{"type":"reject"}`))
	r.refused("can't check", "--policy", standard(`{"type":"signedBy","keyType":"GPGKeys","keyPath":"/x"}`))
	r.refused("it has no signature", "--policy", scoped(host+"/os", signed))
	r.refused("rejected", "--policy", scoped(host+"/o", accept))
	r.refused("default is missing", "--policy", tempFile(t, "policy.json", []byte("{}")))
	r.refused("no such file", "--policy", "/nowhere/policy.json")

	// By the variable, and where containers look.
	t.Setenv(policyVariable, standard(`{"type":"reject"}`))
	r.refused("rejected")
	t.Setenv(policyVariable, "")
	config := os.Getenv("XDG_CONFIG_HOME") + "/containers"
	if err := os.MkdirAll(config, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config+"/policy.json", []byte(`{"default":[{"type":"reject"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	r.refused("rejected")
	t.Setenv("CONTAINERS_POLICY_JSON", "/nowhere/policy.json")
	r.refused("no such file")
	t.Setenv("CONTAINERS_POLICY_JSON", config) // a directory
	r.refused("no regular file")
	t.Setenv("CONTAINERS_POLICY_JSON", "")

	r.sign(r.index.Digest, s.Of(r.index.Digest, r.repository()))
	r.refused("rejected", "--verify-key", tempFile(t, "cosign.pub", s.PEM)) // a key is no way around the policy
	if report := r.accepted("--policy", scoped(host+"/os", signed)); len(report.SignedBy) != 1 || report.Layers.Fetched == 0 {
		t.Errorf("got %+v", report)
	}
	if report := r.accepted("--policy", scoped(host, accept)); len(report.SignedBy) != 0 {
		t.Errorf("got %+v", report)
	}
	r.fetched()
	r.accepted("--policy", scoped(host, accept)) // where nothing is asked, it costs nothing
	if got := r.fetched(); !slices.Equal(got, []string{"HEAD /v2/os/web/manifests/v1"}) {
		t.Errorf("asked for %q", got)
	}
	other := tempFile(t, "other.pub", signtest.New("P-256").PEM)
	r.refused("not made by a key", "--policy", scoped(host, accept), "--verify-key", other)
}

// TestPolicyFile is about where a policy is looked for.
func TestPolicyFile(t *testing.T) {
	own := tempFile(t, "policy.json", nil)
	home, config := t.TempDir(), t.TempDir()
	for _, dir := range []string{home + "/.config/containers", config + "/containers"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/policy.json", nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		own, variable, containers, config, home, want string
	}{
		{own, "/v", "/c", config, home, "/v"},
		{own, "", "/c", config, home, own},
		{own + "x", "", "/c", config, home, "/c"},
		{own + "/x", "", "", config, home, config + "/containers/policy.json"},
		{own + "x", "", "", "", home, home + "/.config/containers/policy.json"},
		{own + "x", "", "", "relative", home, home + "/.config/containers/policy.json"},
	} {
		env := map[string]string{policyVariable: c.variable, "CONTAINERS_POLICY_JSON": c.containers, "XDG_CONFIG_HOME": c.config, "HOME": c.home}
		if got := policyFile(c.own, func(name string) string { return env[name] }); got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
	loop := t.TempDir() + "/loop"
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	if got := firstThere([]string{loop, own}); got != loop { // not to be told is no reason to go on
		t.Errorf("got %s", got)
	}
}

func TestVerifyCommand(t *testing.T) {
	r := newSignedRegistry(t)
	out := t.TempDir() + "/out"
	r.refused("not accepted by --verify-command: exit status 3", "--verify-command", "exit 3")
	r.refused("not accepted by --verify-command", "--verify-command", "/nowhere/at/all")
	r.refused("it has no signature", "--verify-command", "true", "--verify-key", tempFile(t, "k", signtest.New("P-256").PEM))
	_, stdout, stderr := flatroot(t, "pull", r.ref, "--verify-command",
		`printf '%s\n' "$FLATROOT_REFERENCE" "$FLATROOT_IMAGE" "$FLATROOT_DIGEST" "$FLATROOT_MANIFEST" > `+out+`; echo said; cat`)
	if len(strings.TrimSpace(stdout)) != 64 || !strings.Contains(stderr, "said\n") {
		t.Errorf("got %q, %q", stdout, stderr)
	}
	got, err := os.ReadFile(out)
	want := "docker://" + r.ref + "\n" + r.repository() + "@" + r.index.Digest.String() + "\n" + r.index.Digest.String() + "\n" + r.manifest.Digest.String() + "\n"
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
}

// TestPullSeveral has one of several images fail.
func TestPullSeveral(t *testing.T) {
	r := newSignedRegistry(t)
	if _, err := ocitest.Sample(oci.DefaultPlatform()).Push(r.url, "os/other", "v1"); err != nil {
		t.Fatal(err)
	}
	host, _, _ := strings.Cut(r.ref, "/")
	layers := func() (n int) {
		for _, b := range r.image.Blobs {
			for _, asked := range r.fetched() {
				if asked == "GET /v2/os/other/blobs/"+b.Descriptor.Digest.String() && oci.IsLayer(b.Descriptor.MediaType) {
					n++
				}
			}
		}
		return n
	}
	status, stdout, stderr := flatroot(t, "pull", host+"/os/none:v1", r.ref, "oci:/nowhere:x", host+"/os/other:v1", "--progress", "none")
	lines := strings.Fields(stdout)
	if status != exitFailed || len(lines) != 2 || lines[0] != lines[1] {
		t.Errorf("status %d, %q", status, stdout)
	}
	for _, want := range []string{"/os/none", "oci:/nowhere:x", "2 of 4 images could not be pulled"} {
		if strings.Count(stderr, want) != 1 && !strings.Contains(stderr, want) {
			t.Errorf("want %q in %s", want, stderr)
		}
	}
	if n := layers(); n > 0 { // they are the same as the other image's
		t.Errorf("%d layers were fetched again", n)
	}
	for _, name := range []string{r.ref, host + "/os/other:v1"} {
		mustRun(t, "inspect", name)
	}
	// Wrong usage is told before anything is done.
	r.fetched()
	if status, _, _ := flatroot(t, "pull", host+"/os/other:v1", "no reference"); status != exitUsage || len(r.fetched()) > 0 {
		t.Errorf("status %d", status)
	}
}

// TestVerifyInFiles verifies images in places that are files.
func TestVerifyInFiles(t *testing.T) {
	t.Setenv(storeVariable, t.TempDir()+"/store")
	noPolicy(t)
	mustRun(t, "init")
	s, dir := signtest.New("P-256"), t.TempDir()
	key, other := tempFile(t, "cosign.pub", s.PEM), tempFile(t, "other.pub", signtest.New("P-256").PEM)
	b, err := ocitest.Sample(oci.DefaultPlatform()).Build()
	if err != nil {
		t.Fatal(err)
	}
	const as = "registry.example.com/os/web"
	signed := s.Of(b.Root().Digest, as)
	file, err := json.Marshal(map[string]any{
		"mimeType": signtest.PayloadType, "payload": signed.Payload, "annotations": map[string]string{signtest.Annotation: base64.StdEncoding.EncodeToString(signed.Signature)},
	})
	if err == nil {
		err = errors.Join(os.Mkdir(dir+"/dir", 0o755), b.WriteDir(dir+"/dir"), b.WriteLayout(dir+"/layout", "v1"),
			signtest.Image(signed).WriteLayout(dir+"/layout", signtest.Tag(b.Root().Digest)),
			os.WriteFile(dir+"/dir/signature-1", append([]byte("\x00sigstore-json\n"), file...), 0o644))
	}
	var docker []ocitest.File
	if err == nil {
		docker, err = ocitest.DockerArchive(ocitest.Archived{Built: b, Names: []string{"web:v1"}})
	}
	if err == nil {
		err = errors.Join(os.WriteFile(dir+"/docker.tar", ocitest.Tar(docker...), 0o644), os.WriteFile(dir+"/layout.tar", tarOf(t, dir+"/layout"), 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{"oci-archive:" + dir + "/layout.tar:v1", "dir:" + dir + "/dir"} {
		for want, args := range map[string][]string{
			"not made by a key that is trusted here": {"--verify-key", other},
			"does not allow":                         {"--verify-key", key, "--signed-as", "registry.example.com/os/other"},
		} {
			if status, _, stderr := flatroot(t, append([]string{"pull", place}, args...)...); status != exitFailed || !strings.Contains(stderr, want) {
				t.Errorf("%s, %q: status %d, %s", place, args, status, stderr)
			}
		}
		for _, args := range [][]string{{"--verify-key", key}, {"--verify-key", key, "--signed-as", as}} {
			if status, _, stderr := flatroot(t, append([]string{"pull", place, "--name", "web"}, args...)...); status != exitOK || !strings.Contains(stderr, "signed by sha256:") {
				t.Errorf("%s, %q: status %d, %s", place, args, status, stderr)
			}
		}
	}
	status, _, stderr := flatroot(t, "pull", "docker-archive:"+dir+"/docker.tar", "--verify-key", key)
	if status != exitFailed || !strings.Contains(stderr, "an archive of that form has no place for signatures; they can in a registry, oci:, oci-archive: and dir:") {
		t.Errorf("status %d, %s", status, stderr)
	}
}

// tarOf is a tar of a directory's files.
func tarOf(t *testing.T, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
