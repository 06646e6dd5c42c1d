package store_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
)

func readlink(t *testing.T, s *store.Store, name string) string {
	t.Helper()
	text, err := os.Readlink(s.Dir() + "/" + name)
	must(t, err)
	return text
}

func TestEntries(t *testing.T) {
	s := newStore(t)
	a, b := put(t, s, "a"), put(t, s, "b")
	const name = "oci-layer-sha256:aa"
	if got, err := s.Link(store.Streams, name, a); got != a || err != nil {
		t.Errorf("Link: %v, %v", got, err)
	}
	if got := readlink(t, s, "streams/"+name); got != "../objects/"+a.ObjectPath() {
		t.Errorf("text %s", got)
	}
	if got, err := s.Link(store.Streams, name, b); got != a || err != nil {
		t.Errorf("what is there must be adopted: %v, %v", got, err)
	}
	must(t, s.Relink(store.Streams, name, b))
	must(t, s.Relink(store.Streams, name, b))
	if got, err := s.Entry(store.Streams, name); got != b || err != nil {
		t.Errorf("Entry: %v, %v", got, err)
	}
	if _, err := s.Link(store.Images, a.String(), a); err != nil {
		t.Error(err)
	}
	if _, err := s.Link(store.Images, a.String(), b); err == nil {
		t.Error("an image under another one's name")
	}
	for _, err := range []error{s.RemoveEntry(store.Streams, "none"), func() error { _, err := s.Entry(store.Images, "none"); return err }()} {
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("missing: %v", err)
		}
	}
	must(t, s.RemoveEntry(store.Streams, name))
	if _, err := s.Entry(store.Streams, name); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("removed: %v", err)
	}
}

// TestImageEntryHealed: a name that is a digest says what the link must be.
func TestImageEntryHealed(t *testing.T) {
	s := newStore(t)
	a, b := put(t, s, "a"), put(t, s, "b")
	path := s.Dir() + "/images/" + a.String()
	for _, text := range []string{"../objects/" + b.ObjectPath(), "nowhere"} {
		os.Remove(path)
		must(t, os.Symlink(text, path))
		if got, err := s.Link(store.Images, a.String(), a); got != a || err != nil {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		if got := readlink(t, s, "images/"+a.String()); got != "../objects/"+a.ObjectPath() {
			t.Errorf("text %s", got)
		}
	}
}

func TestBadNames(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "x")
	for _, name := range []string{"", ".", "..", "refs", "a/b", "a\x00b", "\xff", strings.Repeat("x", 256)} {
		_, err1 := s.Link(store.Streams, name, d)
		_, err2 := s.Entry(store.Streams, name)
		if err1 == nil || err2 == nil || s.Relink(store.Streams, name, d) == nil || s.RemoveEntry(store.Streams, name) == nil {
			t.Errorf("entry %.20q: accepted", name)
		}
	}
	_, err := s.Link(store.Streams, "entry", d)
	must(t, err)
	for _, ref := range []string{"", ".", "..", "/a", "a/", "a//b", "a/../b", "a\x00", "\xff", strings.Repeat("x", 256), strings.Repeat("a/", 40) + "a"} {
		_, err := s.Ref(store.Streams, ref)
		if err == nil || s.SetRef(store.Streams, ref, "entry") == nil || s.RemoveRef(store.Streams, ref) == nil {
			t.Errorf("ref %.20q: accepted", ref)
		}
	}
	if _, err := s.Link("other", "a", d); err == nil {
		t.Error("kind other: accepted")
	}
	if _, err := s.Link(store.Streams, "a", fsverity.Sum(fsverity.SHA512, nil)); err == nil {
		t.Error("digest of another hash: accepted")
	}
}

// TestReadersTolerate: only the beginning and the end of a link are looked at.
func TestReadersTolerate(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "x")
	must(t, os.MkdirAll(s.Dir()+"/streams/refs", 0o755))
	for i, tc := range []struct {
		text string
		ok   bool
	}{
		{"../objects/" + d.ObjectPath(), true},
		{"../../elsewhere/objects/" + d.ObjectPath(), true},
		{"../" + d.ObjectPath(), true},
		{"objects/" + d.ObjectPath(), false},
		{"/abs/objects/" + d.ObjectPath(), false},
		{"../objects/" + d.String(), false},
		{"../objects/" + strings.ToUpper(d.ObjectPath()), false},
		{"../objects/ab" + d.ObjectPath(), false},
		{"../objects/" + d.ObjectPath()[1:], false},
		{"..", false},
		{strings.Repeat("../", 1300), false},
	} {
		name := fmt.Sprint("entry", i)
		path := s.Dir() + "/streams/" + name
		must(t, os.Symlink(tc.text, path))
		got, err := s.Entry(store.Streams, name)
		if tc.ok != (err == nil) || tc.ok && got != d {
			t.Errorf("%s: %v, %v", tc.text, got, err)
		}
		var le *store.LinkError
		if err != nil && (!errors.As(err, &le) || !strings.HasSuffix(le.Path, "/streams/"+name)) {
			t.Errorf("%s: error %v", tc.text, err)
		}
		must(t, os.Remove(path))
	}
	ref := s.Dir() + "/streams/refs/r"
	for text, want := range map[string]string{"../e": "e", "e": "e", "../../far/away/e": "e", "../": "", "../refs": "", "..": ""} {
		must(t, os.Symlink(text, ref))
		if got, err := s.Ref(store.Streams, "r"); got != want || (want == "") != (err != nil) {
			t.Errorf("ref to %s: %q, %v", text, got, err)
		}
		must(t, os.Remove(ref))
	}
}

