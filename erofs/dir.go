package erofs

import (
	"bytes"
	"fmt"
	"io/fs"
	"iter"
	"sort"

	"github.com/flatroot/flatroot/erofs/disk"
	"github.com/flatroot/flatroot/tree"
)

// Dirent is a name in a directory.
type Dirent struct {
	Name string
	Nid  Nid
	Type disk.FileType // of the inode, as the directory has it
}

// Dirents yields a directory's entries in byte order of their names, without . and .. .
// After an error there is nothing more.
func (i *Inode) Dirents() iter.Seq2[Dirent, error] {
	return func(yield func(Dirent, error) bool) {
		err := i.eachDirent(func(name []byte, d disk.Dirent) (bool, error) {
			if isDot(name) {
				return true, nil
			}
			return yield(Dirent{Name: string(name), Nid: Nid(d.Nid), Type: d.Type}, nil), nil
		})
		if err != nil {
			yield(Dirent{}, err)
		}
	}
}

// Cookie is a place in a directory, between two entries, as telldir(3) has them. Zero is the begin; others come from
// DirentsFrom. A cookie is below 2^63, since directories are smaller than images.
type Cookie uint64

// A block has less than 1<<cookieBits entries: the largest are 64 KiB, and an entry takes 13 bytes.
const cookieBits = 13

// DirentsFrom calls visit for a directory's entries from a place on, . and .. too, until it returns false. Next is the
// place behind the entry. The name is valid during the call. A cookie that is none of this directory leads to its end or
// to some entry. It doesn't allocate for an image in memory.
func (i *Inode) DirentsFrom(from Cookie, visit func(name []byte, nid Nid, t disk.FileType, next Cookie) bool) error {
	err := i.visitDirents(from, func(name []byte, d disk.Dirent, next Cookie) (bool, error) {
		return visit(name, Nid(d.Nid), d.Type, next), nil
	})
	if err != nil {
		return fmt.Errorf("directory %d: %w", i.nid, err)
	}
	return nil
}

// Lookup finds the inode that a name leads to. The error is fs.ErrNotExist if there is no such name. Like the kernel it
// relies on the order of the names: in a directory that has not the right one, it may find no more than the kernel does.
func (i *Inode) Lookup(name string) (Nid, error) { return i.LookupBytes([]byte(name)) }

// LookupBytes is Lookup. It doesn't allocate for an image in memory.
func (i *Inode) LookupBytes(name []byte) (Nid, error) {
	nid, err := i.lookup(name)
	if err != nil && err != fs.ErrNotExist {
		err = fmt.Errorf("look up %q in directory %d: %w", bytes.Clone(name), i.nid, err)
	}
	return nid, err
}

func isDot(name []byte) bool { return string(name) == "." || string(name) == ".." }

// lookup finds the last block that begins with no greater name, then the name in it.
func (i *Inode) lookup(name []byte) (Nid, error) {
	blocks, err := i.dirBlocks()
	if err != nil {
		return 0, err
	}
	var b dirBlock // holds block number `at`
	at := -1
	after := sort.Search(blocks, func(n int) bool {
		if err != nil {
			return false
		}
		if b, err = i.dirBlock(n); err != nil {
			return false
		}
		at = n
		var first []byte
		first, err = b.name(0)
		return bytes.Compare(first, name) > 0
	})
	switch {
	case err != nil:
		return 0, err
	case after == 0:
		return 0, fs.ErrNotExist
	case after-1 != at:
		if b, err = i.dirBlock(after - 1); err != nil {
			return 0, err
		}
	}
	return b.find(name)
}

// dirBlocks is the number of a directory's blocks.
func (i *Inode) dirBlocks() (int, error) {
	if !i.IsDir() {
		return 0, tree.ErrNotDir
	}
	if i.attr.Size > i.img.size {
		return 0, corrupt("a directory of %d bytes is larger than the image", i.attr.Size)
	}
	return int((i.attr.Size + uint64(i.img.BlockSize()) - 1) >> i.img.super.BlockBits), nil
}

