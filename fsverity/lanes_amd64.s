//go:build !purego

#include "textflag.h"

// SHA-256 of four independent 4096-byte blocks, interleaved. SHA256RNDS2 takes
// the result of the one before it, and waiting for that leaves the unit idle
// half of the time when it works on one message; rounds of other messages fit
// into the gaps. More than four do not fit into the registers, and gain nothing:
// the unit is busy all the time.
//
// The names are those of FIPS 180-4: a to h the working variables, W the message
// schedule, K the constants. The instructions want the variables packed as abef
// and cdgh, highest word first. A quad is four words of W in one register: what
// four rounds take.
//
// Registers:
//	X0        W+K, the implicit operand of SHA256RNDS2
//	X1 to X8  abef and cdgh of lanes 0 to 3
//	X9 to X12 the last quad of W of lanes 0 to 3; it feeds the next one, and
//	          through memory that would take too long
//	X13, X14  scratch
//	X15       mask that swaps the bytes of each word
//	R8        frame, aligned to 16 bytes for memory operands
//	R9 to R12 the lanes' blocks, BX the offset of the chunk in them
//	AX        where in the table of K we are, CX counter
//
// Frame: the last sixteen words of W, 64 bytes per lane, then the variables as
// they were before the chunk, 32 bytes per lane.
#define W(lane, quad) (lane*64+quad*16)(R8)
#define SAVED(lane, half) (256+lane*32+half*16)(R8)

// CHUNK saves the variables and brings 64 bytes of block into W; last gets the
// last quad.
#define CHUNK(lane, block, abef, cdgh, last) \
	SAVE(lane, abef, cdgh)         \
	MOVOU  0(block)(BX*1), X13     \
	MOVOU  16(block)(BX*1), X14    \
	PSHUFB X15, X13                \
	PSHUFB X15, X14                \
	MOVO   X13, W(lane, 0)         \
	MOVO   X14, W(lane, 1)         \
	MOVOU  32(block)(BX*1), X13    \
	MOVOU  48(block)(BX*1), last   \
	PSHUFB X15, X13                \
	PSHUFB X15, last               \
	MOVO   X13, W(lane, 2)         \
	MOVO   last, W(lane, 3)

// ROUNDS does four rounds with the W+K in X0.
#define ROUNDS(abef, cdgh) \
	SHA256RNDS2 X0, abef, cdgh \
	PSHUFD      $0x0e, X0, X0  \
	SHA256RNDS2 X0, cdgh, abef

// QUAD does the four rounds of a quad of W.
#define QUAD(lane, k, w0, abef, cdgh) \
	MOVO  W(lane, w0), X0 \
	PADDL k(AX), X0       \
	ROUNDS(abef, cdgh)

// EXTEND replaces quad w0 by the quad that follows last, and last by that.
#define EXTEND(lane, w0, w1, w2, last) \
	MOVO       W(lane, w0), X13     \
	MOVO       last, X14            \
	SHA256MSG1 W(lane, w1), X13     \
	PALIGNR    $4, W(lane, w2), X14 \
	PADDL      X14, X13             \
	SHA256MSG2 last, X13            \
	MOVO       X13, W(lane, w0)     \
	MOVO       X13, last

#define QUAD4(k, w0) \
	QUAD(0, k, w0, X1, X2) \
	QUAD(1, k, w0, X3, X4) \
	QUAD(2, k, w0, X5, X6) \
	QUAD(3, k, w0, X7, X8)

#define QUADEXTEND4(k, w0, w1, w2) \
	QUAD(0, k, w0, X1, X2)     \
	EXTEND(0, w0, w1, w2, X9)  \
	QUAD(1, k, w0, X3, X4)     \
	EXTEND(1, w0, w1, w2, X10) \
	QUAD(2, k, w0, X5, X6)     \
	EXTEND(2, w0, w1, w2, X11) \
	QUAD(3, k, w0, X7, X8)     \
	EXTEND(3, w0, w1, w2, X12)

