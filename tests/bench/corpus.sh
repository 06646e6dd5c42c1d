#!/bin/bash
# Makes the images that the benchmarks import, out of Debian packages; no registry is asked for anything.
#
#   tests/bench/corpus.sh TARGET [minbase|server|desktop]...      default: minbase server
#
#   TARGET/oci/NAME-gzip    OCI layout with gzip layers, tags v1, v2 and, of server, v3
#   TARGET/oci/NAME-zstd    the same images with zstd layers
#   TARGET/README           suites, packages, files and bytes of each image
#
#            v1               v2                          v3       layers
#   minbase  bookworm         + updates and security               base
#   server   trixie           + updates and security      forky    base, server packages
#   desktop  trixie           + updates and security               base, server packages, desktop packages
#
# A later version is built from nothing, like an image rebuilt on a new base: no layer blob is the same, most files are.
# A version that is complete is kept, so that an interrupted run can go on. Needs root, mmdebstrap, rsync, and the peers' umoci and skopeo
# (tests/peers/setup.sh --bench). Room needed, work space included: 1, 6 and 25 GB.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../debian.sh"

target=${1:?usage: corpus.sh TARGET [minbase|server|desktop]...}
shift
[ $# -gt 0 ] || set -- minbase server
[ "$(id -u)" = 0 ] || die "needs root: the trees have owners, modes and capabilities to keep"
need mmdebstrap mmdebstrap rsync rsync flock util-linux
lock "$target"
peers=$("$here/../peers/setup.sh" --bench)
PATH=$peers/bin:$PATH
mirror=$(debian_mirror)
security_mirror=$(debian_security_mirror)
mkdir -p "$target/oci" "$target/trees"
target=$(cd "$target" && pwd)

# What an ordinary server runs: web, databases, mail-less administration, two scripting languages.
server=(
	openssh-server nginx postgresql redis-server memcached haproxy certbot
	python3 python3-pip python3-venv php-cli php-fpm perl ruby
	systemd systemd-sysv udev dbus sudo cron logrotate rsyslog chrony locales tzdata ca-certificates gnupg
	curl wget git vim rsync tmux htop jq less man-db file bash-completion zstd xz-utils
	iproute2 iptables nftables tcpdump strace lsof bind9-dnsutils ethtool snmpd smartmontools
	dmsetup lvm2 e2fsprogs xfsprogs btrfs-progs parted
)
# What makes an image big: kernel, firmware, compilers, an office, a TeX.
desktop=(
	linux-image-amd64 linux-headers-amd64 firmware-linux-free firmware-misc-nonfree firmware-amd-graphics
	gcc g++ make gdb cmake git golang-go nodejs default-jdk-headless
	python3-numpy python3-scipy python3-matplotlib texlive-latex-base
	xfce4 lightdm network-manager firefox-esr libreoffice-writer libreoffice-calc gimp inkscape evince vlc
	fonts-noto-core fonts-dejavu cups pipewire pulseaudio-utils
)

sources() { # SUITE main|updated
	local components='main non-free-firmware'
	echo "deb $mirror $1 $components"
	[ "$2" = updated ] || return 0
	echo "deb $mirror $1-updates $components"
	echo "deb $security_mirror $1-security $components"
}

# tree SUITE main|updated base|server|desktop: makes that root tree unless it is there, and prints its path.
tree() {
	local dir=$target/trees/$1-$2-$3 packages=()
	case $3 in
	server) packages=("${server[@]}") ;;
	desktop) packages=("${server[@]}" "${desktop[@]}") ;;
	esac
	if [ ! -d "$dir" ]; then
		discard "$dir.new"
		sources "$1" "$2" | bootstrap "$1" "$dir.new" --mode=root --variant=minbase \
			${packages+--include="$(IFS=,; echo "${packages[*]}")"} >"$dir.log" 2>&1 || die "bootstrap $1: see $dir.log"
		# An image has neither device nodes nor what apt can fetch again.
		find "$dir.new/dev" -mindepth 1 -delete
		rm -rf "$dir.new"/var/lib/apt/lists/* "$dir.new"/var/cache/apt/*
		mv "$dir.new" "$dir"
	fi
	echo "$dir"
}

# add_layer LAYOUT TAG TREE: one more layer, which turns the image into the tree.
add_layer() {
	local bundle=$target/trees/bundle
	discard "$bundle"
	umoci unpack --image "$1:$2" "$bundle" >/dev/null
	rsync -aHAX --delete --numeric-ids "$3/" "$bundle/rootfs/"
	umoci repack --image "$1:$2" --history.created_by="corpus ${3##*/}" "$bundle" >/dev/null
	discard "$bundle"
}

has() { # LAYOUT TAG
	[ -d "$1" ] && umoci list --layout "$1" | grep -xF "$2" >/dev/null
}

# version NAME TAG TREE...: the image NAME:TAG of one layer a tree.
version() {
	local name=$1 tag=$2 gzip=$target/oci/$1-gzip.new zstd=$target/oci/$1-zstd.new t
	shift 2
	[ -d "$gzip" ] || umoci init --layout "$gzip"
	! has "$gzip" "$tag" || umoci rm --image "$gzip:$tag" # of a run that was interrupted
	umoci new --image "$gzip:$tag"
	for t in "$@"; do add_layer "$gzip" "$tag" "$t"; done
	umoci gc --layout "$gzip" >/dev/null
	skopeo copy --quiet --dest-compress-format zstd --dest-compress-level 3 "oci:$gzip:$tag" "oci:$zstd:$tag"
	echo "$name $tag (${t##*/}): $# layers, $(chroot "$t" dpkg-query -f . -W | wc -c) packages," \
		"$(find "$t" -type f | wc -l) regular files, $(du -s --apparent-size --block-size=1000000 "$t" | cut -f 1) MB" |
		tee -a "$target/README"
}

# versions NAME KIND... <LINES: one version a line, as "TAG SUITE main|updated"; the kinds are the trees of its layers.
versions() {
	local name=$1 tag suite state kind trees
	shift
	while read -r tag suite state; do
		! has "$target/oci/$name-zstd.new" "$tag" || continue # the zstd copy is a version's last step
		trees=()
		for kind in "$@"; do
			trees+=("$(tree "$suite" "$state" "$kind" </dev/null)")
		done
		version "$name" "$tag" "${trees[@]}" </dev/null
	done
}

image() { # NAME
	case $1 in
	minbase) printf '%s\n' 'v1 bookworm main' 'v2 bookworm updated' | versions minbase base ;;
	server) printf '%s\n' 'v1 trixie main' 'v2 trixie updated' 'v3 forky main' | versions server base server ;;
	desktop) printf '%s\n' 'v1 trixie main' 'v2 trixie updated' | versions desktop base server desktop ;;
	*) die "no image $1: minbase, server or desktop" ;;
	esac
}

for name in "$@"; do
	[ ! -d "$target/oci/$name-zstd" ] || continue
	image "$name"
	mv "$target/oci/$name-gzip.new" "$target/oci/$name-gzip"
	mv "$target/oci/$name-zstd.new" "$target/oci/$name-zstd"
done
discard "$target/trees"
