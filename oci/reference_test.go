package oci

import (
	"errors"
	"strings"
	"testing"
)

const testDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseReference(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Reference
		name string
	}{
		{"docker://alpine", Reference{Transport: Docker, Host: "docker.io", Repository: "library/alpine", Tag: "latest"}, "docker.io/library/alpine:latest"},
		{"docker://index.docker.io/alpine:3", Reference{Transport: Docker, Host: "docker.io", Repository: "library/alpine", Tag: "3"}, "docker.io/library/alpine:3"},
		{"docker://org/app:1.0", Reference{Transport: Docker, Host: "docker.io", Repository: "org/app", Tag: "1.0"}, "docker.io/org/app:1.0"},
		{"docker://quay.io/a/b/c", Reference{Transport: Docker, Host: "quay.io", Repository: "a/b/c", Tag: "latest"}, "quay.io/a/b/c:latest"},
		{"quay.io/org/app", Reference{Transport: Docker, Host: "quay.io", Repository: "org/app", Tag: "latest"}, "quay.io/org/app:latest"},
		{"Quay.IO/org/app", Reference{Transport: Docker, Host: "quay.io", Repository: "org/app", Tag: "latest"}, "quay.io/org/app:latest"},
		{"localhost/app", Reference{Transport: Docker, Host: "localhost", Repository: "app", Tag: "latest"}, "localhost/app:latest"},
		{"localhost:5000/app:v2", Reference{Transport: Docker, Host: "localhost:5000", Repository: "app", Tag: "v2"}, "localhost:5000/app:v2"},
		{"host:5000/app@" + testDigest, Reference{Transport: Docker, Host: "host:5000", Repository: "app", Digest: testDigest}, "host:5000/app@" + testDigest},
		{"h.example/app:v2@" + testDigest, Reference{Transport: Docker, Host: "h.example", Repository: "app", Tag: "v2", Digest: testDigest}, "h.example/app:v2"},
		{"[::1]:5000/app", Reference{Transport: Docker, Host: "[::1]:5000", Repository: "app", Tag: "latest"}, "[::1]:5000/app:latest"},
		{"127.0.0.1:5000/a__b/c-d.e", Reference{Transport: Docker, Host: "127.0.0.1:5000", Repository: "a__b/c-d.e", Tag: "latest"}, "127.0.0.1:5000/a__b/c-d.e:latest"},
		{"oci:dir", Reference{Transport: OCI, Path: "dir"}, "dir:latest"},
		{"oci:/srv/images/web:v1", Reference{Transport: OCI, Path: "/srv/images/web", Tag: "v1"}, "web:v1"},
		{"oci:/srv/web:quay.io/org/app:v1", Reference{Transport: OCI, Path: "/srv/web", Tag: "quay.io/org/app:v1"}, "quay.io/org/app:v1"},
		{"oci:web@" + testDigest, Reference{Transport: OCI, Path: "web", Digest: testDigest}, "web:latest"},
		{"oci:.", Reference{Transport: OCI, Path: "."}, "image:latest"},
		{"oci:/", Reference{Transport: OCI, Path: "/"}, "image:latest"},
		{"oci:a b/Über image", Reference{Transport: OCI, Path: "a b/Über image"}, "ber-image:latest"},
		{"oci-archive:web.tar", Reference{Transport: OCIArchive, Path: "web.tar"}, "web:latest"},
		{"docker-archive:/tmp/x.tar:org/app:1", Reference{Transport: DockerArchive, Path: "/tmp/x.tar", Tag: "org/app:1"}, "org/app:1"},
		{"docker-archive:x.tar:alpine", Reference{Transport: DockerArchive, Path: "x.tar", Tag: "alpine"}, "alpine:latest"},
		{"docker-archive:x.tar:alpine:3", Reference{Transport: DockerArchive, Path: "x.tar", Tag: "alpine:3"}, "alpine:3"},
		{"docker-archive:x.tar:org/app", Reference{Transport: DockerArchive, Path: "x.tar", Tag: "org/app"}, "org/app:latest"},
		{"docker-archive:x.tar:h.example:5000/app", Reference{Transport: DockerArchive, Path: "x.tar", Tag: "h.example:5000/app"}, "h.example:5000/app:latest"},
		{"docker-archive:x.tar:@2", Reference{Transport: DockerArchive, Path: "x.tar", Tag: "@2"}, "x:2"},
		{"oci:x:@0", Reference{Transport: OCI, Path: "x", Tag: "@0"}, "x:0"},
		{"oci-archive:x.tar:a/b:@0", Reference{Transport: OCIArchive, Path: "x.tar", Tag: "a/b:@0"}, "a/b:@0"},
		{"oci-archive:x.tar@" + testDigest, Reference{Transport: OCIArchive, Path: "x.tar", Digest: testDigest}, "x:latest"},
		{"dir:/tmp/x:y", Reference{Transport: Dir, Path: "/tmp/x:y"}, "x-y:latest"},
		{"dir:/tmp/x", Reference{Transport: Dir, Path: "/tmp/x"}, "x:latest"},
		{"containers-storage:quay.io/org/app:1", Reference{Transport: ContainersStorage, Path: "quay.io/org/app:1"}, "quay.io/org/app:1"},
		{"containers-storage:[overlay@/var/lib/x]localhost:5000/app", Reference{Transport: ContainersStorage, Path: "[overlay@/var/lib/x]localhost:5000/app"}, "localhost:5000/app:latest"},
		{"containers-storage:[overlay@/var/lib/x]@bf6df08b603565de", Reference{Transport: ContainersStorage, Path: "[overlay@/var/lib/x]@bf6df08b603565de"}, "bf6df08b6035:latest"},
		{"containers-storage:web@bf6d", Reference{Transport: ContainersStorage, Path: "web@bf6d"}, "web:latest"},
		{"containers-storage:web@" + testDigest, Reference{Transport: ContainersStorage, Path: "web@" + testDigest}, "web@" + testDigest},
	} {
		got, err := ParseReference(c.in)
		if err != nil || got != c.want {
			t.Errorf("%s: got %+v, %v; want %+v", c.in, got, err, c.want)
			continue
		}
		if name := got.Name(); name != c.name {
			t.Errorf("%s: name is %q, want %q", c.in, name, c.name)
		}
		if again, err := ParseReference(got.String()); err != nil || again != got {
			t.Errorf("%s: printed as %s, read back as %+v, %v", c.in, got, again, err)
		}
	}
}

