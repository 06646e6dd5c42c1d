#!/bin/bash
# Compares what an update fetches of an image that chunkah has cut, with a plan of ours of the same components.
#
#   tests/bench/chunk/chunkah.sh CHUNKAH OLD NEW [N]...      default N: 32 64
#
# CHUNKAH is its program: `cargo build --release --locked` in https://github.com/coreos/chunkah. OLD and NEW are root trees of two
# builds of an image; the script sets attributes in them, so give it copies, on a file system that has user.* attributes.
#
# The released chunkah doesn't read dpkg. Both get source packages as components, chunkah by way of user.component, with the
# interval between changes that the changelogs tell. All times are clamped, so that only changes of content count; ours is computed
# from content without times too. Not counted are layers with files that no package owns, symlinks among them, which can't
# be told about in that way: chunkah keeps these apart, our plan doesn't have them. Bytes are those of uncompressed tars,
# chunkah's as written; ours are the sums that planning goes by, without directories.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../debian.sh"

[ $# -ge 3 ] || die "usage: chunkah.sh CHUNKAH OLD NEW [N]..."
need jq jq
chunkah=$1 old=$2 new=$3
shift 3
[ $# -gt 0 ] || set -- 32 64
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$here" && go build -o "$work/alike" ./alike)

# cut N ROOT NAME: lists the layers that chunkah makes, as "DIGEST BYTES", into $work/NAME.
cut() {
	"$chunkah" build --rootfs "$2" --max-layers "$1" --source-date-epoch 1 --skip-special-files --config-str '{}' \
		--output "oci:$work/image" >"$work/log" 2>&1 || die "chunkah: $(cat "$work/log")"
	local manifest
	manifest=$(jq -r '.manifests[0].digest' "$work/image/index.json")
	jq -r '.layers[] | select(.annotations["org.chunkah.component"] | test("chunkah/unclaimed|bigfiles/") | not) | "\(.digest) \(.size)"' \
		"$work/image/blobs/${manifest/://}" | sort >"$work/$3"
	rm -rf "$work/image"
}

"$work/alike" label "$old"
"$work/alike" label "$new"
echo "| layers | chunkah: MB, layers | flatroot: MB, layers |"
echo "| --- | --- | --- |"
for n in "$@"; do
	cut "$n" "$old" old
	cut "$n" "$new" new
	theirs=$(comm -13 "$work/old" "$work/new" | awk '{bytes += $2} END {printf "%.1f, %d", bytes / 1e6, NR}')
	ours=$("$work/alike" plan "$n" "$old" "$new" | awk '{printf "%.1f, %d", $1 / 1e6, $2}')
	echo "| $n | $theirs | $ours |"
done
