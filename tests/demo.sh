#!/bin/sh
# The whole way of an image in two minutes: build, push, pull, mount, update, diff, chunk. `make demo` calls it.
#
#   tests/demo.sh [FLATROOT]
#
# FLATROOT is the program, default bin/flatroot. The image is made of the Go toolchain's own directory, which is only
# read. All else happens in a directory below ${TMPDIR:-/var/tmp} that is gone at the end; it takes about 1 GB.
# Without root the mount is left out. FLATROOT_NO_SKIP=1 makes it an error that a mount is not possible.
set -eu

flatroot=${1:-$(dirname "$0")/../bin/flatroot}
[ -x "$flatroot" ] || { echo "demo: there is no program $flatroot; \`make demo\` builds it" >&2; exit 1; }
PATH=$(cd "$(dirname "$flatroot")" && pwd):$PATH
goroot=$(go env GOROOT)
LC_ALL=C
export PATH LC_ALL
unset FLATROOT_STORE

work=$(mktemp -d "${TMPDIR:-/var/tmp}/flatroot-demo.XXXXXX")
mounted=no

clean() {
	trap - EXIT
	cd /
	if [ "$mounted" = yes ] && ! flatroot umount "$work/mnt"; then
		echo "demo: $work is left behind: something is still mounted there" >&2
		exit 1
	fi
	# The toolchain's directories, of which there is a copy, may be read-only.
	find "$work" -type d ! -perm -u=w -exec chmod u+w {} +
	rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n== %s\n' "$*"; }

# run shows a command, and then what it says.
run() {
	printf '\n$ %s\n' "$*"
	"$@" 2>&1
}

# differs is run for diff, whose status 1 says that the trees differ.
differs() {
	printf '\n$ %s\n' "$*"
	"$@" 2>&1 || [ $? = 1 ]
}

cd "$work"
started=$(date +%s)

# A copy that will be changed. Others than root own what they copy, so they build both versions from it.
mkdir next
cp -a "$goroot/." next
first=$goroot
[ "$(id -u)" = 0 ] || first=./next

say "Somebody builds an image: here of $goroot, $(find "$goroot/" | wc -l | tr -d ' ') files."
run flatroot --store builder init
run flatroot --store builder build "$first" --name go:1
run flatroot --store builder push go:1 oci:layout:1 --compress zstd
echo
echo "The last line of build is the digest of the whole tree, that of push the manifest in the OCI layout."

say "A machine pulls it, from the layout as it would from a registry, and gets the same tree: the same digest."
run flatroot --store machine init
run flatroot --store machine pull oci:layout:1 --name go:1
run flatroot --store machine images

skipped=
if [ "$(id -u)" != 0 ]; then
	skipped="mounting takes root"
else
	say "The machine mounts it, and runs go from there. The second line says what is checked."
	mkdir mnt
	if run flatroot --store machine mount go:1 mnt; then
		mounted=yes
		run env -u GOROOT GOTOOLCHAIN=local mnt/bin/go version
		run flatroot mounts
	else
		skipped="this kernel, or the container that we are in, does not let us mount"
	fi
fi
if [ -n "$skipped" ]; then
	say "The mount is left out: $skipped."
	[ "${FLATROOT_NO_SKIP:-0}" != 1 ] || exit 1
fi

say "A second version of the tree: a file more, one less, one with another content, the top with another mode."
chmod 711 next
# What is replaced or removed are names in the copy itself, whatever symlinks the toolchain's directory may have.
rm -f next/VERSION next/go.env
echo "another version" >next/VERSION
seq 1 1000 >next/NUMBERS
run flatroot --store builder build ./next --name go:2
run flatroot --store builder push go:2 oci:layout:2 --compress zstd

say "The machine pulls that too. It is another layer, but nearly all of its files are there already."
run flatroot --store machine pull oci:layout:2 --name go:2

say "What both cost: OWN is what removing one of them would free."
run flatroot --store machine du

say "And what is the difference?"
differs flatroot --store machine diff go:1 go:2

say "Cut into layers by what changes together, an update fetches less: of the second version one file has changed since this build."
cat >components.yaml <<EOF
- component: source
  paths: [/src/]
  interval: monthly
- component: tools
  paths: [/bin/, /pkg/]
  interval: quarterly
EOF
run flatroot chunk ./next oci:layout:chunked --mapping components.yaml --max-layers 8
cp -a next third
echo "a third version" >third/NUMBERS
run flatroot chunk ./third oci:layout:chunked --mapping components.yaml --max-layers 8
run flatroot chunks oci:layout:chunked
run flatroot --store machine pull oci:layout:chunked --name go:3
echo
echo "What differs from the directory is times alone:"
flatroot --store machine diff go:3 ./third | grep -v ' mtime ' && exit 1

if [ "$mounted" = yes ]; then
	say "Unmount."
	run flatroot umount mnt
	mounted=no
fi
say "Done in $(($(date +%s) - started)) s; $work is removed.${skipped:+ Left out: the mount, for $skipped.}"
