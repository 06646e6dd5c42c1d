#!/bin/bash
# Runs packages' tests in a virtual machine whose kernel and disk have fs-verity: the suite "vm" of tests/testenv.
#
#   tests/vm/test.sh [-r REGEXP] PACKAGE...      REGEXP chooses tests, as go test -run does
#
# The disk is ext4 with fs-verity, and all the tests' temporary files are on it.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
run=.
while getopts r: o; do
	case $o in
	r) run=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))

FLATROOT_VM=$(tests/vm/setup.sh)
export FLATROOT_VM CGO_ENABLED=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

go build -trimpath -ldflags '-s -w' -o "$work/guest" ./tests/vm/guest
for package in "$@"; do
	folder=$work/tests/$(echo "${package#./}" | tr / -)
	mkdir -p "$folder"
	go test -c -trimpath -ldflags '-s -w' -o "$folder/test" "$package"
	[ ! -d "$package/testdata" ] || cp -r "$package/testdata" "$folder/"
done

mkdir "$work/empty"
truncate -s 512M "$work/disk"
"$FLATROOT_VM/bin/mkfs.ext4" -q -F -b 4096 -O verity -d "$work/empty" "$work/disk"
tests/vm/run.sh -t 600 -d "$work/disk" -a "run=$run" "$work/guest" ${1+"$work/tests"}
