package wire

import "strconv"

// Opcode says what a request wants.
type Opcode uint32

// Operations (FUSE_*).
const (
	OpLookup      Opcode = 1  // LOOKUP
	OpForget      Opcode = 2  // FORGET; has no reply
	OpGetattr     Opcode = 3  // GETATTR
	OpSetattr     Opcode = 4  // SETATTR
	OpReadlink    Opcode = 5  // READLINK
	OpSymlink     Opcode = 6  // SYMLINK
	OpMknod       Opcode = 8  // MKNOD
	OpMkdir       Opcode = 9  // MKDIR
	OpUnlink      Opcode = 10 // UNLINK
	OpRmdir       Opcode = 11 // RMDIR
	OpRename      Opcode = 12 // RENAME
	OpLink        Opcode = 13 // LINK
	OpOpen        Opcode = 14 // OPEN
	OpRead        Opcode = 15 // READ
	OpWrite       Opcode = 16 // WRITE
	OpStatfs      Opcode = 17 // STATFS
	OpRelease     Opcode = 18 // RELEASE
	OpFsync       Opcode = 20 // FSYNC
	OpSetxattr    Opcode = 21 // SETXATTR
	OpGetxattr    Opcode = 22 // GETXATTR
	OpListxattr   Opcode = 23 // LISTXATTR
	OpRemovexattr Opcode = 24 // REMOVEXATTR
	OpFlush       Opcode = 25 // FLUSH
	OpInit        Opcode = 26 // INIT
	OpOpendir     Opcode = 27 // OPENDIR
	OpReaddir     Opcode = 28 // READDIR
	OpReleasedir  Opcode = 29 // RELEASEDIR
	OpFsyncdir    Opcode = 30 // FSYNCDIR
	OpAccess      Opcode = 34 // ACCESS
	OpCreate      Opcode = 35 // CREATE
	OpInterrupt   Opcode = 36 // INTERRUPT; has no reply
	OpDestroy     Opcode = 38 // DESTROY
	OpIoctl       Opcode = 39 // IOCTL
	OpNotifyReply Opcode = 41 // NOTIFY_REPLY; has no reply
	OpBatchForget Opcode = 42 // BATCH_FORGET; has no reply
	OpFallocate   Opcode = 43 // FALLOCATE
	OpReaddirplus Opcode = 44 // READDIRPLUS
	OpRename2     Opcode = 45 // RENAME2
	OpLseek       Opcode = 46 // LSEEK
	OpCopyRange   Opcode = 47 // COPY_FILE_RANGE
	OpSyncfs      Opcode = 50 // SYNCFS
	OpTmpfile     Opcode = 51 // TMPFILE
	OpStatx       Opcode = 52 // STATX
	OpCopyRange64 Opcode = 53 // COPY_FILE_RANGE_64
	OpcodeEnd            = 64 // more than there are
)

var opcodeNames = [OpcodeEnd]string{
	OpLookup: "LOOKUP", OpForget: "FORGET", OpGetattr: "GETATTR", OpSetattr: "SETATTR", OpReadlink: "READLINK",
	OpSymlink: "SYMLINK", OpMknod: "MKNOD", OpMkdir: "MKDIR", OpUnlink: "UNLINK", OpRmdir: "RMDIR", OpRename: "RENAME",
	OpLink: "LINK", OpOpen: "OPEN", OpRead: "READ", OpWrite: "WRITE", OpStatfs: "STATFS", OpRelease: "RELEASE",
	OpFsync: "FSYNC", OpSetxattr: "SETXATTR", OpGetxattr: "GETXATTR", OpListxattr: "LISTXATTR",
	OpRemovexattr: "REMOVEXATTR", OpFlush: "FLUSH", OpInit: "INIT", OpOpendir: "OPENDIR", OpReaddir: "READDIR",
	OpReleasedir: "RELEASEDIR", OpFsyncdir: "FSYNCDIR", OpAccess: "ACCESS", OpCreate: "CREATE", OpInterrupt: "INTERRUPT",
	OpDestroy: "DESTROY", OpIoctl: "IOCTL", OpNotifyReply: "NOTIFY_REPLY", OpBatchForget: "BATCH_FORGET",
	OpFallocate: "FALLOCATE", OpReaddirplus: "READDIRPLUS", OpRename2: "RENAME2", OpLseek: "LSEEK",
	OpCopyRange: "COPY_FILE_RANGE", OpSyncfs: "SYNCFS", OpTmpfile: "TMPFILE", OpStatx: "STATX",
	OpCopyRange64: "COPY_FILE_RANGE_64",
}

// String is the kernel's name without FUSE_, or the number.
func (o Opcode) String() string {
	if o < OpcodeEnd && opcodeNames[o] != "" {
		return opcodeNames[o]
	}
	return strconv.FormatUint(uint64(o), 10)
}

// Replied tells whether the kernel waits for a reply.
func (o Opcode) Replied() bool {
	switch o {
	case OpForget, OpBatchForget, OpInterrupt, OpNotifyReply:
		return false
	}
	return true
}
