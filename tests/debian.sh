# Shell functions that several set-up scripts share; to be sourced by bash, not run.
#
# The Debian mirror is never written down in this project: it is the one that the machine's own apt configuration names,
# or, where that names none (another distribution), what FLATROOT_DEBIAN_MIRROR says.

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# need COMMAND PACKAGE...: ends with a message that names all the missing ones.
need() {
	local missing=()
	while [ $# -gt 0 ]; do
		command -v "$1" >/dev/null || missing+=("$1 (Debian package $2)")
		shift 2
	done
	[ ${#missing[@]} = 0 ] || die "missing: $(printf '%s, ' "${missing[@]}" | sed 's/, $//')"
}

# debian_uris: the archives in apt's index, one a line.
debian_uris() {
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null | sort -u
}

# debian_mirror: the archive of the suites themselves.
debian_mirror() {
	local uri=${FLATROOT_DEBIAN_MIRROR:-}
	[ -n "$uri" ] || uri=$(debian_uris | grep -v security | head -n 1 || true)
	[ -n "$uri" ] || die "apt's index names no Debian mirror: run apt-get update, or set FLATROOT_DEBIAN_MIRROR"
	echo "${uri%/}"
}

# debian_security_mirror: the archive of SUITE-security. Mirrors that carry it have it beside the main one.
debian_security_mirror() {
	local uri
	uri=$(debian_uris | grep security | head -n 1 || true)
	[ -n "$uri" ] || uri=$(debian_mirror)-security
	echo "${uri%/}"
}

# lock DIR: makes the directory and holds it alone until the script ends, waiting for another run of it. Two runs at once
# would remove each other's half-made trees.
lock() {
	mkdir -p "$1"
	exec 9>"$1/.lock"
	flock -n 9 || { echo "${0##*/}: waiting for another run in $1" >&2; flock 9; }
}

# discard PATH...: removes half-made trees. mmdebstrap mounts into the tree it makes, /dev/shm of the machine itself among
# others, and a run that died may have left that: so nothing mounted is entered, and a tree that holds a mount is refused.
discard() {
	local path real
	for path in "$@"; do
		[ -e "$path" ] || continue
		real=$(realpath "$path")
		! cut -d ' ' -f 5 /proc/self/mountinfo | grep -qF "$real/" || die "file systems are mounted in $real: unmount them first"
		rm -rf --one-file-system "$real"
	done
}

# bootstrap SUITE DIR OPTION... <SOURCES: mmdebstrap with what all callers want: the sources on standard input, a plain
# directory, signatures that may be past their Valid-Until (snapshots and lagging mirrors are), no translations. Root does it
# in a mount namespace of its own, so that nobody else gets into the file systems that mmdebstrap mounts in DIR.
bootstrap() {
	local suite=$1 dir=$2 namespace=()
	shift 2
	! unshare --mount true 2>/dev/null || namespace=(unshare --mount --propagation private)
	${namespace+"${namespace[@]}"} mmdebstrap --quiet --format=directory \
		--aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Languages "none"' \
		"$@" "$suite" "$dir" -
}

# wrap ROOT DIR PROGRAM [ARGUMENT...]: makes DIR/PROGRAM, which runs a program of an unpacked root where it stands, through the
# root's own dynamic loader. That needs no privilege, and the program sees the caller's files.
wrap() {
	local root=$1 dir=$2 name=$3 loader libs path
	shift 3
	# Without a merged /usr some of it lies in /lib.
	loader=$(compgen -G "$root/usr/lib*/ld-linux*.so.*" || compgen -G "$root/lib*/ld-linux*.so.*") || die "no loader in $root"
	libs=$(compgen -G "$root/usr/lib/*-linux-gnu"; compgen -G "$root/lib/*-linux-gnu" || true)
	path=$(PATH=$root/usr/bin:$root/usr/sbin:$root/bin:$root/sbin command -v "$name") || die "no $name in $root"
	wrap_command "$dir" "$name" "$loader" --argv0 "$name" --library-path "${libs//$'\n'/:}" "$path" "$@"
}

# wrap_command DIR NAME COMMAND...: makes DIR/NAME, which runs the command with the caller's arguments behind it.
wrap_command() {
	local file=$1/$2
	shift 2
	printf '#!/bin/sh\nexec %s "$@"\n' "$*" >"$file"
	chmod 755 "$file"
}