// eachDirent calls visit for all of a directory's entries, . and .. too, until it returns false or an error. It checks
// that the names are in order. The name is valid during the call.
func (i *Inode) eachDirent(visit func(name []byte, d disk.Dirent) (bool, error)) error {
	last := make([]byte, 0, disk.NameMax)
	err := i.visitDirents(0, func(name []byte, d disk.Dirent, _ Cookie) (bool, error) {
		if bytes.Compare(last, name) >= 0 {
			return false, corrupt("%q is not after %q", name, last)
		}
		last = append(last[:0], name...)
		return visit(name, d)
	})
	if err != nil {
		return fmt.Errorf("directory %d: %w", i.nid, err)
	}
	return nil
}

func (i *Inode) visitDirents(from Cookie, visit func(name []byte, d disk.Dirent, next Cookie) (bool, error)) error {
	blocks, err := i.dirBlocks()
	if err != nil {
		return err
	}
	k := int(from & (1<<cookieBits - 1))
	for n := from >> cookieBits; n < Cookie(blocks); n++ {
		b, err := i.dirBlock(int(n))
		if err != nil {
			return err
		}
		for ; k < b.count; k++ {
			name, err := b.name(k)
			if err != nil {
				return err
			}
			if more, err := visit(name, b.dirent(k), n<<cookieBits|Cookie(k+1)); !more || err != nil {
				return err
			}
		}
		k = 0
	}
	return nil
}

// dirBlock is a block of dirents and names.
type dirBlock struct {
	b     []byte
	count int
}

// dirBlock reads block n of a directory.
func (i *Inode) dirBlock(n int) (dirBlock, error) {
	off := uint64(n) << i.img.super.BlockBits
	b, err := i.dataBytes(off, min(i.attr.Size-off, uint64(i.img.BlockSize())))
	if err != nil {
		return dirBlock{}, err
	}
	if len(b) < disk.DirentSize {
		return dirBlock{}, corrupt("a block of %d bytes has no room for a dirent", len(b))
	}
	var d disk.Dirent
	d.Decode(b)
	names := int(d.NameOffset)
	if names == 0 || names%disk.DirentSize != 0 || names >= len(b) {
		return dirBlock{}, corrupt("names begin at %d in a block of %d bytes", names, len(b))
	}
	return dirBlock{b, names / disk.DirentSize}, nil
}

func (b dirBlock) dirent(k int) (d disk.Dirent) {
	d.Decode(b.b[k*disk.DirentSize:])
	return d
}

// name is the k-th name. It ends where the next begins; the last one ends before a NUL or with the block.
func (b dirBlock) name(k int) ([]byte, error) {
	start, end := int(b.dirent(k).NameOffset), len(b.b)
	if k+1 < b.count {
		end = int(b.dirent(k + 1).NameOffset)
	}
	if start < b.count*disk.DirentSize || end > len(b.b) || start >= end {
		return nil, corrupt("dirent %d: the name is at %d to %d in a block of %d bytes", k, start, end, len(b.b))
	}
	name := b.b[start:end]
	if k+1 == b.count {
		if nul := bytes.IndexByte(name, 0); nul >= 0 {
			name = name[:nul]
		}
	}
	if isDot(name) {
		return name, nil
	}
	if err := tree.CheckName(name); err != nil {
		return nil, corrupt("dirent %d: %w", k, err)
	}
	return name, nil
}

func (b dirBlock) find(name []byte) (Nid, error) {
	var err error
	k, found := sort.Find(b.count, func(k int) int {
		got, e := b.name(k)
		if e != nil {
			err = e
		}
		return bytes.Compare(name, got)
	})
	switch {
	case err != nil:
		return 0, err
	case !found:
		return 0, fs.ErrNotExist
	}
	return Nid(b.dirent(k).Nid), nil
}
