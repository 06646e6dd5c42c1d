package fsverity

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
)

// naive is the definition of the digest put down as directly as possible, every
// level in memory as a whole. It shares no code with what it checks.
func naive(a Algorithm, data []byte) []byte {
	level := chop(a, data)
	for len(level) > a.Size() {
		level = chop(a, level)
	}
	desc := make([]byte, 256)
	desc[0], desc[1], desc[2] = 1, byte(a), 12
	binary.LittleEndian.PutUint64(desc[8:], uint64(len(data)))
	copy(desc[16:], level)
	return naiveHash(a, desc)
}

// chop concatenates the hashes of the zero-filled blocks of data.
func chop(a Algorithm, data []byte) []byte {
	var hashes []byte
	for len(data) > 0 {
		b := make([]byte, 4096)
		n := copy(b, data)
		hashes = append(hashes, naiveHash(a, b)...)
		data = data[n:]
	}
	return hashes
}

func naiveHash(a Algorithm, msg []byte) []byte {
	if a == SHA512 {
		sum := sha512.Sum512(msg)
		return sum[:]
	}
	sum := sha256.Sum256(msg)
	return sum[:]
}
