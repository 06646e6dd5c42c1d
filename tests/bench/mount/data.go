package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/flatroot/flatroot/tests/bench/kit"
)

// image is what a side mounts.
type image struct {
	name   string
	path   string
	digest string
	deep   string // a path in it, some directories down
}

// data is what is measured on.
type data struct {
	settings *settings
	objects  string
	tree     image // a server's root, and bigFile
	thousand image // synthetic, without objects
	million  image
	full     string // the tree as an EROFS image with all data, for erofsfuse
	tarDirs  []string
}

// bigFile lies in the tree's root.
const (
	bigFile     = "bigfile"
	bigFileSize = 1 << 30
)

// clients is how many processes share the lists of paths.
const clients = 2

func (d *data) work(name string) string { return filepath.Join(d.settings.work, name) }

func (d *data) image(name string) string { return filepath.Join(d.settings.images, name+".cfs") }

// list is the file with the paths that a client of a job works on.
func (d *data) list(job string, client int) string {
	return d.work(fmt.Sprintf("%s.%d", job, client))
}

// prepare makes whatever isn't there yet from an earlier run in the same directories.
func prepare(s *settings) (*data, error) {
	d := &data{settings: s, objects: filepath.Join(s.work, "store", "objects"), full: filepath.Join(s.work, "full.erofs")}
	steps := []struct {
		file string
		make func(file string) error
	}{
		{d.work("store"), d.makeStore},
		{d.work("tree.dump"), d.makeTreeDump},
		{d.work("lists"), d.makeLists},
		{d.image("tree"), func(f string) error { return d.makeImage(d.work("tree.dump"), f) }},
		{d.image("1k"), func(f string) error { return d.makeSynthetic(1000, f) }},
		{d.image("1M"), func(f string) error { return d.makeSynthetic(1_000_000, f) }},
	}
	for _, step := range steps {
		if err := once(step.file, step.make); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(d.target(), 0o755); err != nil {
		return nil, err
	}
	return d, d.describe()
}

// once makes a file or directory that isn't there, so that one half made doesn't count.
func once(path string, make func(string) error) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	fmt.Fprintf(os.Stderr, "bench/mount: making %s\n", filepath.Base(path))
	if err := make(path + ".new"); err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return os.Rename(path+".new", path)
}

func (d *data) target() string { return d.work("mnt") }

func (d *data) makeStore(dir string) error {
	flatroot := func(args ...string) error {
		return kit.Command(append([]string{d.settings.flatroot, "--store", dir, "--progress", "none"}, args...)...)
	}
	if err := flatroot("init"); err != nil {
		return err
	}
	if err := flatroot("pull", "--name", "server", "oci:"+filepath.Join(d.settings.corpus, "oci", "server-gzip")+":v1"); err != nil {
		return err
	}
	big := d.work("big")
	if err := os.MkdirAll(big, 0o755); err != nil {
		return err
	}
	random := fmt.Sprintf("head -c %d /dev/urandom >%s/%s", bigFileSize, big, bigFile)
	if err := kit.Command("sh", "-c", random); err != nil {
		return err
	}
	if err := flatroot("build", "--name", "big", big); err != nil {
		return err
	}
	return os.Remove(filepath.Join(big, bigFile))
}

// makeTreeDump joins the dumps of both images into one tree.
func (d *data) makeTreeDump(file string) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	for _, part := range []struct{ name, only string }{{"server", "/"}, {"big", "/" + bigFile}} {
		text, err := exec.Command(d.settings.flatroot, "--store", d.work("store"), "dump", part.name).Output()
		if err != nil {
			return fmt.Errorf("dump %s: %w", part.name, err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, part.only) {
				fmt.Fprint(out, line)
			}
		}
	}
	return out.Close()
}

func (d *data) makeImage(dump, file string) error {
	return kit.Command(d.link("mkcomposefs"), "--from-file", dump, file)
}

func (d *data) makeSynthetic(entries int, file string) error {
	dump := d.work("synthetic.dump")
	defer os.Remove(dump)
	if err := kit.WriteDump(dump, entries); err != nil {
		return err
	}
	return d.makeImage(dump, file)
}

// link is our command under another tool's name, as which it is that tool.
func (d *data) link(name string) string {
	at := d.work(name)
	_ = os.Symlink(d.settings.flatroot, at) // it may be there already
	return at
}

// makeLists writes what the clients work on, shuffled and without a path in two lists: up to 20,000 paths a client to lstat,
// and 10,000 files under 32 KiB to read, the small ones that lie in the image itself included.
func (d *data) makeLists(marker string) error {
	var all, small []string
	f, err := os.Open(d.work("tree.dump"))
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		path, size, regular := parseDumpLine(lines.Text())
		all = append(all, path)
		if regular && size > 0 && size < 32<<10 {
			small = append(small, path)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if err := d.writeLists("small", small, 10_000); err != nil {
		return err
	}
	if err := d.writeLists("lstat", all, 20_000); err != nil {
		return err
	}
	return os.WriteFile(marker, nil, 0o644)
}

// parseDumpLine reads the fields that matter here: path, size, mode. Paths with escapes are read as they are written, and
// come back as ".", which is everywhere.
func parseDumpLine(line string) (path string, size int64, regular bool) {
	f := strings.SplitN(line, " ", 4)
	path = strings.TrimPrefix(f[0], "/")
	if path == "" || strings.Contains(path, `\`) {
		return ".", 0, false
	}
	size, _ = strconv.ParseInt(f[1], 10, 64) // made by ourselves a moment ago
	// @ marks a further name of an inode.
	return path, size, strings.HasPrefix(f[2], "100")
}

func (d *data) writeLists(job string, paths []string, most int) error {
	random := rand.New(rand.NewPCG(5, 6)) // the same order every time
	random.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	each := min(most, len(paths)/clients)
	for c := range clients {
		text := strings.Join(paths[c*each:(c+1)*each], "\n")
		if err := os.WriteFile(d.list(job, c), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// describe fills in what is known only of things made.
func (d *data) describe() error {
	d.tree = image{name: "tree", path: d.image("tree"), deep: bigFile}
	d.thousand = image{name: "1k", path: d.image("1k"), deep: kit.FirstFile}
	d.million = image{name: "1M", path: d.image("1M"), deep: kit.FirstFile}
	for _, i := range []*image{&d.tree, &d.thousand, &d.million} {
		out, err := exec.Command(d.link("composefs-info"), "measure-file", i.path).Output()
		if err != nil {
			return fmt.Errorf("measure %s: %w", i.path, err)
		}
		i.digest = strings.TrimSpace(string(out))
	}
	return d.findTarDirs()
}

// findTarDirs takes, of directories that many small files lie in, those that this tree has.
func (d *data) findTarDirs() error {
	text, err := os.ReadFile(d.work("tree.dump"))
	if err != nil {
		return err
	}
	for _, dir := range []string{"usr/lib/python3", "usr/lib/python3.13", "usr/lib/ruby", "usr/share/perl", "usr/share/vim"} {
		if strings.Contains(string(text), "\n/"+dir+" ") {
			d.tarDirs = append(d.tarDirs, dir)
		}
	}
	if len(d.tarDirs) == 0 {
		return fmt.Errorf("the tree has none of the directories to archive")
	}
	return nil
}
