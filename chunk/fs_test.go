package chunk

import (
	"bytes"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

func TestFS(t *testing.T) {
	x := tree.New(fsverity.SHA256, tree.Attr{Mode: tree.Directory | 0o755})
	add := func(dir tree.Node, name string, a tree.Attr) tree.Node {
		n, err := x.Add(dir, []byte(name), a)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	usr := add(tree.Root, "usr", tree.Attr{Mode: tree.Directory | 0o755})
	lib := add(usr, "lib", tree.Attr{Mode: tree.Directory | 0o755})
	small := add(lib, "small", tree.Attr{Mode: tree.Regular | 0o644, Size: 5})
	must(x.SetContent(small, []byte("small")))
	add(lib, "empty", tree.Attr{Mode: tree.Regular | 0o644})
	large := add(lib, "large", tree.Attr{Mode: tree.Regular | 0o644, Size: 5000})
	h := fsverity.NewHasher(fsverity.SHA256)
	h.Write(bytes.Repeat([]byte("x"), 5000))
	must(x.SetDigest(large, h.Sum()))
	for name, target := range map[string]string{"lib": "usr/lib", "abs": "/usr/lib/small", "loop": "loop", "out": "../../../usr/lib", "dangling": "nowhere"} {
		must(x.SetTarget(add(tree.Root, name, tree.Attr{Mode: tree.Symlink | 0o777, Size: uint64(len(target))}), []byte(target)))
	}
	add(tree.Root, "fifo", tree.Attr{Mode: tree.FIFO | 0o600})
	f := FS(x, func(n tree.Node) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(strings.Repeat("x", 5000))), nil
	})
	sub, err := fs.Sub(f, "usr")
	must(err)
	if err := fstest.TestFS(sub, "lib/small", "lib/empty", "lib/large"); err != nil {
		t.Error(err)
	}
	for _, test := range []struct{ path, want string }{
		{"lib/small", "small"}, {"abs", "small"}, {"out/small", "small"}, {"lib/large", strings.Repeat("x", 5000)},
		{"loop", "open loop: too many symlinks"}, {"dangling", "open dangling: file does not exist"}, {"usr/lib/small/x", "open usr/lib/small/x: file does not exist"},
		{"fifo", "open fifo: it is neither a file nor a directory"}, {"../x", "open ../x: invalid argument"},
	} {
		b, err := fs.ReadFile(f, test.path)
		if err != nil {
			b = []byte(err.Error())
		}
		if string(b) != test.want {
			t.Errorf("%s: %q, want %q", test.path, b, test.want)
		}
	}
}
