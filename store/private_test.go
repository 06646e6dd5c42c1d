package store_test

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/store"
)

func TestNotes(t *testing.T) {
	s := newStore(t)
	if _, err := s.Note("verified", "sha256:aa"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
	for range s.Notes("verified") {
		t.Error("there are notes")
	}
	must(t, s.SetNote("verified", "sha256:bb", "x"))
	for _, text := range []string{"one", "one", "/two"} {
		must(t, s.SetNote("verified", "sha256:aa", text))
		if got, err := s.Note("verified", "sha256:aa"); got != text || err != nil {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	var names []string
	for name, err := range s.Notes("verified") {
		must(t, err)
		names = append(names, name)
	}
	if want := []string{"sha256:aa", "sha256:bb"}; !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
	must(t, s.RemoveNote("verified", "sha256:aa"))
	if err := s.RemoveNote("verified", "sha256:aa"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	for _, bad := range [][3]string{{"", "a", "x"}, {"../a", "a", "x"}, {"d", "", "x"}, {"d", "a/b", "x"}, {"d", "a", ""}, {"d", "a", "\x00"}, {"d", "a", strings.Repeat("x", 4096)}} {
		if s.SetNote(bad[0], bad[1], bad[2]) == nil {
			t.Errorf("%.20q: accepted", bad)
		}
	}
	must(t, s.SetNote("d", "a", strings.Repeat("x", 4095)))
	if got, err := s.Note("d", "a"); len(got) != 4095 || err != nil {
		t.Errorf("longest: %d bytes, %v", len(got), err)
	}
}

func TestFiles(t *testing.T) {
	s := newStore(t)
	const name = "origins/sha256:aa.json"
	if _, err := s.ReadFile(name); !errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), name) {
		t.Errorf("missing: %v", err)
	}
	for _, text := range []string{"{}", strings.Repeat("long", 10000), ""} {
		must(t, s.WriteFile(name, []byte(text)))
		if got, err := s.ReadFile(name); string(got) != text || err != nil {
			t.Errorf("%d bytes, %v; want %d", len(got), err, len(text))
		}
	}
	must(t, s.WriteFile("top", []byte("x")))
	for _, bad := range []string{"", "/", "/etc/passwd", "../meta.json", "a/../b", "a/", "flatroot/x"} {
		if _, err := s.ReadFile(bad); err == nil || errors.Is(err, store.ErrNotFound) || s.WriteFile(bad, nil) == nil {
			t.Errorf("%q: %v", bad, err)
		}
	}
	must(t, os.Symlink("/etc/passwd", s.Dir()+"/flatroot/link"))
	if _, err := s.ReadFile("link"); err == nil {
		t.Error("followed a symlink")
	}
	must(t, s.WriteFile("link", []byte("mine")))
	if got, err := s.ReadFile("link"); string(got) != "mine" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestOpenFile is how a download is gone on with.
func TestOpenFile(t *testing.T) {
	s := newStore(t)
	for _, part := range []string{"first ", "second"} {
		f, err := s.OpenFile("tmp/sha256:aa", os.O_RDWR|os.O_CREATE)
		must(t, err)
		_, err = f.Seek(0, io.SeekEnd)
		must(t, err)
		_, err = f.WriteString(part)
		must(t, err)
		must(t, f.Close())
	}
	if got, err := s.ReadFile("tmp/sha256:aa"); string(got) != "first second" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	must(t, s.RemoveNote("tmp", "sha256:aa"))
}
