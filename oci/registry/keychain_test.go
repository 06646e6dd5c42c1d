package registry

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

func TestAuthFiles(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want []string
	}{
		{map[string]string{"HOME": "/h"}, []string{"/run/containers/7/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"}},
		{map[string]string{"HOME": "/h", "XDG_RUNTIME_DIR": "/r", "XDG_CONFIG_HOME": "/c", "DOCKER_CONFIG": "/d"},
			[]string{"/r/containers/auth.json", "/c/containers/auth.json", "/d/config.json"}},
		{map[string]string{"HOME": "/h", "REGISTRY_AUTH_FILE": "/f"}, []string{"/f"}},
		{map[string]string{}, []string{"/run/containers/7/auth.json"}},
	} {
		var got []string
		for _, f := range authFiles(func(k string) string { return c.env[k] }, 7) {
			got = append(got, f.path)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: got %q, want %q", c.env, got, c.want)
		}
	}
}

// write writes a file into a new directory and returns its path.
func write(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// who returns the user that a keychain has for a repository, "" for nobody.
func who(k authn.Keychain, repository string) (string, error) {
	repo, err := name.NewRepository(repository)
	if err != nil {
		return "", err
	}
	a, err := k.Resolve(repo)
	if err != nil {
		return "", err
	}
	c, err := a.Authorization()
	if err != nil {
		return "", err
	}
	if c.IdentityToken != "" {
		return "token " + c.IdentityToken, nil
	}
	return c.Username, nil
}

// helper is a credential helper that knows one registry, tells of none for
// others, and fails for broken.example.
const helper = `#!/bin/sh
read -r server
case "$server" in
helped.example|https://index.docker.io/v1/) echo '{"Username":"helper","Secret":"x"}' ;;
token.example) echo '{"Username":"<token>","Secret":"identity"}' ;;
broken.example) echo 'vault is locked'; exit 1 ;;
*) echo 'credentials not found in native keychain'; exit 1 ;;
esac
`

func TestKeychain(t *testing.T) {
	t.Setenv("PATH", filepath.Dir(write(t, "docker-credential-test", helper, 0o755))+":"+os.Getenv("PATH"))
	const entry = `{"auth":"` // + base64 of USER:x + `"}`
	podman := write(t, "auth.json", `{"auths":{
		"quay.io/org/app":`+entry+`YXBwOng="},
		"quay.io/org":`+entry+`b3JnOng="},
		"docker.io":`+entry+`aHViOng="},
		"empty.example":{},
		"both.example":`+entry+`Zmlyc3Q6eA=="}},
		"credHelpers":{"helped.example":"test","unknown.example":"test","broken.example":"test","token.example":"test","absent.example":"absent"}}`, 0o600)
	docker := write(t, "config.json", `{"auths":{
		"https://old.example/v1/":`+entry+`b2xkOng="},
		"https://port.example:5000":`+entry+`cG9ydDp4"},
		"empty.example":`+entry+`bGFzdDp4"},
		"both.example":`+entry+`c2Vjb25kOng="}}}`, 0o600)
	k := &keychain{files: []authFile{{path: "/nonexistent/auth.json"}, {path: podman}, {path: docker}}}
	for repository, want := range map[string]string{
		"quay.io/org/app":                "app",
		"quay.io/org/app/sub":            "app",
		"quay.io/org/other":              "org",
		"quay.io/organisation/x":         "",
		"quay.io/other/app":              "",
		"index.docker.io/library/alpine": "hub",
		"empty.example/x":                "last",
		"both.example/x":                 "first",
		"helped.example/x":               "helper",
		"token.example/x":                "token identity",
		"unknown.example/x":              "",
		"old.example/x":                  "old",
		"port.example:5000/x":            "port",
		"port.example/x":                 "",
		"nowhere.example/x":              "",
	} {
		if got, err := who(k, repository); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", repository, got, err, want)
		}
	}
	for repository, want := range map[string]string{
		"broken.example/x": "docker-credential-test: error getting credentials - err: exit status 1, out: `vault is locked`",
		"absent.example/x": "docker-credential-absent: ",
	} {
		if _, err := who(k, repository); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), podman) {
			t.Errorf("%s: got %v, want %q in it", repository, err, want)
		}
	}
}

func TestKeychainStore(t *testing.T) {
	t.Setenv("PATH", filepath.Dir(write(t, "docker-credential-test", helper, 0o755))+":"+os.Getenv("PATH"))
	k := &keychain{files: []authFile{{path: write(t, "config.json", `{"auths":{"helped.example":{}},"credsStore":"test"}`, 0o600)}}}
	for repository, want := range map[string]string{
		"helped.example/x": "helper", "index.docker.io/library/alpine": "helper", "unknown.example/x": "",
	} {
		if got, err := who(k, repository); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", repository, got, err, want)
		}
	}
}

func TestKeychainBadFiles(t *testing.T) {
	for _, f := range []authFile{
		{path: "/nonexistent/auth.json", must: true},
		{path: write(t, "auth.json", `{"auths":`, 0o600)},
		{path: write(t, "auth.json", `{"auths":{"x":{"auth":"!"}}}`, 0o600)},
	} {
		if _, err := who(&keychain{files: []authFile{f}}, "quay.io/x"); err == nil || !strings.HasPrefix(err.Error(), f.path+": ") {
			t.Errorf("%s: got %v", f.path, err)
		}
	}
}
