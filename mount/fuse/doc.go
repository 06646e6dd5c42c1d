// Package fuse serves a composefs image as a FUSE file system.
//
// A [Server] answers the requests of one session from the image alone. It keeps no table of inodes: a node ID is the nid
// of an inode, but for the root's, and a place in a directory is a cookie. So nothing is lost when a server ends: any other
// server of the same image can go on with the session ([Server.Resume]). With passthrough the kernel wants to be told again
// what it was told about files that are still open; that is in a memory file which outlives servers ([NewLedger]).
//
// The image is mapped, or read block by block and checked (mount.ImageBlocks). Which part of it is shown is the mount.View:
//
//   - plain is what a native mount shows, attribute for attribute: no character devices 0:0 (whiteouts), no
//     trusted.overlay.* xattrs, those that composefs escaped under their own names, and the data of backed files from the
//     objects. A whiteout of the tree is the empty file with marks that composefs made of it, as in native mounts.
//   - overlay is everything as it is stored, for overlayfs above it.
//   - useroverlay is the same for overlayfs with the option userxattr: see view.go for what becomes of xattrs.
//
// In all views the names of trusted.* xattrs are listed for everybody, since requests don't tell who asks; their values
// are guarded by the kernel, as anywhere.
//
// Everything is cached for ever: the file system never changes. OPEN and OPENDIR are answered ENOSYS, after which the kernel
// doesn't ask any more, so a missing or damaged object is noticed by the first READ, which fails with EIO, and is named in
// the log. With passthrough OPEN is answered, and the kernel reads the object itself.
//
// The mount must have the option default_permissions: the server checks no permissions.
//
// Invariants:
//
//   - A request that was taken from a device is answered, whatever happens, unless the process dies.
//   - Nothing in an image or a request makes the server panic; a mapped image that became shorter gives EIO.
//   - The most frequent requests allocate nothing, and no request allocates more than the reply that it asks for, which is
//     at most 1 MiB.
//   - A server's own goroutines never touch its mount: nobody would answer them.
package fuse
