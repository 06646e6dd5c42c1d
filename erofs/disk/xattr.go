package disk

// XattrHeader is struct erofs_xattr_ibody_header, with which an inode's xattr area begins. After it come SharedCount
// references into the shared table, then the inode's own entries.
type XattrHeader struct {
	NameFilter  uint32 // h_name_filter: a set bit means that no xattr has a name with this hash
	SharedCount uint8  // h_shared_count
	// h_reserved2, 7 bytes
}

// Decode reads h from the first XattrHeaderSize bytes of b.
func (h *XattrHeader) Decode(b []byte) {
	_ = b[XattrHeaderSize-1]
	h.NameFilter = le.Uint32(b[0:])
	h.SharedCount = b[4]
}

// AppendTo appends h as it is on disk.
func (h *XattrHeader) AppendTo(b []byte) []byte {
	b = le.AppendUint32(b, h.NameFilter)
	return append(b, h.SharedCount, 0, 0, 0, 0, 0, 0, 0)
}

// XattrAreaSize is the size in bytes of the xattr area of an inode with i_xattr_icount count: none, or the header, which
// counts as one, and units of 4 bytes.
func XattrAreaSize(count uint16) int {
	if count == 0 {
		return 0
	}
	return XattrHeaderSize + XattrRefSize*(int(count)-1)
}

// XattrCount is the i_xattr_icount of an inode whose xattr area has size bytes.
func XattrCount(size int) uint16 {
	if size == 0 {
		return 0
	}
	return uint16((size-XattrHeaderSize)/XattrRefSize + 1)
}

// XattrEntry is struct erofs_xattr_entry. Name and value follow, then zeros up to a multiple of 4 bytes.
type XattrEntry struct {
	NameLen   uint8      // e_name_len: of the name without its prefix
	Index     XattrIndex // e_name_index
	ValueSize uint16     // e_value_size
}

// Decode reads e from the first XattrEntrySize bytes of b.
func (e *XattrEntry) Decode(b []byte) {
	_ = b[XattrEntrySize-1]
	e.NameLen = b[0]
	e.Index = XattrIndex(b[1])
	e.ValueSize = le.Uint16(b[2:])
}

// AppendTo appends e as it is on disk.
func (e *XattrEntry) AppendTo(b []byte) []byte {
	b = append(b, e.NameLen, byte(e.Index))
	return le.AppendUint16(b, e.ValueSize)
}

// Size is that of the entry with name, value and padding, in bytes.
func (e *XattrEntry) Size() int {
	n := XattrEntrySize + int(e.NameLen) + int(e.ValueSize)
	return (n + 3) &^ 3 // EROFS_XATTR_ALIGN
}

// XattrIndex stands for a prefix of an xattr's name.
type XattrIndex uint8

// Prefixes (EROFS_XATTR_INDEX_*).
const (
	XattrNone       XattrIndex = 0 // no prefix; the kernel never shows such xattrs
	XattrUser       XattrIndex = 1 // USER
	XattrACLAccess  XattrIndex = 2 // POSIX_ACL_ACCESS
	XattrACLDefault XattrIndex = 3 // POSIX_ACL_DEFAULT
	XattrTrusted    XattrIndex = 4 // TRUSTED
	XattrLustre     XattrIndex = 5 // LUSTRE; mkcomposefs stores lustre. names without prefix
	XattrSecurity   XattrIndex = 6 // SECURITY

	// XattrLongPrefix is set in indexes that count the image's own table of prefixes.
	XattrLongPrefix XattrIndex = 0x80 // EROFS_XATTR_LONG_PREFIX
)

var xattrPrefixes = [...]string{
	XattrUser:       "user.",
	XattrACLAccess:  "system.posix_acl_access",
	XattrACLDefault: "system.posix_acl_default",
	XattrTrusted:    "trusted.",
	XattrLustre:     "lustre.",
	XattrSecurity:   "security.",
}

// Prefix is the string that i stands for. It is not ok if there is none for i, or if the image's own table has it.
func (i XattrIndex) Prefix() (prefix string, ok bool) {
	if int(i) < len(xattrPrefixes) {
		return xattrPrefixes[i], true
	}
	return "", false
}

// XattrFilterSeed and the prefix's index make the seed of the XXH32 by which a name filter places a name.
const XattrFilterSeed = 0x25BBE08F // EROFS_XATTR_FILTER_SEED

// XattrFilterEmpty is the name filter of no names; each name clears a bit.
const XattrFilterEmpty = 0xffffffff // EROFS_XATTR_FILTER_DEFAULT

// XattrFilterBits is the number of a filter's bits.
const XattrFilterBits = 32 // EROFS_XATTR_FILTER_BITS
