package chunk_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flatroot/flatroot/chunk"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/tests/testenv"
	"github.com/flatroot/flatroot/tree"
)

// deal gives each node one of n layers.
func deal(w *world, r *rand.Rand, n int) [][]byte {
	of := make([]int, w.tree.Len())
	for i := range of {
		of[i] = r.IntN(n)
	}
	layers := make([][]byte, n)
	for i := range layers {
		layers[i] = w.layer(func(n tree.Node) bool { return of[n] == i })
	}
	return layers
}

// TestUnion deals random trees to layers and puts these together in several orders: it is always the tree.
func TestUnion(t *testing.T) {
	seeds := 30
	if testenv.Nightly() {
		seeds = 1000
	}
	for seed := range uint64(seeds) {
		r := rand.New(rand.NewPCG(seed, 6))
		w := randomWorld(t, r, notUTF8)
		layers, want := deal(w, r, 1+r.IntN(6)), w.dump()
		for _, l := range layers {
			checkLayer(t, l)
		}
		for range 3 {
			r.Shuffle(len(layers), func(i, j int) { layers[i], layers[j] = layers[j], layers[i] })
			wantSame(t, fmt.Sprintf("seed %d", seed), flatten(t, layers...), want)
		}
	}
}

// checkLayer reads a layer as Go's archive/tar does: names in order, each once, a directory before what is in it, the
// target of a hard link before its other names, and no whiteouts.
func checkLayer(t *testing.T, layer []byte) {
	t.Helper()
	seen, last := map[string]byte{}, []string(nil)
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		check(t, err)
		if h.Uname != "" || h.Gname != "" {
			t.Errorf("%q has the owners' names %q, %q", h.Name, h.Uname, h.Gname)
		}
		name := strings.TrimSuffix(h.Name, "/")
		parts := strings.Split(name, "/")
		dir := strings.Join(parts[:len(parts)-1], "/")
		switch {
		case len(seen) == 0 && h.Name != "./":
			t.Errorf("the first entry is %q", h.Name)
		case dir != "" && seen[dir] != tar.TypeDir:
			t.Errorf("%q comes before its directory", h.Name)
		case seen[name] != 0:
			t.Errorf("%q comes twice", h.Name)
		case strings.HasPrefix(parts[len(parts)-1], ".wh."):
			t.Errorf("%q is a whiteout", h.Name)
		case h.Typeflag == tar.TypeLink && (seen[h.Linkname] == 0 || seen[h.Linkname] == tar.TypeLink):
			t.Errorf("%q is a link to %q, which is no file before it", h.Name, h.Linkname)
		case len(seen) > 1 && !before(last, parts):
			t.Errorf("%q comes after %q", h.Name, last)
		}
		seen[name], last = h.Typeflag, parts
	}
	if len(seen) == 0 {
		t.Error("a layer without a root")
	}
}

func before(a, b []string) bool {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return len(a) < len(b)
}

// TestSameBytes: neither the number of processors, nor the umask, nor the environment make a difference.
func TestSameBytes(t *testing.T) {
	make := func() [][]byte {
		r := rand.New(rand.NewPCG(1, 6))
		return deal(randomWorld(t, r, notUTF8), r, 4)
	}
	want := make()
	for _, procs := range []int{1, 8} {
		for _, umask := range []int{0, 0o777} {
			for _, locale := range []string{"C", "tr_TR.UTF-8"} {
				t.Setenv("LC_ALL", locale)
				t.Setenv("TZ", "America/New_York")
				old, oldMask := runtime.GOMAXPROCS(procs), syscall.Umask(umask)
				got := make()
				runtime.GOMAXPROCS(old)
				syscall.Umask(oldMask)
				if same(got, want) != len(want) {
					t.Errorf("other bytes with %d processors, umask %o, locale %s", procs, umask, locale)
				}
			}
		}
	}
}

// same counts the layers that are equal.
func same(a, b [][]byte) (n int) {
	for i := range a {
		if bytes.Equal(a[i], b[i]) {
			n++
		}
	}
	return n
}

