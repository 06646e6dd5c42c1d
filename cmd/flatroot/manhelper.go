package main

import "github.com/flatroot/flatroot/mount"

// mountHelperPage is the page of mount.flatroot, a program of its own that shows no page itself.
func mountHelperPage() *page {
	p := &page{name: "mount.flatroot", usage: "mount an image for mount(8)", section: 8}
	p.synopsis = []string{
		"mount -t flatroot SPEC DIR [-o OPTIONS]",
		"mount.flatroot SPEC DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [--dry-run] [--json] [--foreground]",
		"umount.flatroot DIR [-flnrv]",
	}
	p.add("DESCRIPTION", paragraphs(aboutMountHelper))
	p.add("FLAGS", []block{
		{term: "-o OPTIONS", text: "mount with OPTIONS, separated by commas; a backslash takes the next character as it is"},
		{term: "-f, --dry-run", text: "do everything but mount; with -v say what would be done, with --json print it as a mount specification"},
		{term: "-v", text: "say what is done, and what is checked"},
		{term: "-s", text: "ignore options that are not known"},
		{term: "-n", text: "as mount(8) has it; there is nothing to write to mtab"},
		{term: "-N NAMESPACE", text: "mount in this mount namespace"},
		{term: "--foreground", text: "serve a mount of FUSE until it is unmounted, and tell a service manager when it is ready"},
	})
	var options []block
	for _, o := range mount.OptionDocs() {
		options = append(options, block{term: o.Form, text: o.Text})
	}
	p.add("OPTIONS", options)
	p.add("EXAMPLES", []block{
		{text: "by hand", code: "mount -t flatroot web /srv/web -o store=/srv/images,verity=require"},
		{text: "a line of fstab", code: "web /srv/web flatroot ro,nodev,store=/srv/images 0 0"},
		{text: "with changes that outlive the mount", code: "mount -t flatroot web /srv/web -o upperdir=/srv/upper,workdir=/srv/work"},
		{text: "for systemd, in srv-web.mount", code: "[Mount]\nWhat=web\nWhere=/srv/web\nType=flatroot\nOptions=ro,nodev"},
	})
	p.add("EXIT STATUS", exitBlocks([]exit{
		{0, "Mounted."}, {1, "Wrong usage, or no permission."}, {2, "A resource is missing: memory, descriptors, loop devices."},
		{32, "The mount failed."}, {-1, "As mount.composefs every failure is 1."},
	}))
	p.add("FILES", []block{{term: "/var/lib/flatroot", text: "the store of root"}})
	return p
}

// umountHelperPage is the page of the same program under its other name.
func umountHelperPage() *page {
	p := &page{name: "umount.flatroot", usage: "unmount an image for umount(8)", section: 8}
	p.synopsis = []string{"umount.flatroot DIR [-flnrv] [-N NAMESPACE] [-t TYPE]"}
	p.add("DESCRIPTION", paragraphs(`Ends the mount of an image on DIR, by umount(2), or by fusermount3 where the user may not. umount(8) calls it, as umount.fuse.flatroot too, and can do without it as root.`))
	p.add("FLAGS", []block{
		{term: "-l", text: "take the mount away now, and end it when nobody uses it any more"},
		{term: "-f", text: "unmount whatever is mounted there"},
		{term: "-N NAMESPACE", text: "unmount in this mount namespace"},
		{term: "-n, -r, -v, -t TYPE", text: "as umount(8) has them; they change nothing"},
	})
	p.add("EXAMPLES", []block{{text: "by hand", code: "umount.flatroot /srv/web"}})
	p.add("EXIT STATUS", exitBlocks([]exit{{0, "Unmounted."}, {1, "Wrong usage, or no permission."}, {32, "Not unmounted."}}))
	return p
}

const aboutMountHelper = `mount(8) calls this program for file systems of type flatroot, also those in fstab(5) and in units of systemd.mount(5). SPEC is the path of an EROFS image if it begins with / or ., the digest of an image in the store if it is 64 or 128 hex digits, else an image's name in the store.

The program is static, knows nothing of registries and is made for the initramfs too, where it needs /proc, /dev and for a mount by FUSE /dev/fuse. Called as mount.composefs it is that tool: SPEC is a path, and the option basedir is needed unless store is given.

Options that are the business of mount(8), systemd or other readers of fstab are accepted: defaults, auto, noauto, nofail, _netdev, comment=, x-*, X-*, those about access times; user, users, owner and group mean nosuid, nodev and noexec as mount(8) has them. Unknown options are errors. Without a writable layer a mount is read-only, and rw is answered by a line saying so.

A mount that checks less than the digest could promise says so, and why; flatroot-doctor(1) says what would change that.

Called as umount.flatroot or umount.fuse.flatroot, the program unmounts for umount(8), with fusermount3 where the user may not unmount himself.`
