package disk

// FileType is what a dirent says of the inode that it leads to (EROFS_FT_*).
type FileType uint8

const (
	TypeUnknown     FileType = 0 // UNKNOWN
	TypeRegular     FileType = 1 // REG_FILE
	TypeDirectory   FileType = 2 // DIR
	TypeCharDevice  FileType = 3 // CHRDEV
	TypeBlockDevice FileType = 4 // BLKDEV
	TypeFIFO        FileType = 5 // FIFO
	TypeSocket      FileType = 6 // SOCK
	TypeSymlink     FileType = 7 // SYMLINK
)

// File types of st_mode (inode(7)), by FileType.
var modeTypes = [...]uint32{
	TypeRegular:     0o100000,
	TypeDirectory:   0o040000,
	TypeCharDevice:  0o020000,
	TypeBlockDevice: 0o060000,
	TypeFIFO:        0o010000,
	TypeSocket:      0o140000,
	TypeSymlink:     0o120000,
}

// ModeType is the st_mode form of t, 0 for TypeUnknown and for values that there are not.
func (t FileType) ModeType() uint32 {
	if int(t) < len(modeTypes) {
		return modeTypes[t]
	}
	return 0
}

// TypeOfMode is the type of an inode with this st_mode.
func TypeOfMode(mode uint32) FileType {
	for t, m := range modeTypes {
		if m != 0 && m == mode&0o170000 {
			return FileType(t)
		}
	}
	return TypeUnknown
}

// Dirent is struct erofs_dirent. A directory block begins with its dirents; the names follow, without anything between
// them. So the first NameOffset tells how many dirents there are, and each tells where the name before ends. The last
// name ends with the block, or before a NUL.
type Dirent struct {
	Nid        uint64   // nid
	NameOffset uint16   // nameoff, from the begin of the block
	Type       FileType // file_type
	// reserved, 1 byte
}

// Decode reads d from the first DirentSize bytes of b.
func (d *Dirent) Decode(b []byte) {
	_ = b[DirentSize-1]
	d.Nid = le.Uint64(b[0:])
	d.NameOffset = le.Uint16(b[8:])
	d.Type = FileType(b[10])
}

// AppendTo appends d as it is on disk.
func (d *Dirent) AppendTo(b []byte) []byte {
	b = le.AppendUint64(b, d.Nid)
	b = le.AppendUint16(b, d.NameOffset)
	return append(b, byte(d.Type), 0)
}
