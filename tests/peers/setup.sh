#!/bin/bash
# Fetches the programs that flatroot is compared with, and those that it exchanges images with: the C tools of composefs and
# erofs-utils, podman, skopeo, umoci, Docker's registry and, for the benchmarks, ostree and fsverity, all as Debian forky ships
# them.
#
#   tests/peers/setup.sh [--bench] [DIR]      default DIR: $FLATROOT_PEERS, else /var/cache/flatroot-peers
#
# What it makes, and what it prints the path of:
#
#   DIR/root        the unpacked packages with all they depend on; nothing is configured, no maintainer script is run
#   DIR/bin         a wrapper for each program: put this in PATH
#   DIR/run         a copy of tests/peers/run, for those wrappers that need it
#   DIR/packages    the package files that were unpacked, versions included
#   DIR/requested   what was asked for; while it matches there is nothing to do
#
# Most programs run where they stand through the root's own dynamic loader, which needs no privilege and sees the caller's
# files. podman, which starts itself again by /proc/self/exe, can't; it goes through tests/peers/run, which needs root.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../debian.sh"

suite=forky
packages=(composefs erofs-utils podman skopeo umoci docker-registry)
tools=(mkcomposefs composefs-info mount.composefs mkfs.erofs fsck.erofs dump.erofs podman skopeo umoci docker-registry)
if [ "${1:-}" = --bench ]; then
	shift
	packages+=(ostree fsverity)
	tools+=(ostree fsverity)
fi
dir=${1:-${FLATROOT_PEERS:-/var/cache/flatroot-peers}}

# complete: everything wanted now was asked for before, perhaps with more, and got unpacked.
complete() {
	[ -f "$dir/requested" ] || return 1
	[ -z "$(comm -23 <(printf '%s\n' "$suite" "${packages[@]}" | sort) <(sort "$dir/requested"))" ]
}

unpack() { # ROOT
	local include
	include=$(IFS=,; echo "${packages[*]}")
	echo "deb $(debian_mirror) $suite main" | bootstrap "$suite" "$1" --variant=extract --include="$include" \
		--extract-hook='cd "$1/var/cache/apt/archives" && ls *.deb >"$1/packages"'
	rm -rf "$1"/usr/share/{doc,man,info,locale,lintian,bash-completion,zsh}
	sed 's/%3a/:/; s/\.deb$//' "$1/packages" >"$dir/packages"
	rm "$1/packages"
}

# Unpacked but not configured, the root has no accounts and no links of the merged /usr; container tools ask for both.
finish() { # ROOT
	local d
	for d in bin sbin lib lib64; do
		[ -e "$1/$d" ] || ln -s "usr/$d" "$1/$d"
	done
	echo 'root:x:0:0:root:/root:/bin/sh' >"$1/etc/passwd"
	echo 'root:x:0:' >"$1/etc/group"
	mkdir -p "$1/etc/containers"
	echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$1/etc/containers/policy.json"
	# A registry of the tests speaks plain HTTP on the loopback interface.
	printf '[[registry]]\nlocation = "%s"\ninsecure = true\n' localhost 127.0.0.1 >"$1/etc/containers/registries.conf"
}

wrappers() {
	local t
	mkdir -p "$dir/bin"
	cp "$here/run" "$dir/run"
	for t in "${tools[@]}"; do
		case $t in
		podman) wrap_command "$dir/bin" "$t" "$dir/run" "$dir" "$t" ;;
		skopeo) wrap "$dir/root" "$dir/bin" "$t" --policy "$dir/root/etc/containers/policy.json" ;;
		*) wrap "$dir/root" "$dir/bin" "$t" ;;
		esac
	done
}

if ! complete; then
	need mmdebstrap mmdebstrap flock util-linux
	lock "$dir"
fi
if ! complete; then # nor did the run that was waited for
	dir=$(cd "$dir" && pwd)
	rm -f "$dir/requested"
	discard "$dir/root" "$dir/root.new" "$dir/bin"
	unpack "$dir/root.new" >&2
	finish "$dir/root.new"
	mv "$dir/root.new" "$dir/root"
	wrappers
	printf '%s\n' "$suite" "${packages[@]}" >"$dir/requested"
fi
echo "$dir"
