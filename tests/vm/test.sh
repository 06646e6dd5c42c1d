#!/bin/bash
# Runs packages' tests in a virtual machine whose kernel and disk have fs-verity: the suite "vm" of tests/testenv.
#
#   tests/vm/test.sh [-kernel=KERNEL] [-run=REGEXP] [-json] [PACKAGE...]
#
#   -kernel=KERNEL   as tests/vm/setup.sh has them
#   -run=REGEXP      the tests to run, as `go test` takes it
#   -json            print events as `go test -json` does
#   PACKAGE          as ./store; if none is named, those in the list below
#
# Other flags of go test, as TESTFLAGS of the Makefile may hold them, are ignored: all tests run, and verbosely.
# Tests find flatroot and mount.flatroot in PATH, and three disks: /dev/vda has their temporary files and is ext4 with
# fs-verity, so is /dev/vdb, which belongs to tests/vm/inguest, and /dev/vdc is ext4 without.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

# The packages with tests that need fs-verity, or that other kernels may answer otherwise, each with the tests to run, and with
# those to leave out: they read files of the work tree, which the guest hasn't. The account of skips in .ci/run finds out when
# a test that needs fs-verity is missing. The rest of package fsverity is arithmetic, and slow when emulated.
list=(
	'./fsverity Kernel'
	'./store .'
	'./mount .'
	'./mount/fuse ^TestAgainstNative$'
	'./mount/fuse/object Kernel'
	'./cmd/mount.flatroot . ^TestUnit$'
	'./tests/vm/inguest .'
)

kernel=bookworm-backports run='' json=''
while [ $# -gt 0 ]; do
	case $1 in
	-kernel=*) kernel=${1#*=} ;;
	-run=*) run=${1#*=} ;;
	-run) run=$2 && shift ;;
	-json) json=1 ;;
	-*) ;;
	*) break ;;
	esac
	shift
done
# entry PACKAGE: its line of the list, or all its tests.
entry() {
	local e
	for e in "${list[@]}"; do
		[ "${e%% *}" != "$1" ] || { echo "$e" && return; }
	done
	echo "$1 ."
}
if [ $# -gt 0 ]; then
	mapfile -t list < <(for package; do entry "$package"; done)
fi

FLATROOT_VM=$(tests/vm/setup.sh -k "$kernel")
export FLATROOT_VM CGO_ENABLED=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

go build -trimpath -ldflags '-s -w' -o "$work/guest" ./tests/vm/guest
mkdir -p "$work"/{bin,tests,empty}
go build -trimpath -ldflags '-s -w' -o "$work/bin/" ./cmd/flatroot ./cmd/mount.flatroot
for i in "${!list[@]}"; do
	read -r package pattern skip <<<"${list[$i]}"
	folder=$work/tests/$i
	mkdir "$folder"
	go list "$package" >"$folder/package"
	echo "${run:-$pattern}" >"$folder/run"
	echo "$skip" >"$folder/skip"
	go test -c -trimpath -ldflags '-s -w' -o "$folder/test" "$package"
	[ ! -d "$package/testdata" ] || cp -r "$package/testdata" "$folder/"
done

# disk NAME SIZE FEATURE
disk() {
	truncate -s "$2" "$work/$1"
	"$FLATROOT_VM/bin/mkfs.ext4" -q -F -b 4096 -O "$3" -d "$work/empty" "$work/$1"
}
disk vda 512M verity
disk vdb 64M verity
disk vdc 64M ^verity

# events turns what each package's tests print into events.
events() {
	if [ -z "$json" ]; then
		cat
	else
		awk '/^=== PACKAGE / { if (to) close(to); to = "go tool test2json -t -p " $3; next }
			to { print | to; fflush(to); next } { print }'
	fi
}
tests/vm/run.sh -k "$kernel" -t 900 -d "$work/vda" -d "$work/vdb" -d "$work/vdc" "$work/guest" "$work/bin" "$work/tests" | events
