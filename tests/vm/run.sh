#!/bin/bash
# Boots a virtual machine whose /init is a static program, and tells what that said. No privilege is needed.
#
#   tests/vm/run.sh [-k KERNEL] [-d DISK]... [-t SECONDS] [-w SECONDS] [-l LOG] INIT [FILE...]
#
#   INIT      the program that becomes /init; it mounts what it needs, loads /modules/*.ko in order, and powers off
#   FILE      more files, put into the guest's / under their own names
#   -k KERNEL as tests/vm/setup.sh has them; bookworm-backports if not said
#   -d DISK   a raw file system image: /dev/vda, the next one /dev/vdb and so on; changes are thrown away
#   -t        seconds until the machine is switched off, 120 if not said
#   -w        seconds without a line until it is switched off, 90 if not said. A machine that has said nothing at all by then
#             is booted once more, which is reported: the emulator is to blame then, not what is tested
#   -l LOG    where the kernel's console goes, which is shown if the guest doesn't come to its end
#
# What INIT writes to /dev/hvc0 is printed as it comes; no message of the kernel can get between. The last line must be
# "exit N", which becomes the exit code: that of QEMU says nothing. Without it it is 125.
# The emulation is in software, since the kernel isn't a guest of every hypervisor's /dev/kvm; a boot takes 5 to 10 s.
set -euo pipefail

vm=${FLATROOT_VM:-/var/cache/flatroot-vm}
disks=() seconds=120 silence=90 kernel=bookworm-backports log=''
while getopts k:d:t:w:l: o; do
	case $o in
	k) kernel=$OPTARG ;;
	d) disks+=("$OPTARG") ;;
	t) seconds=$OPTARG ;;
	w) silence=$OPTARG ;;
	l) log=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { sed -n '4s/^# *//p' "$0" >&2; exit 2; }
[ -f "$vm/$kernel/vmlinuz" ] || { echo "run.sh: no kernel $kernel in $vm: run tests/vm/setup.sh" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ -n "$log" ] || log=$work/console
mkdir -p "$work"/root/{dev,proc,sys,tmp,mnt}
cp -r "$vm/$kernel/modules" "$work/root/"
cp "$1" "$work/root/init"
chmod 755 "$work/root/init"
[ $# = 1 ] || cp -r "${@:2}" "$work/root/"
(cd "$work/root" && find . -print0 | LC_ALL=C sort -z | "$vm/bin/cpio" --null -o -H newc --quiet) >"$work/initramfs"

devices=()
for i in "${!disks[@]}"; do
	devices+=(-drive "if=none,id=d$i,file=${disks[$i]},format=raw,cache=unsafe,snapshot=on" -device "virtio-blk-pci,drive=d$i")
done

# machine is QEMU, which writes what INIT says.
machine() {
	exec timeout "$seconds" "$vm/bin/qemu-system-x86_64" -accel tcg,thread=multi,tb-size=256 -M q35 -cpu max -smp 1 -m 1024 \
		-nodefaults -vga none -display none -no-reboot -serial "file:$log" \
		-chardev stdio,id=said,signal=off -device virtio-serial-pci -device virtconsole,chardev=said \
		-device virtio-rng-pci ${devices+"${devices[@]}"} -kernel "$vm/$kernel/vmlinuz" -initrd "$work/initramfs" \
		-append 'console=ttyS0 quiet panic=-1 random.trust_cpu=1' </dev/null 2>"$work/qemu"
}

# boot prints what the machine says until that ends, and sets lines, last, and ended: how it came to its end.
boot() {
	local line status
	lines=0 last='' ended='of itself'
	exec {said}< <(machine)
	pid=$!
	while :; do
		status=0
		IFS= read -r -t "$silence" -u "$said" line || status=$?
		if [ "$status" = 0 ] || [ -n "$line" ]; then
			last=${line%$'\r'}
			lines=$((lines + 1))
			printf '%s\n' "$last"
		elif [ "$status" -gt 128 ]; then # bash: a time-out of read
			ended="after $silence s of silence"
			kill "$pid" 2>/dev/null || true
			break
		else
			break
		fi
	done
	exec {said}<&-
	wait "$pid" || [ $? != 124 ] || ended="after $seconds s"
}

boot
if [ $lines = 0 ] && [ "$ended" != 'of itself' ]; then
	echo "run.sh: the machine was switched off $ended, without having said anything; it is booted once more" >&2
	cat "$work/qemu" "$log" >&2
	boot
fi
code=${last#exit }
if ! [[ $last =~ ^exit\ [0-9]+$ ]]; then
	cat "$work/qemu" "$log" >&2
	echo "run.sh: the guest didn't come to its end; the machine ended $ended, its last line: $last" >&2
	exit 125
fi
exit "$code"
