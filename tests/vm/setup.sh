#!/bin/bash
# Fetches what tests/vm/run.sh boots with: QEMU and a cloud kernel with fs-verity, both of Debian bookworm-backports, in
# whatever version the suite's index has.
#
#   tests/vm/setup.sh [DIR]      default DIR: $FLATROOT_VM, else /var/cache/flatroot-vm; prints it
#
#   DIR/root           the unpacked packages with all they depend on; nothing is configured
#   DIR/bin            wrappers for qemu-system-x86_64, cpio, mkfs.ext4 and debugfs
#   DIR/vmlinuz        the kernel
#   DIR/modules        the modules a guest loads, NN-NAME.ko in the order of NN
#   DIR/packages       the package files, versions included; while it is there, there is nothing to do
#
# Not bookworm's own QEMU 7.2: emulating this kernel it crashed about every second boot, QEMU 10 never.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../debian.sh"

dir=${1:-${FLATROOT_VM:-/var/cache/flatroot-vm}}
# In load order; ext4, FUSE, fs-verity, virtio-pci and the serial console are built in.
modules=(libcrc32c loop virtio_blk erofs overlay)

unpack() { # ROOT
	printf 'deb %s %s main\n' "$mirror" bookworm "$mirror" bookworm-backports |
		bootstrap bookworm "$1" --variant=extract --include=qemu-system-x86,seabios,cpio,e2fsprogs,linux-image-cloud-amd64 \
			--aptopt='APT::Default-Release "bookworm-backports"' \
			--extract-hook='cd "$1/var/cache/apt/archives" && ls *.deb >"$1/packages"'
	rm -rf "$1"/usr/share/{doc,man,info,locale,lintian}
}

kernel() {
	local name path i=10
	cp "$dir"/root/boot/vmlinuz-* "$dir/vmlinuz"
	mkdir -p "$dir/modules"
	for name in "${modules[@]}"; do
		path=$(find "$dir/root" -name "$name.ko*" -print -quit)
		[ -n "$path" ] || continue # built into this kernel, or gone from it: the guest will tell
		case $path in
		*.xz) xz -dc "$path" >"$dir/modules/$i-$name.ko" ;;
		*.zst) zstd -qdc "$path" >"$dir/modules/$i-$name.ko" ;;
		*) cp "$path" "$dir/modules/$i-$name.ko" ;;
		esac
		i=$((i + 1))
	done
}

if [ ! -f "$dir/packages" ]; then
	need mmdebstrap mmdebstrap xz xz-utils flock util-linux
	lock "$dir"
fi
if [ ! -f "$dir/packages" ]; then # nor did the run that was waited for make it
	mirror=$(debian_mirror)
	dir=$(cd "$dir" && pwd)
	discard "$dir"/{root,bin,modules}
	mkdir -p "$dir/bin"
	unpack "$dir/root" >&2
	for tool in cpio mkfs.ext4 debugfs; do
		wrap "$dir/root" "$dir/bin" "$tool"
	done
	wrap "$dir/root" "$dir/bin" qemu-system-x86_64 -L "$dir/root/usr/share/qemu" -L "$dir/root/usr/share/seabios"
	kernel
	sed 's/%3a/:/; s/\.deb$//' "$dir/root/packages" >"$dir/packages"
fi
echo "$dir"
