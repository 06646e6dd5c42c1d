//go:build amd64

package crash

import (
	"strings"

	"github.com/flatroot/flatroot/tests/crash/inject"
	"github.com/flatroot/flatroot/tests/testenv"
)

// scenario is a command in a ground, which is a directory. In arguments {store} and {dest} stand for the store and for a
// layout to push to (with .tar for an archive), both in the ground, {layout} and {tree} for the images and
// the directory that all have in common, and {registry} for a registry with the same images.
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
	// damage does to the ground what the command is to repair; nil: nothing.
	damage func(g ground) error
	// sparse: CI tries kills and a full disk alone, as most of it is struck in another scenario.
	sparse bool
	// half: half of a layer's blob is there, as a pull from the registry leaves it that was killed.
	half bool
	// digest: the command prints one, which has to be the same each time.
	digest bool
}

const (
	initStore  = "init --store {store}"
	pullOther  = "pull --store {store} oci:{layout}:other --name other"
	pullV1     = "pull --store {store} oci:{layout}:v1 --name web"
	pullOnline = "pull --store {store} {registry}/crash:v1 --name web"
	pullV2     = "pull --store {store} oci:{layout}:v2 --name web"
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
		{name: "pull-registry", before: []string{initStore, pullOther}, command: pullOnline, sparse: true, digest: true},
		{name: "pull-registry-half", before: []string{initStore, pullOther}, half: true, command: pullOnline, sparse: true, digest: true},
		{name: "pull-keep", before: []string{initStore, pullOther}, command: pullV1 + " --keep-blobs", digest: true},
		{name: "pull-keep-later", before: []string{initStore, pullV1}, command: pullV1 + " --keep-blobs", digest: true},
		{
			name: "pull-all", before: []string{initStore, pullV1}, sparse: true, digest: true,
			command: "pull --store {store} oci:{layout}:all --platform all --keep-blobs --name web",
		},
		{
			name: "rm-all", before: []string{initStore, pullV1, "pull --store {store} oci:{layout}:all --platform all --name all"},
			command: "rm --store {store} all", repeated: isGone,
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
		{
			name: "push-archive", before: []string{initStore, pullV1}, digest: true,
			command: "push --store {store} web oci-archive:{dest}.tar:latest",
		},
		{
			name: "push-archive-update", digest: true,
			before:  []string{initStore, pullV1, "push --store {store} web oci-archive:{dest}.tar:latest", pullV2},
			command: "push --store {store} web oci-archive:{dest}.tar:latest",
		},
		{
			name: "push-archive-named-files", before: []string{initStore, pullV1}, digest: true, noTmpfile: true,
			command: "push --store {store} web oci-archive:{dest}.tar:latest",
		},
		{
			name: "gc", before: []string{initStore, pullOther, pullV1, pullV2, "rm --store {store} other"}, every: true,
			command: "gc --store {store}",
		},
		{
			name: "gc-full", before: []string{initStore, pullOther, pullV1, pullV2, "build --store {store} {dump} --name dumped", "rm --store {store} other dumped"},
			every: true, command: "gc --store {store} --full",
		},
		{name: "fsck", before: []string{initStore, pullV1}, command: "fsck --store {store}"},
		{
			name: "repair-object", before: []string{initStore, pullOther, pullV1, pullV2}, damage: damageObject,
			command: "fsck --store {store} --repair",
		},
		{
			name: "repair-stream", before: []string{initStore, pullOther, pullV1, pullV2}, damage: damageStream,
			command: "fsck --store {store} --repair",
		},
		{
			name: "repair-image", before: []string{initStore, pullV1}, damage: damageImage,
			command: "fsck --store {store} --repair",
		},
		{
			name: "repair-config", before: []string{initStore, pullV1, "tag --store {store} web copy"}, damage: damageConfig,
			command: "fsck --store {store} --repair --from oci:{layout}:v1",
		},
		{
			name: "pull-heals", before: []string{initStore, pullOther, pullV1}, damage: loseObject, digest: true,
			command: pullV1,
		},
	}
}

// succeeds tells whether a status is success: of a repair also that all was repaired.
func (s *scenario) succeeds(status int) bool {
	return status == 0 || status == 1 && s.damage != nil && strings.HasPrefix(s.command, "fsck")
}

// modes are those that are tried.
func (s *scenario) modes() []mode {
	if s.sparse && !testenv.Nightly() {
		return modes[:2]
	}
	return modes
}

// step is how many calls from one point to the next. At every change there is time for all kills of what writes most, and
// for a sample of the rest.
func (s *scenario) step(f inject.Fault) int {
	switch {
	case testenv.Nightly() || s.every && f.Kind == inject.Kill:
		return 1
	case f.Kind == inject.Kill && s.sparse:
		return 11
	case f.Kind == inject.Kill:
		return 7
	case s.every:
		return 19
	}
	return 31
}

// isGone: a name that was removed can't be removed once more.
func isGone(status int, stderr string) bool {
	return status == 1 && strings.Contains(stderr, "no such image")
}
