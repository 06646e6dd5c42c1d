package index

import (
	"errors"
	"fmt"
	"math"
)

// Bits of st_mode, from stat(2).
const (
	modeFmt     = 0o170000
	modeFile    = 0o100000
	modeDir     = 0o040000
	modeSymlink = 0o120000
	modeChar    = 0o020000
	modeBlock   = 0o060000
	modeFifo    = 0o010000
	modePerm    = 0o7777
)

// Bounds of the 32-bit device number: 12 bits and 20 bits.
const (
	maxDevMajor = 1<<12 - 1
	maxDevMinor = 1<<20 - 1
)

// readEntry reads the entry with header h into p.entry, content included.
func (p *tarParser) readEntry(h *tarHeader) error {
	p.entry = Entry{Object: -1, Xattrs: p.entry.Xattrs[:0]}
	if err := checkLimit("entries of the layer", int64(p.report.Entries)+1, p.limits.MaxEntries, "--max-entries"); err != nil {
		return err
	}
	mode, err := typeMode(h[offType])
	if err != nil {
		return err
	}
	form := notSparse
	if mode == modeFile {
		if form, err = p.pax.sparseForm(h[offType]); err != nil {
			return err
		}
	}
	if p.entry.Mode, err = p.readName(h, mode, form); err != nil {
		return err
	}
	if err := p.readAttr(h); err != nil {
		return err
	}
	if err := p.readXattrs(); err != nil {
		return err
	}
	return p.readKind(h, form)
}

// typeMode returns the file type that a type flag stands for, 0 for a hard link.
func typeMode(typ byte) (uint32, error) {
	switch typ {
	case typeFile, typeFileV7, typeCont, typeSparse:
		return modeFile, nil
	case typeHardlink:
		return 0, nil
	case typeSymlink:
		return modeSymlink, nil
	case typeChar:
		return modeChar, nil
	case typeBlock:
		return modeBlock, nil
	case typeDir:
		return modeDir, nil
	case typeFifo:
		return modeFifo, nil
	}
	return 0, fmt.Errorf("entry type %q is not one that can be read", typ)
}

// readName sets the entry's name and returns its file type, which may depend on
// it: before POSIX a directory was a file with a slash at the end of its name.
func (p *tarParser) readName(h *tarHeader, mode uint32, form sparseForm) (uint32, error) {
	raw := p.entryName(h, form)
	if mode == modeFile && len(raw) > 0 && raw[len(raw)-1] == '/' {
		if err := p.checkSlash(h, form); err != nil {
			p.entry.Name = raw[:min(len(raw), maxPath)] // for the error
			return 0, err
		}
		mode = modeDir
	}
	var err error
	if p.name, err = appendClean(p.name[:0], raw); err != nil {
		p.entry.Name = raw[:min(len(raw), maxPath)] // for the error
		return 0, err
	}
	p.entry.Name = p.name
	if len(p.name) == 0 && mode != modeDir {
		return 0, errors.New("name is empty, and only a directory can be the root")
	}
	return mode, nil
}

// checkSlash tells whether a file whose name ends in a slash can be taken for a
// directory. Of the types since POSIX other readers consume the content before
// they look at the name, if they look at all, so content leaves no reading that
// all could share. Of type NUL Go's archive/tar, and so container engines, say
// "directory" first and skip none.
func (p *tarParser) checkSlash(h *tarHeader, form sparseForm) error {
	if form != notSparse {
		return errors.New("sparse file with a slash at the end of its name")
	}
	if h[offType] == typeFileV7 {
		return nil
	}
	if size, err := p.number(paxSize, h.bytes(fieldSize)); err != nil || size != 0 {
		return errors.New("file with content and a slash at the end of its name")
	}
	return nil
}

// entryName returns the entry's name as the archive has it. The path record of a
// PAX sparse file is a name made up for readers that do not know sparse files.
func (p *tarParser) entryName(h *tarHeader, form sparseForm) []byte {
	if form == sparse0 || form == sparse1 {
		if name := p.pax.value(paxSparseName); name != nil {
			return name
		}
	}
	if name := p.pax.value(paxPath); name != nil {
		return name
	}
	if p.ext.seen[extLongName] {
		return p.ext.longName
	}
	p.rawName = h.appendName(p.rawName[:0])
	return p.rawName
}

// readAttr sets mode, owner and time.
func (p *tarParser) readAttr(h *tarHeader) error {
	perm, err := parseNumber(h.bytes(fieldMode))
	if err == nil && perm < 0 {
		err = errNegative
	}
	if err != nil {
		return fmt.Errorf("mode: %w", err)
	}
	p.entry.Mode |= uint32(perm & modePerm)
	if p.entry.UID, err = p.owner(paxUID, h.bytes(fieldUID)); err != nil {
		return fmt.Errorf("uid: %w", err)
	}
	if p.entry.GID, err = p.owner(paxGID, h.bytes(fieldGID)); err != nil {
		return fmt.Errorf("gid: %w", err)
	}
	if record := p.pax.value(paxMtime); record != nil {
		p.entry.MtimeSec, p.entry.MtimeNsec, err = parsePAXTime(record)
	} else {
		p.entry.MtimeSec, err = parseNumber(h.bytes(fieldMtime))
	}
	if err != nil {
		return fmt.Errorf("mtime: %w", err)
	}
	return nil
}

// owner returns a uid or gid, of the record if there is one, else of the field.
func (p *tarParser) owner(key paxKey, b []byte) (uint32, error) {
	n, err := p.number(key, b)
	if err != nil {
		return 0, err
	}
	if n < 0 || n > math.MaxUint32 {
		return 0, fmt.Errorf("%d does not fit 32 bits", n)
	}
	return uint32(n), nil
}

