// Command flatroot pulls OCI images, makes of each one small EROFS image whose fs-verity digest names the whole tree, and
// mounts it. Run under the name mkcomposefs or composefs-info it is that tool.
//
// Each command has a file: its flags, its help and its function runX, which is given everything it needs and exits
// nowhere. From the same definitions come --help, the manual pages and the completion of shells.
//
// Words: the store is the composefs repository that --store names; a name is an image's name there; a SPEC, or any
// argument that stands for an image, is a path if it begins with / or ., a digest if it is 64 or 128 hex digits.
//
// Invariants: results go to standard output and all else to standard error; nothing is done before the command line is
// found to be right; a flag is never dropped, wherever it stands; bytes of others reach a terminal as text only.
package main

import (
	"os"
	"path/filepath"

	"github.com/flatroot/flatroot/mount/fuse/keeper"
	"github.com/flatroot/flatroot/oci/cstorage"
)

func main() {
	if cstorage.Helper() {
		return
	}
	if code, is := keeper.Main(os.Args); is {
		os.Exit(code)
	}
	args := os.Args[1:]
	switch filepath.Base(os.Args[0]) {
	case "mkcomposefs":
		os.Exit(mkcomposefsMain(args, os.Stdin, os.Stdout, os.Stderr))
	case "composefs-info":
		os.Exit(composefsInfoMain(args, os.Stdout, os.Stderr))
	}
	os.Exit(flatrootMain(args, console{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}))
}
