#!/bin/bash
# Fetches what tests/vm/run.sh boots with: QEMU of Debian bookworm-backports and a cloud kernel with fs-verity, in whatever
# versions the suites' indexes have.
#
#   tests/vm/setup.sh [-k KERNEL] [DIR]      default DIR: $FLATROOT_VM, else /var/cache/flatroot-vm; prints it
#
#   -k KERNEL          the Debian suite that the kernel is of: bookworm-backports (6.12, if not said) or forky (7.x)
#
#   DIR/root           the unpacked packages with all they depend on; nothing is configured
#   DIR/bin            wrappers for qemu-system-x86_64, cpio, mkfs.ext4 and debugfs
#   DIR/packages       the package files, versions included; while it is there, there is nothing to do
#   DIR/KERNEL/vmlinuz, DIR/KERNEL/modules/NN-NAME.ko
#                      the kernel, and what a guest loads in the order of NN; while they are there, they do
#
# Not bookworm's own QEMU 7.2: emulating this kernel it crashed about every second boot, QEMU 10 never.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../debian.sh"

kernel=bookworm-backports
while getopts k: o; do
	case $o in
	k) kernel=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
dir=${1:-${FLATROOT_VM:-/var/cache/flatroot-vm}}
# In load order; ext4, FUSE, fs-verity, virtio-pci and the serial console are built in, others in some kernels only.
modules=(libcrc32c loop virtio_blk erofs overlay)

case $kernel in
bookworm-backports | forky) ;;
*) die "no kernel $kernel: want bookworm-backports or forky" ;;
esac

# unpack_machine ROOT: QEMU, and from the same archive, which spares a second look at it, the default kernel.
unpack_machine() {
	printf 'deb %s %s main\n' "$mirror" bookworm "$mirror" bookworm-backports |
		bootstrap bookworm "$1" --variant=extract --include=qemu-system-x86,seabios,cpio,e2fsprogs,linux-image-cloud-amd64 \
			--aptopt='APT::Default-Release "bookworm-backports"' \
			--extract-hook='cd "$1/var/cache/apt/archives" && ls *.deb >"$1/packages"'
	rm -rf "$1"/usr/share/{doc,man,info,locale,lintian}
}

machine() {
	discard "$dir"/{root,bin}
	mkdir -p "$dir/bin"
	unpack_machine "$dir/root" >&2
	for tool in cpio mkfs.ext4 debugfs; do
		wrap "$dir/root" "$dir/bin" "$tool"
	done
	wrap "$dir/root" "$dir/bin" qemu-system-x86_64 -L "$dir/root/usr/share/qemu" -L "$dir/root/usr/share/seabios"
	take_kernel "$dir/root" "$dir/bookworm-backports"
	sed 's/%3a/:/; s/\.deb$//' "$dir/root/packages" >"$dir/packages"
}

# other_kernel SUITE: of the tree that it comes in, only kernel and modules are kept.
other_kernel() {
	discard "$dir/$1.root"
	echo "deb $mirror $1 main" | bootstrap "$1" "$dir/$1.root" --variant=extract --include=linux-image-cloud-amd64 >&2
	take_kernel "$dir/$1.root" "$dir/$1"
	discard "$dir/$1.root"
}

# take_kernel ROOT TO
take_kernel() {
	local name path vmlinuz i=10
	discard "$2"
	mkdir -p "$2/modules"
	for name in "${modules[@]}"; do
		path=$(find "$1" -name "$name.ko*" -print -quit)
		[ -n "$path" ] || continue # built into this kernel, or gone from it: the guest will tell
		case $path in
		*.xz) xz -dc "$path" >"$2/modules/$i-$name.ko" ;;
		*.zst) zstd -qdc "$path" >"$2/modules/$i-$name.ko" ;;
		*) cp "$path" "$2/modules/$i-$name.ko" ;;
		esac
		i=$((i + 1))
	done
	# Beside its modules since 6.19, in /boot before.
	vmlinuz=$(find "$1" -name 'vmlinuz*' -type f -print -quit)
	[ -n "$vmlinuz" ] || die "no kernel in the packages of $kernel"
	cp "$vmlinuz" "$2/vmlinuz"
}

complete() { [ -f "$dir/packages" ] && [ -f "$dir/$kernel/vmlinuz" ]; }

if ! complete; then
	need mmdebstrap mmdebstrap xz xz-utils flock util-linux
	lock "$dir"
fi
if ! complete; then # nor did the run that was waited for make it
	mirror=$(debian_mirror)
	dir=$(cd "$dir" && pwd)
	[ -f "$dir/packages" ] && [ -f "$dir/bookworm-backports/vmlinuz" ] || machine
	[ -f "$dir/$kernel/vmlinuz" ] || other_kernel "$kernel"
fi
echo "$dir"
