// Package keeper has the processes around the FUSE server of package fuse.
//
// Words: the starter is the process that mounts, and calls [Start]. It spawns the
// keeper, which spawns the server. A server answers the session's requests; the
// keeper owns the session. All three are one program: the keeper and the server
// are it once more, from /proc/self/exe, and are told by their arguments, which is
// why main calls [Main] first.
//
//	starter ── status pipe ──▶ keeper ── control socket, pipe for messages ──▶ server
//	(ends)                     session, image, objects                         clones, image, objects
//
// A session ends with the last of its /dev/fuse descriptors. The keeper has the
// one that the mount was made with and shows it to nobody; each server gets clones
// of it, of which the keeper has duplicates. A request that a server has read
// belongs to the clone that it was read from, so when a server dies nothing happens
// to the request. The keeper has the kernel send it again (FUSE_NOTIFY_RESEND,
// Linux 6.9), and starts another server, with the same clones, which goes on with
// the session. Readers wait meanwhile, about as long as a program takes to start,
// and see no error.
//
// Signals, to the keeper:
//
//	SIGHUP   a server from the program that is now at the path that the keeper was
//	         started from takes over; then the keeper becomes that program too. If
//	         the new server doesn't come up, all stays as it was. Without passthrough
//	         both servers answer for a moment, and nobody waits.
//	SIGTERM  ignored, as SIGINT and SIGQUIT: the session ends by unmounting. What
//	         stops a unit of systemd's unmounts first, and kills what stays.
//	SIGKILL  ends the session: requests fail with ECONNABORTED and ENOTCONN, and the
//	         file system has to be unmounted. The server notices, and ends.
//
// A signal that ends the server is a crash like any other.
//
// A server that was killed is not dead while the kernel has one of its threads wait
// without a way out, as for a disk that doesn't answer. Readers wait until it is.
//
// What ends a session besides unmounting: servers that die one after another, as
// soon as they run (see restarts); a server that dies where the kernel is older
// than 6.9, or with [Options].NoRestart. Requests that the server had in hand would
// never be answered, so the keeper closes everything, and all readers get errors
// instead of waiting for ever.
//
// Invariants: neither process has a descriptor that isn't listed in its state, an
// environment (but GOMAXPROCS for the keeper), a working directory besides /, a
// controlling terminal, or a capability that nobody needs. The keeper never looks
// at the file system that it keeps and never waits for it. While a server runs the
// keeper sleeps: it doesn't poll the device, which would wake it at each request.
//
// The keeper stays in the mount namespace of the starter and keeps that alive, as
// every FUSE server does: a namespace whose mounts should go with its last process
// has to be unmounted explicitly.
package keeper