// PADQUAD does four rounds of the padding chunk, whose W+K is in X13.
#define PADQUAD(abef, cdgh) \
	MOVO X13, X0 \
	ROUNDS(abef, cdgh)

#define SAVE(lane, abef, cdgh) \
	MOVO abef, SAVED(lane, 0) \
	MOVO cdgh, SAVED(lane, 1)

#define ADDSAVED(lane, abef, cdgh) \
	PADDL SAVED(lane, 0), abef \
	PADDL SAVED(lane, 1), cdgh

#define ADDSAVED4 \
	ADDSAVED(0, X1, X2) \
	ADDSAVED(1, X3, X4) \
	ADDSAVED(2, X5, X6) \
	ADDSAVED(3, X7, X8)

// STORE writes a to h to dst in big-endian order; X15 reverses halves here.
#define STORE(lane, abef, cdgh) \
	MOVO       abef, X13               \
	PUNPCKHQDQ cdgh, X13               \
	PUNPCKLQDQ cdgh, abef              \
	PSHUFB     X15, X13                \
	PSHUFB     X15, abef               \
	MOVOU      X13, (lane*32)(DI)      \
	MOVOU      abef, (lane*32+16)(DI)

// func sha256Lanes4(dst *[4 * 32]byte, b0, b1, b2, b3 *block)
TEXT ·sha256Lanes4(SB), 0, $400-40
	LEAQ 15(SP), R8
	ANDQ $~15, R8
	MOVQ dst+0(FP), DI
	MOVQ b0+8(FP), R9
	MOVQ b1+16(FP), R10
	MOVQ b2+24(FP), R11
	MOVQ b3+32(FP), R12
	MOVO swapWords<>(SB), X15
	MOVO initial<>+0(SB), X1
	MOVO initial<>+16(SB), X2
	MOVO X1, X3
	MOVO X2, X4
	MOVO X1, X5
	MOVO X2, X6
	MOVO X1, X7
	MOVO X2, X8
	XORQ BX, BX

chunk:
	CHUNK(0, R9, X1, X2, X9)
	CHUNK(1, R10, X3, X4, X10)
	CHUNK(2, R11, X5, X6, X11)
	CHUNK(3, R12, X7, X8, X12)
	LEAQ roundK<>(SB), AX
	MOVQ $3, CX

extend:
	QUADEXTEND4(0, 0, 1, 2)
	QUADEXTEND4(16, 1, 2, 3)
	QUADEXTEND4(32, 2, 3, 0)
	QUADEXTEND4(48, 3, 0, 1)
	ADDQ $64, AX
	DECQ CX
	JNZ  extend

	QUAD4(0, 0)
	QUAD4(16, 1)
	QUAD4(32, 2)
	QUAD4(48, 3)
	ADDSAVED4
	ADDQ $64, BX
	CMPQ BX, $4096
	JB   chunk

	SAVE(0, X1, X2)
	SAVE(1, X3, X4)
	SAVE(2, X5, X6)
	SAVE(3, X7, X8)
	LEAQ padWK<>(SB), AX
	MOVQ $16, CX

pad:
	MOVO (AX), X13
	PADQUAD(X1, X2)
	PADQUAD(X3, X4)
	PADQUAD(X5, X6)
	PADQUAD(X7, X8)
	ADDQ $16, AX
	DECQ CX
	JNZ  pad

	ADDSAVED4
	MOVO reverseHalves<>(SB), X15
	STORE(0, X1, X2)
	STORE(1, X3, X4)
	STORE(2, X5, X6)
	STORE(3, X7, X8)
	RET

// Tables, lowest word first. The linker aligns each to 16 bytes at least, since
// it is as long.
#define WORDS(table, offset, w0, w1, w2, w3) \
	DATA table<>+(offset+0)(SB)/4, $w0  \
	DATA table<>+(offset+4)(SB)/4, $w1  \
	DATA table<>+(offset+8)(SB)/4, $w2  \
	DATA table<>+(offset+12)(SB)/4, $w3

