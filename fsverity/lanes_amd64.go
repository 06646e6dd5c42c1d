//go:build !purego

package fsverity

import "golang.org/x/sys/cpu"

// lanes is the number of blocks that sha256Lanes4 hashes at once, in a little
// more than twice the time of one.
const lanes = 4

// haveLanes is whether this processor has the instructions.
var haveLanes = cpu.X86.HasSSSE3 && cpu.X86.HasSSE41 && hasSHA()

// hasSHA asks the processor itself, since package cpu doesn't know the SHA
// extensions: CPUID leaf 7, EBX bit 29 (Intel SDM volume 2A, CPUID).
func hasSHA() bool {
	if maxLeaf, _, _, _ := cpuid(0, 0); maxLeaf < 7 {
		return false
	}
	_, ebx, _, _ := cpuid(7, 0)
	return ebx&(1<<29) != 0
}

// sha256Lanes4 writes the SHA-256 of four blocks to dst, one behind the other.
// It must not be called without haveLanes.
//
//go:noescape
func sha256Lanes4(dst *[lanes * sizeSHA256]byte, b0, b1, b2, b3 *block)

// cpuid runs the instruction of that name.
func cpuid(leaf, sub uint32) (eax, ebx, ecx, edx uint32)

// hashLanes does the part of hashBlocks with SHA-256 that pays to be done in
// lanes, and returns what is left of its arguments. Three blocks pay too, with
// one lane doing a block over again; two take as long one by one.
func hashLanes(dst []byte, head *block, body []byte) ([]byte, *block, []byte) {
	if !haveLanes {
		return dst, head, body
	}
	for {
		var b [lanes]*block
		n, rest := 0, body
		if head != nil {
			b[0], n = head, 1
		}
		for ; n < lanes && len(rest) > 0; n++ {
			b[n], rest = (*block)(rest), rest[BlockSize:]
		}
		if n < lanes-1 {
			return dst, head, body
		}
		if n < lanes {
			b[n] = b[0]
		}
		var hashes [lanes * sizeSHA256]byte
		sha256Lanes4(&hashes, b[0], b[1], b[2], b[3])
		dst = dst[copy(dst, hashes[:n*sizeSHA256]):]
		head, body = nil, rest
	}
}
