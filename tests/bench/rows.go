package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/flatroot/flatroot/tests/bench/kit"
)

func rows() []row {
	var list []row
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		list = append(list, dumpRow(n))
	}
	return append(list,
		row{
			name: "import server v1, gzip, image included; `podman pull`", goal: "≤ 0.35", needs: "server-gzip",
			ours: pull("server-gzip", "v1", fresh), peer: podman("server-gzip", "v1", freshPodman),
		},
		row{
			name: "import server v1, gzip, image included; the sum of its parts", goal: "≤ 1.25", needs: "server-gzip",
			setup: func(s *settings) error {
				return kit.Command("go", "build", "-o", s.path("parts"), "./tests/bench/parts")
			},
			ours: pull("server-gzip", "v1", fresh),
			peer: side{
				prepare: func(s *settings) error { return os.RemoveAll(s.path("objects")) },
				command: func(s *settings) []string {
					return []string{s.path("parts"), s.image("server-gzip"), "v1", s.path("objects")}
				},
			},
		},
		row{
			name: "import server v1, gzip; `cfsctl oci pull`", goal: "-", needs: "server-gzip", tool: "cfsctl",
			ours: pull("server-gzip", "v1", fresh), peer: cfsctl("server-gzip", "v1"),
		},
		row{
			name: "update: server v2 over v1; `podman pull`", goal: "≤ 0.35", needs: "server-gzip",
			ours: pull("server-gzip", "v2", after(fresh, pull("server-gzip", "v1", nil))),
			peer: podman("server-gzip", "v2", after(freshPodman, podman("server-gzip", "v1", nil))),
		},
		row{
			name: "update over a registry: server v2 over v1; `podman pull`", goal: "≤ 0.35", needs: "server-gzip",
			setup: serve,
			ours:  pullFrom("server-gzip", "v2", after(fresh, pullFrom("server-gzip", "v1", nil))),
			peer:  podmanFrom("server-gzip", "v2", after(freshPodman, podmanFrom("server-gzip", "v1", nil))),
		},
		row{
			name: "again, nothing new; `podman pull`", goal: "wall ≤ 1.0", needs: "server-gzip",
			setup: func(s *settings) error {
				if err := after(fresh, pull("server-gzip", "v2", nil))(s); err != nil {
					return err
				}
				return after(freshPodman, podman("server-gzip", "v2", nil))(s)
			},
			ours: pull("server-gzip", "v2", nil), peer: podman("server-gzip", "v2", nil),
		},
		row{
			name: "import server v1, zstd; our own gzip import", goal: "≤ 0.6", needs: "server-zstd",
			setup: func(s *settings) error { return s.copyImage("server-gzip") },
			ours:  pull("server-zstd", "v1", fresh), peer: pull("server-gzip", "v1", fresh),
		},
		row{
			name: "unpack and `mkcomposefs --digest-store` (umoci, C composefs)", goal: "≤ 0.45", needs: "server-gzip",
			ours: pull("server-gzip", "v1", fresh), peer: umociChain("server-gzip", "v1"), pairs: 3,
		},
		row{
			name: "fsck of the store of server v1; `fsverity digest` of its objects", goal: "≤ 1.1, wall ≤ 0.6", needs: "server-zstd",
			setup: func(s *settings) error { return after(fresh, pull("server-zstd", "v1", nil))(s) },
			ours: side{command: func(s *settings) []string {
				return []string{s.flatroot, "--store", s.path("store"), "--progress", "none", "fsck"}
			}},
			peer: side{command: func(s *settings) []string {
				return []string{"sh", "-c", `find "$1" -type f -print0 | xargs -0 fsverity digest`, "sh", s.path("store/objects")}
			}},
		},
		row{
			name: "digest of a file of 1 GiB; `fsverity digest`", goal: "≤ 0.6", setup: bigFile,
			ours: side{command: func(s *settings) []string { return []string{s.link("composefs-info"), "measure-file", s.path("big")} }},
			peer: side{command: func(s *settings) []string { return []string{"fsverity", "digest", s.path("big")} }},
		},
	)
}

func (s *settings) path(name string) string { return filepath.Join(s.work, name) }

func (s *settings) peer(name string) string { return filepath.Join(s.peers, "bin", name) }

// link is the binary under another tool's name, as which it is that tool.
func (s *settings) link(name string) string {
	at := s.path(name)
	_ = os.Symlink(s.flatroot, at) // it may be there already
	return at
}

// native runs a C tool of the peers by its own dynamic loader, without the shell around it that bin has.
func (s *settings) native(name string) []string {
	return kit.Native(filepath.Join(s.peers, "root"), name)
}

