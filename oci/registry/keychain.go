package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// NewKeychain returns a keychain over the files that podman and docker keep
// credentials in. The first file that has some for an image decides:
//
//	$REGISTRY_AUTH_FILE, and if that is set no other
//	$XDG_RUNTIME_DIR/containers/auth.json, or /run/containers/UID/auth.json
//	$XDG_CONFIG_HOME/containers/auth.json, or ~/.config/containers/auth.json
//	$DOCKER_CONFIG/config.json, or ~/.docker/config.json
//
// This is the order of containers-auth.json(5). go-containerregistry's own
// keychain reads podman's files only where there is none of Docker's, and
// knows no credentials for a part of a registry.
func NewKeychain() authn.Keychain {
	return &keychain{files: authFiles(os.Getenv, os.Getuid())}
}

type keychain struct {
	files []authFile
}

// authFile is a file that may hold credentials.
type authFile struct {
	path string
	must bool // to be absent is an error
}

// authFiles lists the files in their order.
func authFiles(getenv func(string) string, uid int) []authFile {
	if f := getenv("REGISTRY_AUTH_FILE"); f != "" {
		return []authFile{{path: f, must: true}}
	}
	home := getenv("HOME")
	under := func(dir, fallback string, rest ...string) authFile {
		if dir == "" {
			dir = fallback
		}
		return authFile{path: filepath.Join(append([]string{dir}, rest...)...)}
	}
	files := []authFile{
		under(getenv("XDG_RUNTIME_DIR"), "", "containers", "auth.json"),
		under(getenv("XDG_CONFIG_HOME"), filepath.Join(home, ".config"), "containers", "auth.json"),
		under(getenv("DOCKER_CONFIG"), filepath.Join(home, ".docker"), "config.json"),
	}
	if getenv("XDG_RUNTIME_DIR") == "" {
		files[0].path = filepath.Join("/run/containers", strconv.Itoa(uid), "auth.json")
	}
	// Without a home a relative path would be left, and the working directory
	// is nobody's home.
	return slices.DeleteFunc(files, func(f authFile) bool { return !filepath.IsAbs(f.path) })
}

// Resolve implements authn.Keychain.
func (k *keychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	for _, f := range k.files {
		auth, err := f.lookup(target)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.path, err)
		}
		if auth != (authn.AuthConfig{}) {
			return authn.FromConfig(auth), nil
		}
	}
	return authn.Anonymous, nil
}

// lookup finds credentials in one file; the zero AuthConfig if it has none.
func (f authFile) lookup(target authn.Resource) (auth authn.AuthConfig, err error) {
	r, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) && !f.must {
		return auth, nil
	}
	if err != nil {
		return auth, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	cf, err := config.LoadFromReader(r)
	if err != nil {
		return auth, err
	}
	found, err := search(cf, target)
	if err != nil {
		return auth, err
	}
	return authn.AuthConfig{
		Username: found.Username, Password: found.Password, Auth: found.Auth,
		IdentityToken: found.IdentityToken, RegistryToken: found.RegistryToken,
	}, nil
}

// search looks for the repository, then for each path above it, then for the
// registry; for each first in the helper that is named for it, then in the
// file. The helper for all comes last.
func search(cf *configfile.ConfigFile, target authn.Resource) (types.AuthConfig, error) {
	for _, key := range keys(target) {
		if helper := cf.CredentialHelpers[key]; helper != "" {
			return askHelper(cf, helper, key)
		}
		if auth := cf.AuthConfigs[key]; hasCredentials(auth) {
			return auth, nil
		}
	}
	host := hostKey(target.RegistryStr())
	for _, key := range slices.Sorted(maps.Keys(cf.AuthConfigs)) {
		isURL := strings.Contains(key, "://")
		if auth := cf.AuthConfigs[key]; isURL && hasCredentials(auth) && hostKey(credentials.ConvertToHostname(key)) == host {
			return auth, nil
		}
	}
	if cf.CredentialsStore == "" {
		return types.AuthConfig{}, nil
	}
	if host == dockerIO {
		host = authn.DefaultAuthKey
	}
	return askHelper(cf, cf.CredentialsStore, host)
}

// dockerIO is how podman's files name Docker's registry. Docker's have
// authn.DefaultAuthKey, and the library name.DefaultRegistry.
const dockerIO = "docker.io"

// hostKey returns a registry's name as podman's files have it.
func hostKey(host string) string {
	if host == name.DefaultRegistry {
		return dockerIO
	}
	return host
}

// keys lists the names under which a file may have credentials for a
// repository, the most exact first.
func keys(target authn.Resource) []string {
	registry := target.RegistryStr()
	path := strings.Trim(strings.TrimPrefix(target.String(), registry), "/")
	host := hostKey(registry)
	var all []string
	for path != "" {
		all = append(all, host+"/"+path)
		path = path[:max(strings.LastIndexByte(path, '/'), 0)]
	}
	all = append(all, host)
	if host == dockerIO {
		all = append(all, name.DefaultRegistry, authn.DefaultAuthKey)
	}
	return all
}

// askHelper runs a credential helper. One that has no credentials is not an
// error.
func askHelper(cf *configfile.ConfigFile, helper, key string) (types.AuthConfig, error) {
	auth, err := credentials.NewNativeStore(cf, helper).Get(key)
	if err != nil {
		return types.AuthConfig{}, fmt.Errorf("credential helper docker-credential-%s: %w", helper, err)
	}
	if auth.Password == "" && auth.IdentityToken == "" {
		return types.AuthConfig{}, nil
	}
	return auth, nil
}

// hasCredentials tells an entry with credentials from the empty one that
// docker login leaves where a helper has them.
func hasCredentials(a types.AuthConfig) bool {
	return a.Username != "" || a.Password != "" || a.Auth != "" || a.IdentityToken != "" || a.RegistryToken != ""
}
