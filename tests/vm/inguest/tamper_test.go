package inguest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
)

// victim is a store to tamper with, on a disk of its own.
type victim struct {
	dir    string
	digest fsverity.Digest // of the image
	intact snapshot        // of the mounted image

	unmountDisk func()
}

// newVictim pulls the sample. The disk has no other store.
func newVictim(t *testing.T, ref string) *victim {
	t.Helper()
	disk, unmount := mountDisk(t, verityDisk)
	v := &victim{dir: filepath.Join(disk, "store"), unmountDisk: unmount}
	must(t, os.RemoveAll(v.dir))
	var err error
	v.digest, err = fsverity.ParseDigest(pulled(t, v.dir, "require", ref))
	must(t, err)
	target := t.TempDir()
	mountName(t, v.dir, target, "verity=require")
	v.intact = take(t, target)
	flatroot(t, "umount", target)
	return v
}

func (v *victim) path(d fsverity.Digest) string {
	return filepath.Join(v.dir, "objects", d.ObjectPath())
}
func (v *victim) image() string { return v.path(v.digest) }

func (v *victim) object(name string) string {
	return v.path(fsverity.Sum(v.digest.Algorithm(), big[name]))
}

// again mounts the disk anew, so that nothing of it is in memory.
func (v *victim) again(t *testing.T) {
	t.Helper()
	v.unmountDisk()
	disk, unmount := mountDisk(t, verityDisk)
	v.dir, v.unmountDisk = filepath.Join(disk, "store"), unmount
}

// plant puts another file in an object's place, with fs-verity of the algorithm unless that is 0.
func plant(t *testing.T, path string, content []byte, a fsverity.Algorithm) {
	t.Helper()
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		must(t, err)
	}
	must(t, os.WriteFile(path, content, 0o644))
	if a == 0 {
		return
	}
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, fsverity.Enable(f, a))
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// changed is content of the same length with one bit another.
func changed(content []byte) []byte {
	b := bytes.Clone(content)
	b[len(b)/2] ^= 1
	return b
}

// tampering is a way to damage a store, and what has to come of it.
type tampering struct {
	name    string
	damage  func(t *testing.T, v *victim)
	refused string // what the mount says; empty: it succeeds
	byPath  string // what a mount of the image's path with its digest says; empty: not tried
	// errno is what reading /big ends with, and nothing but /big, if the mount succeeds.
	errno unix.Errno
}

// filesTampered is done with ordinary means by somebody who may write to the store.
var filesTampered = []tampering{
	{name: "object with other content and fs-verity", errno: unix.EIO, damage: func(t *testing.T, v *victim) {
		plant(t, v.object("big"), changed(big["big"]), fsverity.SHA256)
	}},
	{name: "object with other content, without fs-verity", errno: unix.EIO, damage: func(t *testing.T, v *victim) {
		plant(t, v.object("big"), changed(big["big"]), 0)
	}},
	{name: "object without fs-verity", errno: unix.EIO, damage: func(t *testing.T, v *victim) {
		plant(t, v.object("big"), big["big"], 0)
	}},
	{name: "object with fs-verity of another hash", errno: unix.EIO, damage: func(t *testing.T, v *victim) {
		plant(t, v.object("big"), big["big"], fsverity.SHA512)
	}},
	{name: "object cut short", errno: unix.EIO, damage: func(t *testing.T, v *victim) {
		plant(t, v.object("big"), big["big"][:bigSize-1], fsverity.SHA256)
	}},
	{name: "another object in the place of one", errno: unix.EIO, damage: func(t *testing.T, v *victim) {
		must(t, os.Rename(v.object("dir/small"), v.object("big")))
		plant(t, v.object("dir/small"), big["dir/small"], fsverity.SHA256)
	}},
	{name: "object missing", errno: unix.ENOENT, damage: func(t *testing.T, v *victim) {
		must(t, os.Remove(v.object("big")))
	}},
	{name: "another image with fs-verity", refused: "digest", byPath: "as asked", damage: func(t *testing.T, v *victim) {
		plant(t, v.image(), changed(read(t, v.image())), fsverity.SHA256)
	}},
	{name: "another image without fs-verity", refused: "fs-verity", byPath: "fs-verity", damage: func(t *testing.T, v *victim) {
		plant(t, v.image(), changed(read(t, v.image())), 0)
	}},
	{name: "image without fs-verity", refused: "fs-verity", byPath: "fs-verity", damage: func(t *testing.T, v *victim) {
		plant(t, v.image(), read(t, v.image()), 0)
	}},
	{name: "image missing", refused: "pull it again", damage: func(t *testing.T, v *victim) {
		must(t, os.Remove(v.image()))
	}},
	{name: "image's entry leads to another object", refused: "pull it again", damage: func(t *testing.T, v *victim) {
		entry := filepath.Join(v.dir, "images", v.digest.String())
		must(t, os.Remove(entry))
		must(t, os.Symlink("../objects/"+fsverity.Sum(fsverity.SHA256, big["big"]).ObjectPath(), entry))
	}},
}

// TestTamperedFiles mounts damaged stores: what is damaged can't be read, and all else can.
func TestTamperedFiles(t *testing.T) {
	needGuest(t)
	ref := layout(t)
	for _, row := range filesTampered {
		t.Run(row.name, func(t *testing.T) {
			v := newVictim(t, ref)
			row.damage(t, v)
			v.again(t)
			for _, policy := range []string{"require", "auto"} {
				row.check(t, v, policy)
			}
		})
	}
}

