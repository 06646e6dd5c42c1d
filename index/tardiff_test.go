package index

import (
	"archive/tar"
	"bytes"
	"compress/bzip2"
	"encoding/base64"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatroot/flatroot/tree"
)

// goEntry is an entry as archive/tar reads it, in the words of Entry.
type goEntry struct {
	Entry
	content []byte
}

// readGo reads a tar with archive/tar, and applies to each entry what oci-1 says
// of names. Files over a MiB are an error: the library expands sparse files.
func readGo(b []byte) ([]goEntry, error) {
	r := tar.NewReader(bytes.NewReader(b))
	var entries []goEntry
	for {
		h, err := r.Next()
		if err == io.EOF {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			return nil, errors.New("archive/tar leaves global headers to its user")
		}
		if h.Size > 1<<20 {
			return nil, errors.New("large")
		}
		e := goEntry{Entry: entryOfGo(h)}
		if e.Mode&modeFmt == modeFile {
			if e.content, err = io.ReadAll(r); err != nil {
				return nil, err
			}
		}
		entries = append(entries, e)
	}
}

func entryOfGo(h *tar.Header) Entry {
	e := Entry{
		Name:     []byte(strings.Trim(path.Clean("/"+h.Name), "/")),
		Mode:     uint32(h.Mode) & modePerm,
		UID:      uint32(h.Uid),
		GID:      uint32(h.Gid),
		MtimeSec: h.ModTime.Unix(), MtimeNsec: uint32(h.ModTime.Nanosecond()),
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		e.Mode |= modeFile
		e.Size = h.Size
	case tar.TypeLink:
		e.Hardlink = true
		e.Link = []byte(strings.Trim(path.Clean("/"+h.Linkname), "/"))
	case tar.TypeSymlink:
		e.Mode |= modeSymlink
		e.Link = []byte(h.Linkname)
	case tar.TypeChar:
		e.Mode |= modeChar
	case tar.TypeBlock:
		e.Mode |= modeBlock
	case tar.TypeDir:
		e.Mode |= modeDir
	case tar.TypeFifo:
		e.Mode |= modeFifo
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		e.Rdev = uint32(h.Devminor&0xff | h.Devmajor<<8 | (h.Devminor&^0xff)<<12)
	}
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, paxXattrPrefix); ok && v != "" {
			e.Xattrs = append(e.Xattrs, tree.Xattr{Name: name, Value: []byte(v)})
		}
	}
	slices.SortFunc(e.Xattrs, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return e
}

// compareGo compares our reading with archive/tar's.
func compareGo(t *testing.T, entries []Entry, in *memInput, want []goEntry) {
	t.Helper()
	if len(entries) != len(want) {
		t.Errorf("%d entries, archive/tar reads %d", len(entries), len(want))
	}
	for i := range min(len(entries), len(want)) {
		w := &memInput{objects: [][]byte{want[i].content}}
		if got, exp := in.line(entries[i]), w.line(want[i].Entry); got != exp {
			t.Errorf("entry %d:\n got %s\nwant %s", i+1, got, exp)
		}
		if !bytes.Equal(in.content(entries[i]), want[i].content) {
			t.Errorf("entry %d, %q: content differs", i+1, entries[i].Name)
		}
	}
	if !bytes.Equal(in.joined(), in.tar) {
		t.Error("the pieces do not add up to the tar")
	}
}

// TestGoWriter reads what archive/tar writes, in all of its formats.
func TestGoWriter(t *testing.T) {
	for _, format := range []tar.Format{tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU} {
		t.Run(format.String(), func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, uint64(format)))
			var buf bytes.Buffer
			w := tar.NewWriter(&buf)
			for range 2000 {
				h, content := randomHeader(r, format)
				if err := w.WriteHeader(h); err != nil {
					t.Fatalf("%+v: %v", h, err)
				}
				if _, err := w.Write(content); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			want, err := readGo(buf.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			entries, in := mustParse(t, buf.Bytes())
			compareGo(t, entries, in, want)
		})
	}
}