func smallWorld(t testing.TB) *world {
	w := newWorld(t)
	for _, d := range []string{"etc", "usr", "usr/bin", "usr/share", "usr/share/doc"} {
		w.dir(d)
	}
	w.file("etc/conf", "a=1\n")
	w.file("usr/bin/tool", strings.Repeat("program ", 1000))
	w.file("usr/share/doc/tool", strings.Repeat("manual ", 100))
	w.link("usr/share/doc/alias", "usr/bin/tool")
	check(t, w.tree.SetXattrs(w.node("usr/bin/tool"), []tree.Xattr{{Name: "security.capability", Value: []byte("\x01\x00\x00\x02")}}))
	w.tree.Canonicalize()
	return w
}

// layers has one for each directory with files of its own.
func (w *world) layers() [][]byte {
	return [][]byte{
		w.layer(w.below("etc")), w.layer(w.below("usr/bin")), w.layer(w.below("usr/share")), w.layer(func(n tree.Node) bool { return n == w.node("usr") }),
	}
}

func TestOneFileEdited(t *testing.T) {
	w := smallWorld(t)
	old := w.layers()
	w.fill(w.node("usr/bin/tool"), []byte(strings.Repeat("PROGRAM ", 1000)))
	now := w.layers()
	if n := same(old, now); n != len(old)-1 || bytes.Equal(old[1], now[1]) {
		t.Errorf("%d of %d layers are the same", n, len(old))
	}
}

// TestDirectoryTimes: a directory that was touched changes no layer, unless times are kept.
func TestDirectoryTimes(t *testing.T) {
	epoch := time.Unix(1_650_000_000, 0)
	for _, c := range []struct {
		o    chunk.MtimeOptions
		same int
	}{
		{chunk.MtimeOptions{}, 1},
		{chunk.MtimeOptions{Policy: chunk.MtimeClamp, Epoch: epoch}, 4},
		{chunk.MtimeOptions{Policy: chunk.MtimeStable}, 4},
	} {
		make := func(sec int64) [][]byte {
			w := smallWorld(t)
			w.touch("usr", sec)
			w.touch("usr/share", sec)
			check(t, chunk.NormaliseMtimes(w.tree, c.o))
			return w.layers()
		}
		if n := same(make(1_640_000_000), make(1_690_000_000)); n != c.same {
			t.Errorf("%q: %d layers are the same, want %d", c.o.Policy, n, c.same)
		}
	}
}

// TestGoldenLayer pins bytes: others would have everyone fetch everything once more.
func TestGoldenLayer(t *testing.T) {
	const want = "ed9c5983489ba1cec34157749896e4a9aa558fc633456da33b4dd635293d9519"
	if got := fmt.Sprintf("%x", sha256.Sum256(smallWorld(t).layer(all))); got != want {
		t.Errorf("layer has the digest %s, want %s", got, want)
	}
}

func TestEmptyLayer(t *testing.T) {
	w := smallWorld(t)
	entries := 0
	r := tar.NewReader(bytes.NewReader(w.layer(func(tree.Node) bool { return false })))
	for ; ; entries++ {
		if _, err := r.Next(); err == io.EOF {
			break
		} else {
			check(t, err)
		}
	}
	if entries != 1 {
		t.Errorf("%d entries, want the root alone", entries)
	}
}

type failing struct {
	io.Reader
	err error
}

func (f failing) Close() error { return f.err }

