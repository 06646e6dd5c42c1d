package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
)

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.00 kB", 9994: "9.99 kB", 9995: "10.0 kB", 99949: "99.9 kB", 99950: "100 kB",
		999499: "999 kB", 999500: "1.00 MB", 1234567890: "1.23 GB", 1<<63 - 1: "9.22 EB",
	} {
		if got := size(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

func TestAmount(t *testing.T) {
	for s, want := range map[string]int64{
		"1": 1, "1024": 1024, "2K": 2 << 10, "3M": 3 << 20, "4G": 4 << 30, "5T": 5 << 40,
		"": 0, "0": 0, "-1": 0, "K": 0, "1KK": 0, "1k": 0, "1.5G": 0, "9999999T": 0, "9223372036854775808": 0, "1 ": 0,
	} {
		var a amount
		err := a.Set(s)
		if int64(a) != want || (err == nil) != (want != 0) {
			t.Errorf("%q: got %d, %v; want %d", s, a, err, want)
		}
	}
}

func TestStoreDir(t *testing.T) {
	if d, err := storeDir("given"); d != "given" || err != nil {
		t.Errorf("given: %s, %v", d, err)
	}
	want := "/data/flatroot"
	if os.Geteuid() == 0 {
		want = "/var/lib/flatroot"
	}
	t.Setenv("XDG_DATA_HOME", "/data")
	if d, err := storeDir(""); d != want || err != nil {
		t.Errorf("data directory: %s, %v", d, err)
	}
	t.Setenv(rootlessVariable, "1000")
	if d, err := storeDir(""); d != "/data/flatroot" || err != nil {
		t.Errorf("in podman's user namespace: %s, %v", d, err)
	}
	t.Setenv("XDG_DATA_HOME", "data") // relative: not to be used
	t.Setenv("HOME", "/home/me")
	if d, err := storeDir(""); d != "/home/me/.local/share/flatroot" || err != nil {
		t.Errorf("home: %s, %v", d, err)
	}
	t.Setenv("HOME", "")
	if d, err := storeDir(""); err == nil {
		t.Errorf("nothing: %s", d)
	}
}

// TestReport checks statuses and that text of others reaches the terminal as text.
func TestReport(t *testing.T) {
	plain := errors.New("layer 1: name \x1b[2J\nis bad")
	tests := []struct {
		err  error
		code int
		out  string
	}{
		{nil, 0, ""},
		{plain, 1, "flatroot: layer 1: name [2J; is bad\n"},
		{&hintError{plain, "try\nagain"}, 1, "flatroot: layer 1: name [2J; is bad\nflatroot: hint: try; again\n"},
		{&usageError{msg: "what"}, 2, "flatroot: what\nflatroot: hint: `flatroot --help` lists commands and flags\n"},
		{&usageError{command: "rm", msg: "what", hint: "that"}, 2, "flatroot: rm: what\nflatroot: hint: that\n"},
		{&statusError{code: 1}, 1, ""},
		{&statusError{2, errors.New("x")}, 2, "flatroot: x\n"},
	}
	for _, tt := range tests {
		var b bytes.Buffer
		if code := report(&b, tt.err); code != tt.code || b.String() != tt.out {
			t.Errorf("%v: status %d, %q; want %d, %q", tt.err, code, b.String(), tt.code, tt.out)
		}
	}
}

// TestPlainMeter lets a layer take twelve seconds, in steps of one.
func TestPlainMeter(t *testing.T) {
	var b bytes.Buffer
	now := time.Unix(0, 0)
	p := &plainMeter{w: &b, now: func() time.Time { return now }}
	l := oci.Layer{Descriptor: ocispec.Descriptor{Size: 12000}, DiffID: "sha256:0123456789abcdef"}
	tell := p.Start(index.Reading, l)
	for range 12 {
		now = now.Add(time.Second)
		tell(1000)
	}
	tell(0)
	p.Reused(l)
	p.Step("flatten")
	p.Start(index.Sending, l)
	for _, seconds := range []int{4, 6} { // nothing is said of four
		tell := p.inflating(12000)
		for range seconds {
			now = now.Add(time.Second)
			tell(1000)
		}
		tell(0)
	}
	want := `flatroot: layer 0123456789ab: reading 12.0 kB
flatroot: layer 0123456789ab: 5.00 kB of 12.0 kB
flatroot: layer 0123456789ab: 10.0 kB of 12.0 kB
flatroot: layer 0123456789ab: done, 12.0 kB
flatroot: layer 0123456789ab: is here already
flatroot: flatten
flatroot: layer 0123456789ab: sending 12.0 kB
flatroot: inflating the archive: 5.00 kB of 12.0 kB
flatroot: inflating the archive: done, 6.00 kB
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

// TestBars stops bars of layers that were not read to their ends, which must not hang.
func TestBars(t *testing.T) {
	var b bytes.Buffer
	m := newBars(&b)
	l := oci.Layer{Descriptor: ocispec.Descriptor{Size: 100}}
	done := m.Start(index.Reading, l)
	done(100)
	done(0)
	m.Start(index.Reading, l)(50)
	m.Start(index.Compressing, oci.Layer{Descriptor: ocispec.Descriptor{Size: -1}})(50)
	m.Reused(l)
	m.Step("flatten")
	stopped := make(chan struct{})
	go func() {
		m.stop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(30 * time.Second):
		t.Fatal("stop does not return")
	}
}

func TestCancelReader(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	data := strings.Repeat("0123456789", 50000)
	got, err := io.ReadAll(&cancelReader{ctx: ctx, r: strings.NewReader(data)})
	if err != nil || string(got) != data {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	r, w := io.Pipe() // that nobody writes to
	defer w.Close()
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := (&cancelReader{ctx: ctx, r: r}).Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestCheckName(t *testing.T) {
	hex := strings.Repeat("ab", 32)
	for name, good := range map[string]bool{
		"web": true, "docker.io/library/debian:13": true, "a b": true, hex[1:]: true, hex + "x": true,
		"docker:13": true, "docker://x/y": false, "oci:x": false,
		hex: false, hex + hex: false, "": false, ".": false, "./x": false, "/x": false, "-": false, "-x": false, "@x": false,
		strings.Repeat("x", 300): false,
	} {
		if err := checkName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestOpenInput(t *testing.T) {
	dir := t.TempDir()
	erofs := make([]byte, 2048)
	copy(erofs[1024:], "\xe2\xe1\xf5\xe0")
	for name, tt := range map[string]struct {
		data []byte
		want content
	}{
		"dump":  {[]byte("/ 0 40755"), isDump},
		"tar":   {[]byte("usr/"), isTar},
		"short": {[]byte("x"), isTar},
		"image": {erofs, isImage},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, tt.data, 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := openInput(path, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := io.ReadAll(in.reader)
		if in.content != tt.want || err != nil || !bytes.Equal(got, tt.data) {
			t.Errorf("%s: content %d, %d bytes, %v", name, in.content, len(got), err)
		}
		in.Close()
	}
	if in, err := openInput(dir, nil); err != nil || in.content != isDirectory {
		t.Errorf("directory: %+v, %v", in, err)
	}
	if _, err := openInput("-", strings.NewReader("")); err == nil {
		t.Error("nothing was taken for something")
	}
}
