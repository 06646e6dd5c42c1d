package index

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// oldSparse returns the header of an old GNU sparse file, with the first four
// numbers pairs of its map, and the blocks with the rest.
func oldSparse(name string, realSize int64, stored string, m ...segment) (head, []byte) {
	var blocks []byte
	first := m[:min(4, len(m))]
	for rest := range slices.Chunk(m[len(first):], 21) {
		b := make([]byte, tarBlock)
		putSegments(b, rest)
		blocks = append(blocks, b...)
		if len(blocks) > tarBlock {
			blocks[len(blocks)-2*tarBlock+lenExtendedMap] = 1
		}
	}
	return head{typ: typeSparse, name: name, magic: magicGNU, data: stored, edit: func(b []byte) {
		putSegments(b[offSparseMap:], first)
		if len(blocks) > 0 {
			b[offSparseMap+lenSparseMap] = 1
		}
		copy(b[fieldRealSize.off:fieldRealSize.end], octal(realSize, 12))
	}}, blocks
}

func putSegments(b []byte, m []segment) {
	for i, s := range m {
		copy(b[i*lenOldSegment:], octal(s.Offset, 12))
		copy(b[i*lenOldSegment+12:], octal(s.Length, 12))
	}
}

// addOldSparse adds an old GNU sparse file.
func (t *tarBuilder) addOldSparse(realSize int64, stored string, m ...segment) *tarBuilder {
	h, blocks := oldSparse("s", realSize, stored, m...)
	return t.raw(h.block()).raw(blocks).padded(stored)
}

// textMapOf formats a version 1.0 map.
func textMapOf(m ...segment) string {
	text := fmt.Sprintf("%d\n", len(m))
	for _, s := range m {
		text += fmt.Sprintf("%d\n%d\n", s.Offset, s.Length)
	}
	return text + strings.Repeat("\x00", -len(text)&(tarBlock-1))
}

// sparse1Records are the records of a version 1.0 file.
func sparse1Records(size int) []string {
	return []string{"path=GNUSparseFile.0/s", "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=s", fmt.Sprintf("GNU.sparse.realsize=%d", size)}
}

// manySegments returns n segments of one byte with a hole of one before each.
func manySegments(n int) (m []segment, stored string) {
	for i := range n {
		m = append(m, segment{int64(2*i + 1), 1})
	}
	return m, strings.Repeat("y", n)
}

