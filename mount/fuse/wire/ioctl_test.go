package wire

import (
	"runtime"
	"testing"
)

// The numbers on machines whose ioctls are those of asm-generic.
func TestIoctls(t *testing.T) {
	switch runtime.GOARCH {
	case "ppc64", "ppc64le", "mips", "mipsle", "mips64", "mips64le":
		if IoctlClone != 0x4004e500 || IoctlBackingOpen != 0x8010e501 || IoctlBackingClose != 0x8004e502 {
			t.Errorf("ioctls %#x, %#x, %#x", IoctlClone, IoctlBackingOpen, IoctlBackingClose)
		}
	default:
		if IoctlClone != 0x8004e500 || IoctlBackingOpen != 0x4010e501 || IoctlBackingClose != 0x4004e502 {
			t.Errorf("ioctls %#x, %#x, %#x", IoctlClone, IoctlBackingOpen, IoctlBackingClose)
		}
	}
}