func TestParseReferenceErrors(t *testing.T) {
	long := strings.Repeat("a", 300)
	for in, want := range map[string]string{
		"":                                  "no image reference",
		"alpine":                            "no image reference",
		"docker":                            "no image reference",
		"alpine:3":                          "no image reference",
		"org/app":                           "no image reference",
		"./dir":                             "it is a path",
		"../x/y":                            "it is a path",
		"/abs/dir":                          "it is a path",
		"https://quay.io/x":                 `there is no transport "https"`,
		"ostree:x/y":                        "is no registry's name",
		"docker:alpine":                     "want docker://HOST",
		"docker://":                         "is no repository",
		"docker://quay.io/":                 "is no repository",
		"docker:///x":                       "is no repository",
		"docker://-bad.io/x":                "is no registry's name",
		"docker://user@host.io/x":           "is no registry's name",
		"docker://h.io:99999999/x":          "is no registry's name",
		"docker://h.io/UPPER":               "is no repository",
		"docker://h.io/a//b":                "is no repository",
		"docker://h.io/../b":                "is no repository",
		"docker://h.io/a?x=1":               "is no repository",
		"docker://h.io/" + long:             "is no repository",
		"docker://h.io/a:" + long:           "is no tag",
		"docker://h.io/a:":                  "is no tag",
		"docker://h.io/a:.x":                "is no tag",
		"docker://h.io/a@sha256:../../x":    "want 64",
		"docker://h.io/a@sha512:" + long:    "is not sha256",
		"docker://h.io/a@":                  "digest is missing",
		"docker://h.io/a:b\x00":             "control characters",
		"oci:":                              "path is missing",
		"oci::x":                            "path is missing",
		"oci:dir:":                          "is no name",
		"oci:dir:-x":                        "is no name",
		"oci:dir@sha256:abc":                "want 64",
		"dir:":                              "nothing follows dir:",
		"oci-archive:":                      "path is missing",
		"oci:x:@":                           "is no name",
		"oci:x:@01":                         "is no name",
		"oci:x:@-1":                         "is no name",
		"oci:x:a b":                         "is no name",
		"docker-archive:x:UPPER":            "is no repository",
		"docker-archive:x:":                 "is no repository",
		"docker-archive:x:@x":               "is not sha256",
		"docker-archive:x:a b":              "is no repository",
		"docker-archive:x@" + testDigest:    "not by digest",
		"docker-archive:x:a@" + testDigest:  "not by digest",
		"containers-storage:":               "nothing follows",
		"oci:" + strings.Repeat("x/", 4000): "longer than",
	} {
		_, err := ParseReference(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v, want %q in it", in, err, want)
			continue
		}
		if len(err.Error()) > 1000 {
			t.Errorf("%.60q: error has %d bytes", in, len(err.Error()))
		}
		if got, want := errors.Is(err, ErrNoReference), strings.Contains(want, "no image") || strings.Contains(want, "it is a path"); got != want {
			t.Errorf("%.60q: errors.Is(ErrNoReference) is %v", in, got)
		}
	}
}

func TestIndex(t *testing.T) {
	for in, want := range map[string]int{"oci:x:@0": 0, "docker-archive:x:@17": 17, "oci-archive:x:a@0": -1, "oci:x": -1, "h.example/x:1": -1} {
		r, err := ParseReference(in)
		if err != nil {
			t.Fatal(err)
		}
		if i, ok := r.Index(); ok != (want >= 0) || ok && i != want {
			t.Errorf("%s: got %d, %v; want %d", in, i, ok, want)
		}
	}
}

func TestFullName(t *testing.T) {
	for in, want := range map[string]string{
		"alpine": "docker.io/library/alpine:latest", "alpine:3": "docker.io/library/alpine:3",
		"org/app": "docker.io/org/app:latest", "index.docker.io/alpine": "docker.io/library/alpine:latest",
		"localhost/x:1": "localhost/x:1", "h.example:5000/a/b": "h.example:5000/a/b:latest",
		"<none>:<none>": "", "": "", "alpine@" + testDigest: "", "A": "",
	} {
		if got, err := FullName(in); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{
		"docker://alpine", "quay.io/a/b:t@" + testDigest, "oci:dir:name:with:colons", "oci:d@" + testDigest,
		"[::1]:5/x", "containers-storage:[o@/x]y", "dir:a:b", "oci-archive:f.tar", "docker://localhost", "docker://a.b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			return
		}
		again, err := ParseReference(r.String())
		if err != nil || again != r {
			t.Fatalf("%q: %+v printed as %q, read back as %+v, %v", s, r, r, again, err)
		}
		if n := r.Name(); n == "" || strings.HasPrefix(n, ".") || strings.HasPrefix(n, "/") || strings.HasPrefix(n, "-") {
			t.Fatalf("%q: name is %q", s, n)
		}
	})
}