func TestRefs(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "x")
	for _, name := range []string{"one", "two"} {
		_, err := s.Link(store.Streams, name, d)
		must(t, err)
	}
	refs := []string{"a", "oci-referrers/s/t", "oci/b-c", "oci/b/c", "oci/b/d/e", "oci/b0", "oci/ä b:1"}
	for _, ref := range refs {
		must(t, s.SetRef(store.Streams, ref, "one"))
		must(t, s.SetRef(store.Streams, ref, "one"))
	}
	if got := readlink(t, s, "streams/refs/oci/b/d/e"); got != "../../../../one" {
		t.Errorf("text %s", got)
	}
	must(t, s.SetRef(store.Streams, "a", "two"))
	if got, err := s.Ref(store.Streams, "a"); got != "two" || err != nil {
		t.Errorf("moved: %s, %v", got, err)
	}
	for prefix, want := range map[string][]string{
		"": refs, "oci": refs[2:], "oci/": refs[2:], "/oci/b": refs[3:5], "a": nil, "none/at/all": nil,
	} {
		var got []string
		for r, err := range s.Refs(store.Streams, prefix) {
			if err != nil && prefix == "a" {
				continue // a ref, no directory
			}
			must(t, err)
			got = append(got, r.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("below %q: %q, want %q", prefix, got, want)
		}
	}
	for r := range s.Refs(store.Streams, "") {
		if r.Name != "a" {
			t.Errorf("went on to %v", r)
		}
		break
	}
}

// TestRemovedMeanwhile: whoever lists names does not stumble over those that somebody removes meanwhile.
func TestRemovedMeanwhile(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "x")
	for _, name := range []string{"one", "two", "three"} {
		_, err := s.Link(store.Streams, name, d)
		must(t, err)
		must(t, s.SetRef(store.Streams, "oci/"+name, name))
	}
	n := 0
	for r, err := range s.Refs(store.Streams, "") {
		must(t, err)
		n++
		for _, name := range []string{"one", "two", "three"} {
			if "oci/"+name != r.Name {
				must(t, s.RemoveRef(store.Streams, "oci/"+name))
			}
		}
	}
	for e, err := range s.Entries(store.Streams) {
		must(t, err)
		n++
		for _, name := range []string{"one", "two", "three"} {
			if name != e.Name {
				must(t, s.RemoveEntry(store.Streams, name))
			}
		}
	}
	if n != 2 {
		t.Errorf("%d names were listed, of which one ref and one entry had stayed", n)
	}
}

func TestRefConflicts(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "x")
	_, err := s.Link(store.Streams, "e", d)
	must(t, err)
	must(t, s.SetRef(store.Streams, "a", "e"))
	must(t, s.SetRef(store.Streams, "dir/a", "e"))
	if err := s.SetRef(store.Streams, "a/b", "e"); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("below a ref: %v", err)
	}
	if err := s.SetRef(store.Streams, "dir", "e"); err == nil || !strings.Contains(err.Error(), "longer") {
		t.Errorf("above a ref: %v", err)
	}
	if err := s.SetRef(store.Streams, "new", "missing"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("to no entry: %v", err)
	}
	if _, err := s.Ref(store.Streams, "new"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("it was made all the same: %v", err)
	}
	if _, err := s.Ref(store.Streams, "a/b"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("below a ref: %v", err)
	}
	if err := s.RemoveRef(store.Streams, "dir"); err == nil {
		t.Error("removed a directory")
	}
	must(t, s.RemoveRef(store.Streams, "dir/a"))
	if err := s.RemoveRef(store.Streams, "dir/a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := s.Entry(store.Streams, "e"); err != nil {
		t.Errorf("the entry went too: %v", err)
	}
	if _, err := os.Stat(s.Dir() + "/streams/refs/dir"); err != nil {
		t.Errorf("the directory went too: %v", err)
	}
}

