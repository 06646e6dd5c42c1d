package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/oci/sign/signtest"
	"github.com/flatroot/flatroot/tests/testenv"
)

// skopeoRun runs skopeo, with signatures beside images switched on.
func skopeoRun(t *testing.T, registries string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command(testenv.Peer(t, "skopeo"), append([]string{"--registries.d", registries}, args...)...).CombinedOutput()
	return string(out), err
}

func registriesDir(t *testing.T, host string) string {
	t.Helper()
	return filepath.Dir(tempFile(t, "x.yaml", []byte("docker:\n  "+host+":\n    use-sigstore-attachments: true\n")))
}

// TestSkopeoSigns has skopeo sign an image.
func TestSkopeoSigns(t *testing.T) {
	testenv.Need(t, "skopeo")
	r := newSignedRegistry(t)
	host, _, _ := strings.Cut(r.ref, "/")
	registries, dir := registriesDir(t, host), t.TempDir()
	if _, err := ocitest.Sample(oci.DefaultPlatform()).WriteLayout(dir+"/layout", "v1"); err != nil {
		t.Fatal(err)
	}
	pass := tempFile(t, "pass", nil)
	for _, args := range [][]string{
		{"generate-sigstore-key", "--output-prefix", dir + "/key", "--passphrase-file", pass},
		{"copy", "--dest-tls-verify=false", "--sign-by-sigstore-private-key", dir + "/key.private", "--sign-passphrase-file", pass,
			"oci:" + dir + "/layout:v1", "docker://" + r.ref},
	} {
		if out, err := skopeoRun(t, registries, args...); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	other := tempFile(t, "other.pub", signtest.New("P-256").PEM)
	r.refused("not made by a key", "--verify-key", other)
	if report := r.accepted("--verify-key", dir+"/key.pub"); len(report.SignedBy) != 1 {
		t.Errorf("got %+v", report)
	}
	r.accepted("--verify-key", dir+"/key.pub", "--signed-as", r.ref)
	policy := tempFile(t, "policy.json", []byte(`{"default":[{"type":"sigstoreSigned","keyPath":"`+dir+`/key.pub"}]}`))
	r.accepted("--policy", policy)
}

// TestSkopeoSignsDirectories has skopeo write signatures into a directory, of an image and of an image index.
func TestSkopeoSignsDirectories(t *testing.T) {
	testenv.Need(t, "skopeo")
	t.Setenv(storeVariable, t.TempDir()+"/store")
	noPolicy(t)
	mustRun(t, "init")
	dir := t.TempDir()
	index := ocitest.Index{Images: []ocitest.Image{ocitest.Sample(oci.DefaultPlatform())}}
	if _, err := ocitest.Sample(oci.DefaultPlatform()).WriteLayout(dir+"/layout", "one"); err != nil {
		t.Fatal(err)
	}
	if _, err := index.WriteLayout(dir+"/layout", "all"); err != nil {
		t.Fatal(err)
	}
	pass := tempFile(t, "pass", nil)
	if out, err := skopeoRun(t, dir, "generate-sigstore-key", "--output-prefix", dir+"/key", "--passphrase-file", pass); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	other := tempFile(t, "other.pub", signtest.New("P-256").PEM)
	for _, name := range []string{"one", "all"} {
		to := "dir:" + dir + "/" + name
		if out, err := skopeoRun(t, dir, "copy", "--all", "--sign-by-sigstore-private-key", dir+"/key.private", "--sign-passphrase-file", pass,
			"--sign-identity", "registry.example.com/os/web:v1", "oci:"+dir+"/layout:"+name, to); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if status, _, stderr := flatroot(t, "pull", to, "--verify-key", other); status != exitFailed || !strings.Contains(stderr, "not made by a key") {
			t.Errorf("%s: status %d, %s", name, status, stderr)
		}
		mustRun(t, "pull", to, "--name", name, "--verify-key", dir+"/key.pub", "--signed-as", "registry.example.com/os/web:v1")
	}
}

// TestSkopeoAgrees has skopeo and flatroot decide by the same policies about the same image.
func TestSkopeoAgrees(t *testing.T) {
	testenv.Need(t, "skopeo")
	r := newSignedRegistry(t)
	host, _, _ := strings.Cut(r.ref, "/")
	registries := registriesDir(t, host)
	image, err := ocitest.Sample(oci.DefaultPlatform()).Push(r.url, "os/web", "v1")
	if err != nil {
		t.Fatal(err)
	}
	repository := r.repository()
	key, data := map[string]string{}, map[string]string{}
	var list []signtest.Signature
	for kind, as := range map[string]string{
		"P-256": r.ref, "RSA": repository, "Ed25519": "registry.example.com/os/web:v1", "P-521": repository + ":v2", "P-384": "",
	} {
		s := signtest.New(kind)
		key[kind] = tempFile(t, "key.pub", s.PEM)
		b, err := json.Marshal(s.PEM)
		if err != nil {
			t.Fatal(err)
		}
		data[kind] = string(b)
		if kind != "P-384" { // whose key has signed nothing
			list = append(list, s.Of(image.Digest, as))
		}
	}
	r.sign(image.Digest, list...)

	signed := func(kind, more string) string {
		return fmt.Sprintf(`{"type":"sigstoreSigned","keyPath":%q%s}`, key[kind], more)
	}
	identity := func(text string) string { return `,"signedIdentity":` + text }
	standard := func(rs ...string) string { return `{"default":[` + strings.Join(rs, ",") + `]}` }
	scoped := func(scope string) string {
		return `{"default":[{"type":"reject"}],"transports":{"docker":{"` + scope + `":[{"type":"insecureAcceptAnything"}]}}}`
	}
	both := fmt.Sprintf(`{"type":"sigstoreSigned","keyPaths":[%q,%q]}`, key["P-384"], key["P-256"])
	inside := `{"type":"sigstoreSigned","keyDatas":[` + data["P-384"] + "," + data["P-256"] + `]}`
	exact := `{"type":"exactReference","dockerReference":"registry.example.com/os/web:v1"}`
	remap := `{"type":"remapIdentity","prefix":"` + host + `","signedPrefix":"registry.example.com"}`
	var policies []string
	for _, kind := range []string{"P-256", "RSA", "Ed25519", "P-521", "P-384"} {
		for _, id := range []string{
			"", identity(`{"type":"matchExact"}`), identity(`{"type":"matchRepoDigestOrExact"}`), identity(`{"type":"matchRepository"}`),
			identity(exact), identity(`{"type":"exactRepository","dockerRepository":"registry.example.com/os/web"}`), identity(remap),
		} {
			policies = append(policies, standard(signed(kind, id)))
		}
	}
	policies = append(policies,
		standard(both), standard(inside), standard(signed("P-256", ""), signed("RSA", identity(`{"type":"matchRepository"}`))),
		standard(signed("P-256", ""), signed("RSA", "")), standard(`{"type":"insecureAcceptAnything"}`, signed("P-384", "")),
		standard(`{"type":"reject"}`), standard(`{"type":"insecureAcceptAnything"}`), standard(`{"type":"insecureAcceptAnything"}`, `{"type":"reject"}`),
		standard(signed("P-256", `,"keyData":`+data["P-256"])), standard(signed("P-256", `,"more":1`)), standard(signed("P-256", identity("null"))),
		standard(`{"type":"sigstoreSigned","keyPath":"/nowhere"}`), standard(`{"type":"sigstoreSigned","keyData":"YQ=="}`),
		`{"default":[]}`, `{}`, `[]`, ``, `{"default":[{"type":"insecureAcceptAnything"}],"more":{}}`,
		`{"default":[{"type":"insecureAcceptAnything"}],"transports":{"oci":{"relative":[{"type":"reject"}]}}}`,
		`{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker-archive":{"/a":[{"type":"reject"}]}}}`,
		`{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"`+host+`":[{"type":"reject"}],"`+host+`":[{"type":"reject"}]}}}`,
	)
	for _, scope := range []string{"", host, host + "/os", host + "/os/web", r.ref, host + "/o", host + "/os/web:v2", host + "/os/", "127.0.0.1", "*.0.0.1", "*.1", "*.0"} {
		policies = append(policies, scoped(scope))
	}
	agreed := map[bool]int{}
	for _, ref := range []string{r.ref, repository + "@" + image.Digest.String()} {
		for _, p := range policies {
			file := tempFile(t, "policy.json", []byte(p))
			said, err := skopeoRun(t, registries, "--policy", file, "copy", "--src-tls-verify=false", "docker://"+ref, "dir:"+t.TempDir())
			status, _, stderr := flatroot(t, "pull", ref, "--policy", file, "--progress", "none")
			if ok := status == exitOK; ok != (err == nil) {
				t.Errorf("%s\n%s: skopeo: %v %s\nflatroot: %s", p, ref, err, said, stderr)
			}
			agreed[err == nil]++
		}
	}
	if agreed[true] < 20 || agreed[false] < 20 {
		t.Errorf("of little use: %d accepted, %d refused", agreed[true], agreed[false])
	}
}