// randomHeader makes an entry that format can hold.
func randomHeader(r *rand.Rand, format tar.Format) (*tar.Header, []byte) {
	types := []byte{tar.TypeReg, tar.TypeReg, tar.TypeReg, tar.TypeDir, tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo}
	name := func(most int) string {
		var parts []string
		for n := 0; n < most && len(parts) < 1+r.IntN(8); n += 30 {
			parts = append(parts, "component-number"[:1+r.IntN(16)]+string(rune('a'+r.IntN(26))))
		}
		return strings.Join(parts, "/")
	}
	h := &tar.Header{
		Format: format, Typeflag: types[r.IntN(len(types))], Name: name(1000), Mode: int64(r.IntN(modePerm + 1)),
		Uid: r.IntN(1 << 21), Gid: r.IntN(1 << 21), ModTime: time.Unix(r.Int64N(1<<33), 0),
	}
	var content []byte
	switch h.Typeflag {
	case tar.TypeReg:
		content = bytes.Repeat([]byte{'c'}, r.IntN(200)*r.IntN(2)*(1+r.IntN(20)))
		h.Size = int64(len(content))
	case tar.TypeDir:
		h.Name += "/"
	case tar.TypeLink, tar.TypeSymlink:
		h.Linkname = name(100)
	case tar.TypeChar, tar.TypeBlock:
		h.Devmajor, h.Devminor = r.Int64N(maxDevMajor+1), r.Int64N(maxDevMinor+1)
	}
	switch format {
	case tar.FormatUSTAR:
		h.Name = strings.TrimLeft(h.Name, "/")
	case tar.FormatGNU:
		h.Uid, h.Gid = r.IntN(math.MaxUint32), r.IntN(math.MaxUint32)
		h.ModTime = time.Unix(r.Int64()-r.Int64(), 0)
	case tar.FormatPAX:
		h.ModTime = time.Unix(r.Int64N(1<<40)-1<<39, r.Int64N(1e9))
		h.Name += "\xe4"
		for i := range r.IntN(3) {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords[paxXattrPrefix+"user."+string(rune('a'+i))] = string(rune(r.IntN(1000) + 1))
		}
	}
	return h, content
}

// TestGoTestdata reads the library's own test files. Those that both accept must
// say the same to both; those that only one accepts are listed with the reason.
func TestGoTestdata(t *testing.T) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skipf("no go command to ask for the library's test files: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "src/archive/tar/testdata/*tar*"))
	if err != nil || len(files) == 0 {
		t.Skip("this Go installation has no archive/tar/testdata")
	}
	weRefuse := map[string]string{
		"gnu-multi-hdrs.tar":  "two extension headers",
		"pax-multi-hdrs.tar":  "two extension headers",
		"gnu-long-nul.tar":    "NUL byte",
		"gnu-incremental.tar": "entry type 'D'",
		"pax-path-hdr.tar":    "extension header without an entry",
	}
	goRefuses := map[string]bool{
		"pax-global-records.tar": true, // gives its user the records to apply
	}
	compared := 0
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b := readTestFile(t, file)
			entries, in, _, err := parseBytes(b, Limits{MaxFileSize: 1 << 20})
			if want := weRefuse[filepath.Base(file)]; want != "" && !errorIs(err, want) {
				t.Errorf("%v, want %q", err, want)
			}
			want, goErr := readGo(b)
			if err == nil && goErr == nil {
				compareGo(t, entries, in, want)
				compared++
			} else if (err == nil) != (goErr == nil) && weRefuse[filepath.Base(file)] == "" && !goRefuses[filepath.Base(file)] {
				t.Errorf("we: %v; archive/tar: %v", err, goErr)
			}
		})
	}
	if compared < 24 {
		t.Errorf("only %d files were compared", compared)
	}
}

// readTestFile reads one of archive/tar's test files, packed or not. Of one that
// expands to much, the beginning is enough.
func readTestFile(t *testing.T, file string) []byte {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	switch path.Ext(file) {
	case ".bz2":
		r = bzip2.NewReader(f)
	case ".base64":
		r = base64.NewDecoder(base64.StdEncoding, f)
	}
	b, err := io.ReadAll(io.LimitReader(r, 4<<20))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