// The initial hash value of FIPS 180-4 section 5.3.3 as abef, cdgh.
WORDS(initial, 0, 0x9b05688c, 0x510e527f, 0xbb67ae85, 0x6a09e667)
WORDS(initial, 16, 0x5be0cd19, 0x1f83d9ab, 0xa54ff53a, 0x3c6ef372)
GLOBL initial<>(SB), RODATA|NOPTR, $32

// The constants of FIPS 180-4 section 4.2.2.
WORDS(roundK, 0, 0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5)
WORDS(roundK, 16, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5)
WORDS(roundK, 32, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3)
WORDS(roundK, 48, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174)
WORDS(roundK, 64, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc)
WORDS(roundK, 80, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da)
WORDS(roundK, 96, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7)
WORDS(roundK, 112, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967)
WORDS(roundK, 128, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13)
WORDS(roundK, 144, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85)
WORDS(roundK, 160, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3)
WORDS(roundK, 176, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070)
WORDS(roundK, 192, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5)
WORDS(roundK, 208, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3)
WORDS(roundK, 224, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208)
WORDS(roundK, 240, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2)
GLOBL roundK<>(SB), RODATA|NOPTR, $256

// W+K of the chunk that pads a message of 4096 bytes: 0x80, zeros, and the
// length in bits, 0x8000. It is the same for every block.
WORDS(padWK, 0, 0xc28a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5)
WORDS(padWK, 16, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5)
WORDS(padWK, 32, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3)
WORDS(padWK, 48, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19c7174)
WORDS(padWK, 64, 0x649b69c1, 0x3fbe47a6, 0x0fe1edc6, 0x240cc3cc)
WORDS(padWK, 80, 0x4fe9346f, 0x5fb484b2, 0x61b9bf1e, 0xf6f9e0e2)
WORDS(padWK, 96, 0x904651d2, 0xcf776683, 0xb071aacd, 0x45598de9)
WORDS(padWK, 112, 0x6e024795, 0xe1a53a4c, 0x01579c54, 0x7ed2a5d2)
WORDS(padWK, 128, 0x5543dff8, 0x24306163, 0xcbe96064, 0x088b74dd)
WORDS(padWK, 144, 0x8cef495f, 0x27644e60, 0xfa4494c7, 0xc85ad905)
WORDS(padWK, 160, 0xae229301, 0x3cc6aca8, 0xced0f30e, 0x0054346d)
WORDS(padWK, 176, 0xaa185a78, 0xbf2f214a, 0xc070f8f5, 0x2bfa9c81)
WORDS(padWK, 192, 0x2ee7c2f3, 0x060f5920, 0x19f02ca9, 0xf4d1cc5c)
WORDS(padWK, 208, 0x4368bd9b, 0xc154267a, 0xec10f2ef, 0xf0bf5abd)
WORDS(padWK, 224, 0xb1561710, 0xcc85b5a6, 0x55e9155c, 0xeb7ba3e0)
WORDS(padWK, 240, 0x0f037e93, 0x2ae3e945, 0xa2affabf, 0x694563d1)
GLOBL padWK<>(SB), RODATA|NOPTR, $256

// Masks for PSHUFB.
WORDS(swapWords, 0, 0x00010203, 0x04050607, 0x08090a0b, 0x0c0d0e0f)
GLOBL swapWords<>(SB), RODATA|NOPTR, $16

WORDS(reverseHalves, 0, 0x04050607, 0x00010203, 0x0c0d0e0f, 0x08090a0b)
GLOBL reverseHalves<>(SB), RODATA|NOPTR, $16

// func cpuid(leaf, sub uint32) (eax, ebx, ecx, edx uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-24
	MOVL leaf+0(FP), AX
	MOVL sub+4(FP), CX
	CPUID
	MOVL AX, eax+8(FP)
	MOVL BX, ebx+12(FP)
	MOVL CX, ecx+16(FP)
	MOVL DX, edx+20(FP)
	RET
