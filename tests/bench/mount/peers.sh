#!/bin/bash
# Makes the FUSE servers that ours is measured beside: cfs-fuse, which Debian builds but does not ship, from its source
# package of composefs, and erofsfuse as packaged. Both run where they stand, as the programs of tests/peers/setup.sh do.
#
#   tests/bench/mount/peers.sh [DIR]      default DIR: $FLATROOT_PEERS, else /var/cache/flatroot-peers
#
#   DIR/fuse/root       an unpacked forky with both programs, their libraries and what building took
#   DIR/fuse/bin        a wrapper for each
#   DIR/fuse/packages   versions
#
# Needs root (the build runs in the root), mmdebstrap and flock. Prints DIR/fuse. Where that is complete there is nothing to do.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../debian.sh"

suite=forky
build=(gcc libc6-dev meson ninja-build pkgconf libfuse3-dev libssl-dev)
dir=${1:-${FLATROOT_PEERS:-/var/cache/flatroot-peers}}/fuse

# compile ROOT: called by mmdebstrap with apt set up for the new root; the source comes through apt and its signatures.
compile() {
	local src=$1/build
	mkdir "$src"
	(cd "$src" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get source --quiet --download-only composefs)
	mkdir "$src/composefs"
	tar -C "$src/composefs" --strip-components=1 -xf "$src"/composefs_*.orig.tar.*
	chroot "$1" sh -euc '
		cd /build/composefs
		meson setup --buildtype=release -Dfuse=enabled -Dman=disabled out
		ninja -C out tools/composefs-fuse
		cp out/tools/composefs-fuse /usr/bin/cfs-fuse
	'
	(cd "$src" && ls composefs_*.dsc) >"$1/packages"
	chroot "$1" dpkg-query -f '${Package}_${Version}\n' -W erofsfuse 'libfuse3*' >>"$1/packages"
	rm -rf "$src"
}

if [ "${1:-}" = --compile ]; then
	compile "$2"
	exit
fi

make_root() { # ROOT
	local include mirror
	include=$(IFS=,; echo "erofsfuse,${build[*]}")
	mirror=$(debian_mirror)
	printf '%s\n' "deb $mirror $suite main" "deb-src $mirror $suite main" |
		bootstrap "$suite" "$1" --variant=apt --include="$include" --customize-hook="'$here/peers.sh' --compile \"\$1\""
	rm -rf "$1"/usr/share/{doc,man,info,locale} "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*
}

if [ ! -f "$dir/packages" ]; then
	need mmdebstrap mmdebstrap flock util-linux
	[ "$(id -u)" = 0 ] || die "needs root: the build runs in a root of its own"
	lock "$dir"
fi
if [ ! -f "$dir/packages" ]; then # nor did the run that was waited for make it
	dir=$(cd "$dir" && pwd)
	discard "$dir/root" "$dir/root.new" "$dir/bin"
	make_root "$dir/root.new" >&2
	mv "$dir/root.new" "$dir/root"
	mkdir "$dir/bin"
	wrap "$dir/root" "$dir/bin" cfs-fuse
	wrap "$dir/root" "$dir/bin" erofsfuse
	mv "$dir/root/packages" "$dir/packages"
fi
echo "$dir"