// TestJunk: what is no symlink is told of and does not stop a listing.
func TestJunk(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "x")
	_, err := s.Link(store.Streams, "m", d)
	must(t, err)
	must(t, s.SetRef(store.Streams, "m", "m"))
	junk := []string{"streams/a", "streams/z\xff", "streams/refs/a", "streams/refs/z"}
	for _, name := range junk {
		must(t, os.WriteFile(s.Dir()+"/"+name, nil, 0o644))
	}
	var names []string
	for e, err := range s.Entries(store.Streams) {
		names = append(names, fmt.Sprint(e.Name, err == nil))
	}
	if want := []string{"afalse", "mtrue", "z\xfffalse"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	names = nil
	for r, err := range s.Refs(store.Streams, "") {
		names = append(names, fmt.Sprint(r.Name, err == nil))
	}
	if want := []string{"afalse", "mtrue", "zfalse"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	if err := s.RemoveEntry(store.Streams, "a"); err == nil {
		t.Error("removed a file")
	}
	for _, name := range junk {
		must(t, os.Remove(s.Dir()+"/"+name))
	}
}

// TestSymlinkedDirectories: refs never lead out of the store.
func TestSymlinkedDirectories(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "x")
	_, err := s.Link(store.Streams, "e", d)
	must(t, err)
	must(t, s.SetRef(store.Streams, "a", "e"))
	outside := t.TempDir()
	must(t, os.Symlink(outside, s.Dir()+"/streams/refs/out"))
	if s.SetRef(store.Streams, "out/a", "e") == nil {
		t.Error("made a ref outside")
	}
	if fs, _ := os.ReadDir(outside); len(fs) > 0 {
		t.Errorf("outside: %v", fs)
	}
	must(t, os.Remove(s.Dir()+"/streams/refs/out"))
}

// TestLinkRace: many make the same entry, all go on with the same one.
func TestLinkRace(t *testing.T) {
	s := newStore(t)
	got := make([]fsverity.Digest, 8)
	var wg sync.WaitGroup
	for i := range got {
		d := put(t, s, fmt.Sprint(i))
		wg.Go(func() {
			var err error
			if got[i], err = s.Link(store.Streams, "e", d); err != nil {
				t.Error(err)
			}
			if err := s.SetRef(store.Streams, "r", "e"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, d := range got {
		if d != got[0] {
			t.Errorf("%v and %v", d, got[0])
		}
	}
}

func TestTags(t *testing.T) {
	for tag, want := range map[string]string{
		"debian:13":                   "debian:13",
		"docker://h.example/a/b@c%2F": "docker:%2F%2Fh.example%2Fa%2Fb@c%252F",
		"ä ö":                         "ä ö",
		"100%":                        "100%25",
	} {
		got, err := store.EncodeTag(tag)
		if err != nil || got != want || store.DecodeTag(got) != tag {
			t.Errorf("%s: %s, %v; back %s", tag, got, err, store.DecodeTag(got))
		}
	}
	for enc, want := range map[string]string{"a%2fb": "a%2fb", "%41": "%41", "%252F": "%2F", "%": "%", "%2": "%2"} {
		if got := store.DecodeTag(enc); got != want {
			t.Errorf("decode %s: %s, want %s", enc, got, want)
		}
	}
	for _, tag := range []string{"", ".", "..", "@sha256:aa", "a\x00", "\xff", strings.Repeat("/", 86), strings.Repeat("a", 256)} {
		if got, err := store.EncodeTag(tag); err == nil {
			t.Errorf("%.20q: %s", tag, got)
		}
	}
}

func FuzzParseEntry(f *testing.F) {
	d := fsverity.Sum(fsverity.SHA256, nil)
	f.Add("../objects/"+d.ObjectPath(), false)
	f.Add("../"+d.ObjectPath(), true)
	f.Add("../objects/"+fsverity.Sum(fsverity.SHA512, nil).ObjectPath(), true)
	f.Fuzz(func(t *testing.T, text string, long bool) {
		a := fsverity.SHA256
		if long {
			a = fsverity.SHA512
		}
		d, err := store.ParseEntry(text, a)
		if err == nil && (d.Algorithm() != a || !strings.HasSuffix(text, "/"+d.ObjectPath())) {
			t.Errorf("%q: %v", text, d)
		}
	})
}

func FuzzTags(f *testing.F) {
	f.Add("docker://a/b:1")
	f.Add("%2F%25%")
	f.Fuzz(func(t *testing.T, tag string) {
		enc, err := store.EncodeTag(tag)
		if err != nil {
			return
		}
		if strings.Contains(enc, "/") || len(enc) > 255 || store.DecodeTag(enc) != tag {
			t.Errorf("%q: %q, back %q", tag, enc, store.DecodeTag(enc))
		}
	})
}
