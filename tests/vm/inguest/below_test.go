package inguest

import (
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
)

// Of linux/fs.h and fs/ext4/verity.c.
const (
	fibmap = 1 // FIBMAP, _IO(0, 1)
	// ext4 keeps a file's Merkle tree behind its data, from the next multiple of 64 KiB on.
	merkleAlign = 64 << 10
)

// blockOf is where on the disk the file has the byte at offset, which may be one of its Merkle tree.
func blockOf(t *testing.T, path string, offset int64) int64 {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, f.Sync()) // blocks are given out when they are written
	block := int32(offset / fsverity.BlockSize)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fibmap, uintptr(unsafe.Pointer(&block)))
	if errno != 0 || block <= 0 {
		t.Fatalf("block of %s at %d: %d, %v", path, offset, block, errno)
	}
	return int64(block)*fsverity.BlockSize + offset%fsverity.BlockSize
}

// merkleOf is the offset at which the file's Merkle tree begins.
func merkleOf(t *testing.T, path string) int64 {
	t.Helper()
	return (sizeOf(t, path) + merkleAlign - 1) &^ (merkleAlign - 1)
}

func sizeOf(t *testing.T, path string) int64 {
	t.Helper()
	fi, err := os.Stat(path)
	must(t, err)
	return fi.Size()
}

// flipBit changes one bit of a disk that isn't mounted.
func flipBit(t *testing.T, device string, at int64) {
	t.Helper()
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	must(t, err)
	b[0] ^= 0x10
	_, err = f.WriteAt(b, at)
	must(t, err)
	must(t, f.Sync())
}
