#!/bin/bash
# Boots a virtual machine whose /init is a static program, and tells what that said. No privilege is needed.
#
#   tests/vm/run.sh [-d DISK] [-t SECONDS] [-a APPEND] [-l LOG] INIT [FILE...]
#
#   INIT      the program that becomes /init; it mounts what it needs, loads /modules/*.ko in order, and powers off
#   FILE      more files, put into the guest's / under their own names
#   -d DISK   a raw file system image, the guest's /dev/vda; changes are thrown away
#   -t        seconds until the machine is switched off, 120 if not said
#   -a        words for the kernel's command line, which INIT finds in /proc/cmdline
#   -l LOG    where the whole console goes
#
# Of the console only lines that begin "VM: " count. They are printed without that, and the last one must be "VM: exit N",
# which becomes the exit code: that of QEMU says nothing. Without such a line it is 125, and the console is printed.
# The emulation is in software, since the kernel isn't a guest of every hypervisor's /dev/kvm; a boot takes 5 to 10 s.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
vm=${FLATROOT_VM:-/var/cache/flatroot-vm}
disk='' seconds=120 append='' log=''
while getopts d:t:a:l: o; do
	case $o in
	d) disk=$OPTARG ;;
	t) seconds=$OPTARG ;;
	a) append=$OPTARG ;;
	l) log=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { sed -n '4s/^# *//p' "$0" >&2; exit 2; }
[ -f "$vm/packages" ] || { echo "run.sh: no virtual machine in $vm: run tests/vm/setup.sh" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/root/{dev,proc,sys,tmp,mnt}
cp -r "$vm/modules" "$work/root/"
cp "$1" "$work/root/init"
chmod 755 "$work/root/init"
[ $# = 1 ] || cp -r "${@:2}" "$work/root/"
(cd "$work/root" && find . -print0 | LC_ALL=C sort -z | "$vm/bin/cpio" --null -o -H newc --quiet) >"$work/initramfs"

drive=()
[ -z "$disk" ] || drive=(-drive "if=none,id=d,file=$disk,format=raw,cache=unsafe,snapshot=on" -device virtio-blk-pci,drive=d)
timeout "$seconds" "$vm/bin/qemu-system-x86_64" -accel tcg,thread=multi,tb-size=256 -M q35 -cpu max -smp 1 -m 1024 \
	-nodefaults -vga none -display none -serial stdio -no-reboot -device virtio-rng-pci ${drive+"${drive[@]}"} \
	-kernel "$vm/vmlinuz" -initrd "$work/initramfs" -append "console=ttyS0 quiet panic=-1 random.trust_cpu=1 $append" \
	</dev/null >"$work/console" 2>&1 || true
[ -z "$log" ] || cp "$work/console" "$log"

tr -d '\r' <"$work/console" | sed -n 's/^VM: //p' >"$work/said"
code=$(tail -n 1 "$work/said" | sed -n 's/^exit \([0-9]*\)$/\1/p')
if [ -z "$code" ]; then
	cat "$work/console" >&2
	echo "run.sh: the guest didn't end within $seconds s, or said nothing" >&2
	exit 125
fi
cat "$work/said"
exit "$code"