func TestSparse(t *testing.T) {
	m30, y30 := manySegments(30)
	m100, y100 := manySegments(100)
	holes := func(n int) string { return strings.Repeat("\x00y", n) }
	tests := []struct {
		name string
		tar  *tarBuilder
		want string // content
		m    []segment
	}{
		{"old", new(tarBuilder).addOldSparse(100, "abcde", segment{10, 2}, segment{97, 3}),
			strings.Repeat("\x00", 10) + "ab" + strings.Repeat("\x00", 85) + "cde", []segment{{10, 2}, {97, 3}}},
		{"old, one more block", new(tarBuilder).addOldSparse(60, y30[:25], m30[:25]...), holes(25) + strings.Repeat("\x00", 10), m30[:25]},
		{"old, two more blocks", new(tarBuilder).addOldSparse(60, y30, m30...), holes(30), m30},
		{"old, many blocks", new(tarBuilder).addOldSparse(200, y100, m100...), holes(100), m100},
		{"old, hole only", new(tarBuilder).addOldSparse(70, "", segment{70, 0}), strings.Repeat("\x00", 70), nil},
		{"old, no map", new(tarBuilder).addOldSparse(70, ""), strings.Repeat("\x00", 70), nil},
		{"old, empty", new(tarBuilder).addOldSparse(0, "", segment{0, 0}), "", nil},
		{"0.0", new(tarBuilder).pax("GNU.sparse.size=7", "GNU.sparse.numblocks=2", "GNU.sparse.offset=0", "GNU.sparse.numbytes=1",
			"GNU.sparse.offset=5", "GNU.sparse.numbytes=2").add(head{name: "s", data: "abc"}), "a\x00\x00\x00\x00bc", []segment{{0, 1}, {5, 2}}},
		{"0.1", new(tarBuilder).pax("GNU.sparse.size=7", "GNU.sparse.numblocks=2", "GNU.sparse.name=s", "GNU.sparse.map=0,1,5,2",
			"path=GNUSparseFile.0/x").add(head{name: "y", data: "abc"}), "a\x00\x00\x00\x00bc", []segment{{0, 1}, {5, 2}}},
		{"0.1 with version", new(tarBuilder).pax("GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.realsize=7", "GNU.sparse.numblocks=1",
			"GNU.sparse.map=6,1").add(head{name: "s", data: "a"}), "\x00\x00\x00\x00\x00\x00a", []segment{{6, 1}}},
		{"0.1, empty map", new(tarBuilder).pax("GNU.sparse.size=3", "GNU.sparse.numblocks=0", "GNU.sparse.map=").add(head{name: "s"}), "\x00\x00\x00", nil},
		{"1.0", new(tarBuilder).pax(sparse1Records(7)...).add(head{name: "y", data: textMapOf(segment{0, 1}, segment{5, 2}) + "abc"}),
			"a\x00\x00\x00\x00bc", []segment{{0, 1}, {5, 2}}},
		{"1.0, map of two blocks", new(tarBuilder).pax(sparse1Records(200)...).add(head{name: "y", data: textMapOf(m100...) + y100}), holes(100), m100},
		{"1.0, no segment", new(tarBuilder).pax(sparse1Records(70)...).add(head{name: "y", data: textMapOf()}), strings.Repeat("\x00", 70), nil},
		{"global map", new(tarBuilder).global("GNU.sparse.size=4", "GNU.sparse.numblocks=1", "GNU.sparse.offset=3", "GNU.sparse.numbytes=1").
			add(head{typ: typeDir, name: "d"}).add(head{name: "s", data: "a"}), "\x00\x00\x00a", []segment{{3, 1}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			global := strings.HasPrefix(tt.name, "global")
			if !global {
				tt.tar.add(head{name: "next", data: strings.Repeat("z", 65)})
			}
			b := tt.tar.end()
			entries, in, report, err := parseBytes(b, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			e := entries[0]
			if e.Mode&modeFmt == modeDir {
				e = entries[1]
			}
			if got := string(in.content(e)); got != tt.want || e.Size != int64(len(tt.want)) {
				t.Errorf("content is %q, size %d, want %q", got, e.Size, tt.want)
			}
			if !slices.Equal(in.maps, tt.m) {
				t.Errorf("segments are %v, want %v", in.maps, tt.m)
			}
			if string(e.Name) != "s" || !report.Sparse || report.Inexact != global {
				t.Errorf("name is %q, report %+v", e.Name, report)
			}
			if string(in.joined()) != string(b) {
				t.Error("the pieces do not add up to the tar")
			}
		})
	}
}

// A file of a TiB in 3 KiB must cost nothing until its limit is raised.
func TestSparseBomb(t *testing.T) {
	const tib = 1 << 40
	for name, b := range map[string][]byte{
		"old": new(tarBuilder).addOldSparse(tib, "", segment{tib, 0}).end(),
		"0.1": new(tarBuilder).pax(fmt.Sprintf("GNU.sparse.size=%d", tib), "GNU.sparse.numblocks=0", "GNU.sparse.map=").add(head{name: "s"}).end(),
		"1.0": new(tarBuilder).pax(sparse1Records(tib)...).add(head{name: "y", data: textMapOf(segment{tib, 0})}).end(),
	} {
		_, in, _, err := parseBytes(b, Limits{})
		if !errorIs(err, "bytes of a file: 1099511627776, over the limit of 68719476736 (--max-file-size raises it)") {
			t.Errorf("%s: %v", name, err)
		}
		if in.maps != nil || in.objects != nil {
			t.Errorf("%s: content was asked for", name)
		}
	}
}