// TestBadContent: content that can't be what the tree has is an error with the path.
func TestBadContent(t *testing.T) {
	right := strings.Repeat("program ", 1000)
	boom := errors.New("boom")
	for _, c := range []struct {
		what string
		open func() (io.ReadCloser, error)
		want string
	}{
		{"right", func() (io.ReadCloser, error) { return failing{strings.NewReader(right), nil}, nil }, ""},
		{"short", func() (io.ReadCloser, error) { return failing{strings.NewReader(right[1:]), nil}, nil }, "content ends after 7999 bytes, the tree has 8000"},
		{"empty", func() (io.ReadCloser, error) { return failing{strings.NewReader(""), nil}, nil }, "content ends after 0 bytes, the tree has 8000"},
		{"long", func() (io.ReadCloser, error) { return failing{strings.NewReader(right + "x"), nil}, nil }, "content is longer than the 8000 bytes that the tree has"},
		{"not opened", func() (io.ReadCloser, error) { return nil, boom }, "boom"},
		{"not read", func() (io.ReadCloser, error) {
			return failing{io.MultiReader(strings.NewReader(right[:100]), iotestErr{boom}), nil}, nil
		}, "boom"},
		{"bad end", func() (io.ReadCloser, error) {
			return failing{io.MultiReader(strings.NewReader(right), iotestErr{boom}), nil}, nil
		}, "boom"},
		{"not closed", func() (io.ReadCloser, error) { return failing{strings.NewReader(right), boom}, nil }, "boom"},
	} {
		w := smallWorld(t)
		tool := w.node("usr/bin/tool")
		err := chunk.WriteLayer(context.Background(), io.Discard, w.tree, all, func(n tree.Node) (io.ReadCloser, error) {
			if n == tool {
				return c.open()
			}
			return w.open(n)
		})
		if c.want == "" {
			check(t, err)
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), "write layer: /usr/bin/tool: "+c.want) {
			t.Errorf("%s: %v, want %s", c.what, err, c.want)
		}
	}
}

type iotestErr struct{ err error }

func (e iotestErr) Read([]byte) (int, error) { return 0, e.err }

// TestUnwritable: what a layer can't hold is an error with the path, if the layer has it.
func TestUnwritable(t *testing.T) {
	for _, c := range []struct {
		edit func(w *world)
		want string
	}{
		{func(w *world) { w.file("etc/.wh.conf", "x") }, "/etc/.wh.conf: a name that begins with .wh."},
		{func(w *world) { w.dir("etc/.wh..wh.plnk") }, "/etc/.wh..wh.plnk: a name that begins with .wh."},
		{func(w *world) { w.add("etc/socket", tree.Attr{Mode: tree.Socket | 0o600}) }, "/etc/socket: it is a socket"},
		{func(w *world) { w.add("etc/odd", tree.Attr{Mode: 0o600}) }, "/etc/odd: unknown file type 0"},
		{func(w *world) {
			check(t, w.tree.SetXattrs(w.node("etc/conf"), []tree.Xattr{{Name: "user.x"}}))
		}, `/etc/conf: extended attribute "user.x" is empty`},
		{func(w *world) {
			check(t, w.tree.SetXattrs(w.node("etc"), []tree.Xattr{{Name: "user.x=y", Value: []byte("1")}}))
		}, `/etc: extended attribute "user.x=y" has a name`},
		{func(w *world) { w.touch("etc/conf", -62135596800) }, "/etc/conf: its time is"},
		{func(w *world) {
			w.add("etc/claim", tree.Attr{Mode: tree.Regular, Size: 100})
		}, "/etc/claim: no content of"},
		{func(w *world) {
			n := w.node("etc/conf")
			check(t, w.tree.SetContent(n, []byte("longer than before")))
		}, "/etc/conf: the tree has 18 bytes of content and a size of 4"},
		{func(w *world) {
			check(t, w.tree.SetAttr(w.node("etc/conf"), tree.Attr{Mode: tree.Regular, Size: 1 << 63}))
		}, "/etc/conf: a size of 9223372036854775808 bytes"},
		{func(w *world) {
			path := "etc"
			for len(path) < tree.TargetMax {
				path += "/" + strings.Repeat("d", 200)
				w.dir(path)
			}
		}, "its path has more than 4095 bytes"},
	} {
		w := smallWorld(t)
		c.edit(w)
		w.tree.Canonicalize()
		err := chunk.WriteLayer(context.Background(), io.Discard, w.tree, all, w.open)
		if err == nil || !strings.HasPrefix(err.Error(), "write layer: /") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
		w.layer(w.below("usr"))
	}
}

