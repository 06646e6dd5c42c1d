// Package mount mounts composefs images and finds, lists and ends such mounts.
//
// A mount goes through four steps: a Request says what is wanted; Probe finds
// out, by trying, what this kernel and these files can do (Features); NewPlan,
// a pure function, makes a Plan of the two or refuses; Plan.Do carries it out.
// The plan is data: it can be printed before anything is done, and it says
// which Verification the mount will have. Ladder tells the same of all the ways
// of mounting, for people; Plan.Spec tells other programs what to mount.
//
// Words: the image is the EROFS file that holds the tree's metadata; objects
// are the files with the content, found by fs-verity digest in one or more
// object directories; native means that the kernel's EROFS and overlayfs
// (the image as lower layer, the object directories as data-only layers) serve
// everything. The other modes, hybrid and fuse, have their names here and their
// place in the ladder of NewPlan.
//
// Invariants:
//
//   - The image is opened once, by the caller. What is measured or hashed and
//     what is mounted is that descriptor, or a sealed copy made from it that
//     was hashed after sealing. No path is opened a second time.
//   - A wrong digest never mounts, whatever the policy.
//   - A policy is met or the request is refused: falling back to an older
//     kernel interface never changes what is checked.
//   - When Do fails nothing is left: no mount, no loop device, no directory. A
//     server that was started ends, since its session does.
package mount
