#!/bin/bash
# Times flatroot chunk on a root tree beside tar and zstd, at the same level, on as many processors as there are.
#
#   tests/bench/chunk/speed.sh DIR [RUNS]      default: 3 runs
#
# Each run has all of them, one after the other, so that what else the machine does hits all; of each the median is printed, and its ratio
# to tar and zstd. Cut is the first time, again the same once more, with the image of before at DEST. What is written goes to TMPDIR: that
# should be in memory, and DIR too. Needs GNU time.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../debian.sh"

dir=$(realpath "${1:?usage: speed.sh DIR [RUNS]}")
runs=${2:-3}
need zstd zstd
[ -x /usr/bin/time ] || die "GNU time is needed: apt-get install time"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$here/../../.." && CGO_ENABLED=0 go build -o "$work/flatroot" ./cmd/flatroot)

timed() { # NAME COMMAND...: adds a line of wall seconds, CPU seconds and kilobytes to $work/NAME
	local name=$1
	shift
	/usr/bin/time -o "$work/now" -f '%e %U %S %M' "$@" 2>"$work/log" >"$work/out" || die "$name: $(cat "$work/log")"
	awk '{print $1, $2 + $3, $4}' "$work/now" >>"$work/$name"
}

export TMPDIR=$work
for _ in $(seq "$runs"); do
	rm -rf "$work/image"
	timed tar bash -c "set -o pipefail; tar -C '$dir' -c . | zstd -q -T0 -3 >'$work/tar.zst'"
	rm "$work/tar.zst"
	timed cut "$work/flatroot" --progress none chunk "$dir" "oci:$work/image:a"
	timed again "$work/flatroot" --progress none chunk "$dir" "oci:$work/image:a"
done

median() { # NAME COLUMN
	sort -g -k "$2,$2" "$work/$1" | awk -v c="$2" '{v[NR] = $c} END {print v[int((NR + 1) / 2)]}'
}
echo "| | wall, s | ratio | CPU, s | ratio | peak, MiB |"
echo "| --- | --- | --- | --- | --- | --- |"
for name in tar cut again; do
	awk -v name="$name" -v w="$(median $name 1)" -v w0="$(median tar 1)" -v c="$(median $name 2)" -v c0="$(median tar 2)" -v m="$(median $name 3)" \
		'BEGIN {printf "| %s | %.1f | %.2f | %.1f | %.2f | %.0f |\n", name, w, w / w0, c, c / c0, m / 1024}'
done