func (row *tampering) check(t *testing.T, v *victim, policy string) {
	t.Helper()
	target := t.TempDir()
	_, err := tryFlatroot("mount", "os:1", target, "--store", v.dir, "-o", "verity="+policy)
	if row.refused != "" {
		wantRefused(t, err, row.refused)
		if row.byPath != "" {
			_, err = tryFlatroot("mount", v.image(), target, "-o", "verity=require,digest="+v.digest.String()+",basedir="+v.dir+"/objects")
			wantRefused(t, err, row.byPath)
		}
		return
	}
	must(t, err)
	defer flatroot(t, "umount", target)
	failed := v.intact.compare(t, target)
	if len(failed) != 1 || !errors.Is(failed["big"], row.errno) {
		t.Errorf("verity=%s: reading fails as %v, want big alone and %v", policy, failed, row.errno)
	}
}

func wantRefused(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("%v, want it refused: %q", err, text)
	}
}

// TestFlippedObjects changes single bits on the disk: each block is right or an error, and the one that was hit is an error.
func TestFlippedObjects(t *testing.T) {
	needGuest(t)
	ref := layout(t)
	const treeBlock = fsverity.BlockSize
	for _, row := range []struct {
		name string
		at   func(t *testing.T, object string) int64 // in the file
		hit  int                                     // a block that can't be read any more
	}{
		{"first block of data", func(*testing.T, string) int64 { return 0 }, 0},
		{"a block of data", func(*testing.T, string) int64 { return 77*fsverity.BlockSize + 1234 }, 77},
		{"last byte", func(*testing.T, string) int64 { return bigSize - 1 }, 150},
		// The root comes first, then the blocks of leaves: the second one has blocks 128 to 150.
		{"root of the Merkle tree", func(t *testing.T, o string) int64 { return merkleOf(t, o) }, 0},
		{"leaf of the Merkle tree", func(t *testing.T, o string) int64 { return merkleOf(t, o) + 2*treeBlock + 32 }, 129},
	} {
		t.Run(row.name, func(t *testing.T) {
			v := newVictim(t, ref)
			at := blockOf(t, v.object("big"), row.at(t, v.object("big")))
			v.unmountDisk()
			flipBit(t, verityDisk, at)
			v.again(t)
			target := t.TempDir()
			mountName(t, v.dir, target, "verity=require")
			defer flatroot(t, "umount", target)
			failed := readBlocks(t, filepath.Join(target, "big"), big["big"])
			t.Logf("%d of %d blocks fail", len(failed), (bigSize+fsverity.BlockSize-1)/fsverity.BlockSize)
			if !errors.Is(failed[row.hit], unix.EIO) {
				t.Errorf("block %d: %v, want EIO", row.hit, failed[row.hit])
			}
			delete(v.intact, "big")
			if others := v.intact.compare(t, target); len(others) > 0 {
				t.Errorf("more than the damaged object fails: %v", others)
			}
		})
	}
}

// readBlocks reads a file block by block, which must be right or fail, and returns the failures.
func readBlocks(t *testing.T, path string, want []byte) map[int]error {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	failed := map[int]error{}
	buf := make([]byte, fsverity.BlockSize)
	for i := 0; i*fsverity.BlockSize < len(want); i++ {
		part := want[i*fsverity.BlockSize:]
		part = part[:min(len(part), len(buf))]
		if n, err := f.ReadAt(buf[:len(part)], int64(i*fsverity.BlockSize)); err != nil {
			failed[i] = err
		} else if !bytes.Equal(buf[:n], part) {
			t.Errorf("WRONG DATA in block %d", i)
		}
	}
	return failed
}

// TestFlippedImage changes a bit in each block of the image and its Merkle tree: the mount is refused, or what lies in the
// block can't be seen.
func TestFlippedImage(t *testing.T) {
	needGuest(t)
	v := newVictim(t, layout(t))
	var offsets []int64
	for at := int64(1024 + 5); at < sizeOf(t, v.image()); at += fsverity.BlockSize {
		offsets = append(offsets, at)
	}
	offsets = append(offsets, merkleOf(t, v.image()))
	t.Logf("image of %d bytes", sizeOf(t, v.image()))
	for _, offset := range offsets {
		t.Run(fmt.Sprint(offset), func(t *testing.T) {
			v.again(t)
			at := blockOf(t, v.image(), offset)
			v.unmountDisk()
			flipBit(t, verityDisk, at)
			defer func() {
				v.unmountDisk()
				flipBit(t, verityDisk, at)
			}()
			v.again(t)
			target := t.TempDir()
			_, err := tryFlatroot("mount", "os:1", target, "--store", v.dir, "-o", "verity=require")
			if err != nil {
				t.Log(err)
				return
			}
			defer flatroot(t, "umount", target)
			failed := v.intact.compare(t, target)
			t.Logf("%d of %d paths fail", len(failed), len(v.intact))
			if len(failed) == 0 {
				t.Error("nothing fails")
			}
		})
	}
	v.again(t)
	target := t.TempDir()
	mountName(t, v.dir, target, "verity=require")
	defer flatroot(t, "umount", target)
	if failed := v.intact.compare(t, target); len(failed) > 0 {
		t.Errorf("with all bits flipped back: %v", failed)
	}
}