// number returns the number that the record key, or else the field b, has.
func (p *tarParser) number(key paxKey, b []byte) (int64, error) {
	if record := p.pax.value(key); record != nil {
		return parseDecimal(record)
	}
	return parseNumber(b)
}

// readXattrs sets the extended attributes.
func (p *tarParser) readXattrs() error {
	if len(p.pax.global.xattrs) == 0 && len(p.pax.local.xattrs) == 0 {
		return nil
	}
	p.entry.Xattrs = p.pax.appendXattrs(p.entry.Xattrs)
	if err := p.records.checkXattrCount(p.entry.Xattrs); err != nil {
		return err
	}
	var n int64
	for _, x := range p.entry.Xattrs {
		n += int64(len(x.Name) + len(x.Value))
	}
	if err := checkLimit("bytes of extended attributes of one entry", n, p.limits.MaxXattrBytes, "--max-xattr-bytes"); err != nil {
		return err
	}
	p.xattrs += n
	return checkLimit("bytes of extended attributes of the layer", p.xattrs, p.limits.MaxLayerXattrBytes, "--max-layer-xattr-bytes")
}

// readKind sets what only some kinds of entries have: content, target, device.
//
// A size on anything but a file says nothing, and no content is skipped: some
// writers put the size of a link's target or of a directory there. Go's
// archive/tar, with which container engines read layers, does the same. Readers
// that skip content find the next header elsewhere.
func (p *tarParser) readKind(h *tarHeader, form sparseForm) error {
	kind := p.entry.Mode & modeFmt
	if kind == modeFile {
		return p.readFile(h, form)
	}
	if size, err := p.number(paxSize, h.bytes(fieldSize)); err != nil || size != 0 {
		p.report.Inexact = true
	}
	switch kind {
	case 0:
		return p.readHardlink(h)
	case modeSymlink:
		return p.readSymlink(h)
	case modeChar, modeBlock:
		return p.readDevice(h)
	}
	return nil
}

// target returns the link target as the archive has it.
func (p *tarParser) target(h *tarHeader) []byte {
	if target := p.pax.value(paxLinkpath); target != nil {
		return target
	}
	if p.ext.seen[extLongLink] {
		return p.ext.longLink
	}
	return cString(h.bytes(fieldLink))
}

// readHardlink sets the path that a hard link points to.
func (p *tarParser) readHardlink(h *tarHeader) (err error) {
	p.entry.Hardlink = true
	raw := p.target(h)
	if p.link, err = appendClean(p.link[:0], raw); err != nil {
		return fmt.Errorf("hard link to %.64q: %w", raw, err)
	}
	if len(p.link) == 0 {
		return fmt.Errorf("hard link to %.64q: path is empty", raw)
	}
	p.entry.Link = p.link
	return nil
}

// readSymlink sets the target of a symlink.
func (p *tarParser) readSymlink(h *tarHeader) error {
	target := p.target(h)
	switch {
	case len(target) == 0:
		return errors.New("symlink has no target")
	case len(target) > maxPath:
		return fmt.Errorf("target of the symlink has %d bytes, more than %d", len(target), maxPath)
	}
	p.link = append(p.link[:0], target...)
	p.entry.Link = p.link
	return nil
}

// readDevice sets the device number.
func (p *tarParser) readDevice(h *tarHeader) error {
	if h.format() == formatV7 {
		return errors.New("device in a v7 header, which has no device numbers")
	}
	major, err := parseNumber(h.bytes(fieldDevMajor))
	if err != nil {
		return fmt.Errorf("major device number: %w", err)
	}
	minor, err := parseNumber(h.bytes(fieldDevMinor))
	if err != nil {
		return fmt.Errorf("minor device number: %w", err)
	}
	if major < 0 || major > maxDevMajor || minor < 0 || minor > maxDevMinor {
		return fmt.Errorf("device %d,%d is out of range, %d,%d at most", major, minor, maxDevMajor, maxDevMinor)
	}
	p.entry.Rdev = uint32(minor&0xff | major<<8 | (minor&^0xff)<<12)
	return nil
}

// readFile reads the content of a file.
func (p *tarParser) readFile(h *tarHeader, form sparseForm) error {
	size, err := p.number(paxSize, h.bytes(fieldSize))
	if err == nil && size < 0 {
		err = errNegative
	}
	if err != nil {
		return fmt.Errorf("size: %w", err)
	}
	if form != notSparse {
		err = p.readSparse(form, h, size)
	} else {
		err = p.readContent(size)
	}
	p.setPadding(size)
	return err
}

// readContent reads size bytes of content, inline or into an object.
func (p *tarParser) readContent(size int64) error {
	if err := p.checkContent(size); err != nil {
		return err
	}
	p.entry.Size = size
	if size <= InlineMax {
		p.entry.Content = p.block[:size]
		return p.readAll(p.entry.Content, "content")
	}
	object, err := p.in.External(size)
	if err != nil {
		return fmt.Errorf("read content: %w", err)
	}
	p.entry.Object = object
	p.pos += size
	return nil
}

// checkContent checks the size of a file against the limits before anything is
// read or made for it.
func (p *tarParser) checkContent(size int64) error {
	if err := checkLimit("bytes of a file", size, p.limits.MaxFileSize, "--max-file-size"); err != nil {
		return err
	}
	if p.content > math.MaxInt64-size {
		p.content = math.MaxInt64
	} else {
		p.content += size
	}
	return p.checkLayer(max(p.pos, p.content))
}

// checkLayer checks the size of the layer so far.
func (p *tarParser) checkLayer(n int64) error {
	return checkLimit("bytes of a layer", n, p.limits.MaxLayerSize, "--max-layer-size")
}