func dumpRow(n int) row {
	name := fmt.Sprintf("dump-%d", n)
	goal := "≤ 0.5"
	if n <= 10_000 {
		goal = "≤ 1.0"
	}
	args := func(s *settings) []string { return []string{"--from-file", s.path(name), s.path("image.erofs")} }
	return row{
		name: fmt.Sprintf("image from a dump of %d entries; `mkcomposefs`", n), goal: goal,
		setup: func(s *settings) error { return kit.WriteDump(s.path(name), n) },
		ours:  side{command: func(s *settings) []string { return append([]string{s.link("mkcomposefs")}, args(s)...) }},
		peer:  side{command: func(s *settings) []string { return append(s.native("mkcomposefs"), args(s)...) }},
	}
}

// after runs another side once, unmeasured, as part of the preparation.
func after(prepare func(*settings) error, d side) func(*settings) error {
	return func(s *settings) error {
		if err := prepare(s); err != nil {
			return err
		}
		return kit.Command(d.command(s)...)
	}
}

func fresh(s *settings) error {
	if err := os.RemoveAll(s.path("store")); err != nil {
		return err
	}
	return kit.Command(s.flatroot, "init", "--store", s.path("store"))
}

// reference is an image as a command line names it.
type reference func(s *settings) string

func inLayout(image, tag string) reference {
	return func(s *settings) string { return "oci:" + s.image(image) + ":" + tag }
}

func inRegistry(image, tag string) reference {
	return func(s *settings) string {
		return "docker://" + s.registry + "/" + filepath.Base(s.image(image)) + ":" + tag
	}
}

// serve starts the registry, unless there is one.
func serve(s *settings) (err error) {
	if s.registry == "" {
		s.registry, err = kit.ServeLayouts(s.work)
	}
	return err
}

func pull(image, tag string, prepare func(*settings) error) side {
	return flatrootPull(inLayout(image, tag), prepare)
}

func pullFrom(image, tag string, prepare func(*settings) error) side {
	return flatrootPull(inRegistry(image, tag), prepare)
}

func flatrootPull(from reference, prepare func(*settings) error) side {
	return side{prepare: prepare, command: func(s *settings) []string {
		return []string{s.flatroot, "--store", s.path("store"), "--progress", "none", "pull", "--name", "server", from(s)}
	}}
}

// podmanConf is what podman needs to pull: nothing of the machine's own configuration.
func freshPodman(s *settings) error {
	// podman leaves its overlay directory bind-mounted on itself in its own mount namespace only.
	if err := kit.Command("rm", "-rf", s.path("podman")); err != nil {
		return err
	}
	if err := os.MkdirAll(s.path("podman"), 0o700); err != nil {
		return err
	}
	return os.WriteFile(s.path("policy.json"), []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600)
}

func podman(image, tag string, prepare func(*settings) error) side {
	return podmanPull(inLayout(image, tag), prepare)
}

func podmanFrom(image, tag string, prepare func(*settings) error) side {
	return podmanPull(inRegistry(image, tag), prepare)
}

func podmanPull(from reference, prepare func(*settings) error) side {
	return side{prepare: prepare, command: func(s *settings) []string {
		return []string{
			s.peer("podman"), "--root", s.path("podman/root"), "--runroot", s.path("podman/run"), "--storage-driver", "overlay",
			"pull", "--tls-verify=false", "--signature-policy", s.path("policy.json"), "-q", from(s),
		}
	}}
}

func cfsctl(image, tag string) side {
	return side{
		prepare: func(s *settings) error {
			if err := os.RemoveAll(s.path("cfs")); err != nil {
				return err
			}
			return kit.Command("cfsctl", "--insecure", "--repo", s.path("cfs"), "--hash", "sha256", "init", s.path("cfs"))
		},
		command: func(s *settings) []string {
			return []string{"env", "PATH=" + filepath.Join(s.peers, "bin") + ":" + os.Getenv("PATH"),
				"cfsctl", "--insecure", "--repo", s.path("cfs"), "oci", "pull", "oci:" + s.image(image) + ":" + tag, "server"}
		},
	}
}

func umociChain(image, tag string) side {
	return side{
		prepare: func(s *settings) error {
			return kit.Command("rm", "-rf", s.path("umoci"), s.path("digests"), s.path("image.erofs"))
		},
		command: func(s *settings) []string {
			return []string{"sh", "-ec", `
				"$1"/bin/umoci unpack --image "$2" "$3"/umoci
				"$1"/bin/mkcomposefs --digest-store="$3"/digests "$3"/umoci/rootfs "$3"/image.erofs`,
				"sh", s.peers, s.image(image) + ":" + tag, s.work}
		},
	}
}

func bigFile(s *settings) error {
	return kit.Command("sh", "-c", `head -c 1073741824 /dev/urandom > "$1"`, "sh", s.path("big"))
}