func TestCancelled(t *testing.T) {
	w := smallWorld(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := chunk.WriteLayer(ctx, io.Discard, w.tree, all, w.open); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestSmallDisk: an error of the writer is told, be it at the last byte.
func TestSmallDisk(t *testing.T) {
	w := smallWorld(t)
	size := len(w.layer(all))
	for _, room := range []int{0, 100, size - 1, size} {
		err := chunk.WriteLayer(context.Background(), &limited{room}, w.tree, all, w.open)
		if (err == nil) != (room == size) {
			t.Errorf("%d bytes of %d: %v", room, size, err)
		}
	}
}

type limited struct{ left int }

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, syscall.ENOSPC
	}
	return len(p), nil
}

// TestBsdtar has another program read layers and write them anew: nothing gets lost or changes on the way.
func TestBsdtar(t *testing.T) {
	if _, err := exec.LookPath("bsdtar"); err != nil {
		t.Skip("bsdtar is not installed")
	}
	for seed := range uint64(10) {
		w := randomWorld(t, rand.New(rand.NewPCG(seed, 7)), "ü")
		for n := range tree.Node(w.tree.Len()) { // which it writes wrongly, or can't
			a := w.tree.Attr(n)
			a.MtimeSec, a.UID, a.GID = max(a.MtimeSec, 0), min(a.UID, 1<<21), min(a.GID, 1<<21)
			check(t, w.tree.SetAttr(n, a))
		}
		cmd := exec.Command("bsdtar", "--format=pax", "-cf", "-", "@-")
		cmd.Stdin, cmd.Env = bytes.NewReader(w.layer(all)), append(os.Environ(), "LC_ALL=C.UTF-8")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, &stderr)
		}
		wantSame(t, fmt.Sprintf("seed %d", seed), flatten(t, out), w.dump())
	}
}

// TestGNUTar has another program unpack layers one upon the other: what is on disk then is the tree.
func TestGNUTar(t *testing.T) {
	testenv.Need(t, "root")
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 8))
	w := randomWorld(t, r, notUTF8)
	for n := range tree.Node(w.tree.Len()) { // which a file system need not hold, or a container may not make
		a := w.tree.Attr(n)
		a.MtimeSec = min(max(a.MtimeSec, 0), 1<<31)
		if a.Mode&tree.TypeMask == tree.Symlink {
			a.Mode = tree.Symlink | 0o777
		}
		check(t, w.tree.SetAttr(n, a), w.tree.SetXattrs(n, nil))
		if typ := a.Mode & tree.TypeMask; typ == tree.CharDevice || typ == tree.BlockDevice {
			dir, name := w.tree.Parent(n), w.tree.Path(n)
			w.tree.Remove(dir, []byte(name[strings.LastIndexByte(name, '/')+1:]))
		}
	}
	w.tree.Canonicalize()
	check(t, w.tree.SetXattrs(tree.Root, nil))
	for _, l := range deal(w, r, 3) {
		cmd := exec.Command("tar", "-xpf", "-", "--numeric-owner", "--delay-directory-restore", "-C", dir)
		cmd.Stdin = bytes.NewReader(l)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	var b bytes.Buffer
	check(t, index.WriteDirTar(context.Background(), &b, dir, index.DirOptions{}))
	wantSame(t, "unpacked", flatten(t, b.Bytes()), w.dump())
}

func BenchmarkWriteLayer(b *testing.B) {
	w := newWorld(b)
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	total := 0
	for i := range 400 {
		dir := fmt.Sprintf("d%d", i)
		w.dir(dir)
		for j, size := range []int{300, 4000, 20_000, 200_000} {
			w.fill(w.add(fmt.Sprintf("%s/f%d", dir, j), tree.Attr{Mode: tree.Regular | 0o644, MtimeSec: 1, MtimeNsec: 1}), content[i:i+size])
			total += size
		}
	}
	b.SetBytes(int64(total))
	for b.Loop() {
		check(b, chunk.WriteLayer(context.Background(), io.Discard, w.tree, all, w.open))
	}
}
