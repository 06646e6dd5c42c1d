//go:build amd64

package crash

import (
	"strings"
)

// scenario is a command in a ground, which is a directory. In arguments {store} and {dest} stand for the store and for a
// layout to push to, both in the ground, and {layout} and {tree} for the images and the directory that all have in common.
type scenario struct {
	name string
	// before are the commands that make the ground, each a line.
	before []string
	// command is the one that is struck.
	command string
	// every: CI tries all points, not only some.
	every bool
	// repeated tells whether what came of a second run, after one that may have done its work, is as good as a success;
	// nil: only a success is.
	repeated func(status int, stderr string) bool
	// noTmpfile: the file system has no unnamed files.
	noTmpfile bool
	// digest: the command prints one, which has to be the same each time.
	digest bool
}

const (
	initStore = "init --store {store}"
	pullOther = "pull --store {store} oci:{layout}:other --name other"
	pullV1    = "pull --store {store} oci:{layout}:v1 --name web"
	pullV2    = "pull --store {store} oci:{layout}:v2 --name web"
)

func scenarios() []scenario {
	return []scenario{
		{name: "init", command: initStore},
		{name: "pull", before: []string{initStore, pullOther}, command: pullV1, every: true, digest: true},
		{name: "pull-update", before: []string{initStore, pullOther, pullV1}, command: pullV2, every: true, digest: true},
		{name: "pull-named-files", before: []string{initStore, pullOther}, command: pullV1, noTmpfile: true, digest: true},
		{
			name: "pull-present", before: []string{initStore, pullV1}, digest: true,
			command: "pull --store {store} oci:{layout}:v1 --name second",
		},
		{
			name: "pull-rules", before: []string{initStore, pullV1, "tag --store {store} web copy"}, digest: true,
			command: "pull --store {store} oci:{layout}:v1 --name web --rules faithful-1",
		},
		{
			name: "build-dir", before: []string{initStore, pullOther}, digest: true,
			command: "build --store {store} {tree} --name built",
		},
		{
			name: "build-dump", before: []string{initStore, pullV1}, digest: true,
			command: "build --store {store} {dump} --name built",
		},
		{
			name: "tag", before: []string{initStore, pullV1, "pull --store {store} oci:{layout}:v2 --name stable"},
			command: "tag --store {store} web stable",
		},
		{name: "tag-new", before: []string{initStore, pullV1}, command: "tag --store {store} web a/new:name"},
		{
			name: "rm", before: []string{initStore, pullOther, pullV1, "tag --store {store} web stable"},
			command: "rm --store {store} web other", repeated: isGone,
		},
		{
			name: "push", before: []string{initStore, pullV1}, digest: true,
			command: "push --store {store} web oci:{dest}:latest",
		},
		{
			name: "push-update", digest: true,
			before:  []string{initStore, pullV1, "push --store {store} web oci:{dest}:latest", pullV2},
			command: "push --store {store} web oci:{dest}:latest",
		},
		{
			name: "push-plain", before: []string{initStore, pullV1}, digest: true,
			command: "push --store {store} web oci:{dest}:latest --compress none",
		},
	}
}

// isGone: a name that was removed can't be removed once more.
func isGone(status int, stderr string) bool {
	return status == 1 && strings.Contains(stderr, "no such image")
}
