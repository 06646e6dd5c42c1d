package fsverity

import (
	"errors"
	"os"
	"testing"
	"unsafe"

	"github.com/flatroot/flatroot/tests/testenv"
	"golang.org/x/sys/unix"
)

// TestKernelStructs pins what linux/fsverity.h fixes; the request numbers hold
// the sizes too.
func TestKernelStructs(t *testing.T) {
	var e unix.FsverityEnableArg
	var d digestArg
	tests := []struct {
		name      string
		got, want uintptr
	}{
		{"sizeof FsverityEnableArg", unsafe.Sizeof(e), 128},
		{"salt_size", unsafe.Offsetof(e.Salt_size), 12},
		{"salt_ptr", unsafe.Offsetof(e.Salt_ptr), 16},
		{"sig_size", unsafe.Offsetof(e.Sig_size), 24},
		{"sig_ptr", unsafe.Offsetof(e.Sig_ptr), 32},
		{"sizeof digestArg", unsafe.Sizeof(d), 4 + 64},
		{"digest", unsafe.Offsetof(d.raw), 4},
		{"size in FS_IOC_ENABLE_VERITY", unix.FS_IOC_ENABLE_VERITY >> 16 & 0x1fff, unsafe.Sizeof(e)},
		{"size in FS_IOC_MEASURE_VERITY", unix.FS_IOC_MEASURE_VERITY >> 16 & 0x1fff, unsafe.Sizeof(d.FsverityDigest)},
		{"SHA256", uintptr(SHA256), unix.FS_VERITY_HASH_ALG_SHA256},
		{"SHA512", uintptr(SHA512), unix.FS_VERITY_HASH_ALG_SHA512},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s is %d, want %d", tt.name, tt.got, tt.want)
		}
	}
}

func TestExplain(t *testing.T) {
	tests := map[unix.Errno]error{
		unix.ENODATA: ErrNoVerity, unix.EEXIST: ErrEnabled, unix.ETXTBSY: ErrBusy, unix.EBUSY: ErrBusy,
		unix.ENOTTY: ErrNotSupported, unix.EOPNOTSUPP: ErrNotSupported, unix.ENOPKG: ErrNotSupported,
		unix.EIO: nil, unix.EPERM: nil, unix.EINVAL: nil,
	}
	for errno, want := range tests {
		err := explain(errno)
		if !errors.Is(err, errno) {
			t.Errorf("%v got lost in %v", errno, err)
		}
		for _, s := range []error{ErrNoVerity, ErrEnabled, ErrBusy, ErrNotSupported} {
			if errors.Is(err, s) != (s == want) {
				t.Errorf("%v is explained as %v", errno, err)
			}
		}
	}
	if err := explain(nil); err != nil {
		t.Errorf("no error is explained as %v", err)
	}
}

// TestKernelDigest gives digest what a kernel should never return.
func TestKernelDigest(t *testing.T) {
	for _, head := range []unix.FsverityDigest{
		{}, {Algorithm: 1}, {Algorithm: 1, Size: 31}, {Algorithm: 1, Size: 64}, {Algorithm: 2, Size: 32}, {Algorithm: 2, Size: 65},
		{Algorithm: 2, Size: 0xffff}, {Algorithm: 3, Size: 32}, {Algorithm: 0x101, Size: 32},
	} {
		arg := digestArg{FsverityDigest: head}
		if d, err := arg.digest(); err == nil {
			t.Errorf("algorithm %d, size %d is taken as %v", head.Algorithm, head.Size, d)
		}
	}
	arg := digestArg{unix.FsverityDigest{Algorithm: 2, Size: 64}, [64]byte{0: 1, 63: 2}}
	if d, err := arg.digest(); err != nil || d.Algorithm() != SHA512 || d.Bytes()[63] != 2 {
		t.Errorf("got %v, %v", d, err)
	}
}

func TestClosedFile(t *testing.T) {
	f := create(t, t.TempDir(), nil)
	f.Close()
	if d, err := Measure(f); err == nil {
		t.Errorf("a closed file has digest %v", d)
	}
	if err := Enable(f, SHA256); err == nil {
		t.Error("enabled on a closed file")
	}
}

// TestWithoutVerity asks a file system that can't have fs-verity: proc.
func TestWithoutVerity(t *testing.T) {
	f, err := os.Open("/proc/version")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Measure(f); !errors.Is(err, ErrNotSupported) {
		t.Errorf("measure: %v", err)
	}
	if err := Enable(f, SHA256); !errors.Is(err, ErrNotSupported) {
		t.Errorf("enable: %v", err)
	}
}

// TestKernelAgrees compares with the kernel, from no fs-verity to enabled.
func TestKernelAgrees(t *testing.T) {
	testenv.Need(t, "verity")
	dir := t.TempDir()
	data := randomBytes(128*4096 + 1)
	for _, a := range algorithms {
		for _, n := range []int{0, 1, 4095, 4096, 4097, 64*4096 + 1, 128*4096 - 1, 128 * 4096, 128*4096 + 1} {
			f := create(t, dir, data[:n])
			if d, err := Measure(f); !errors.Is(err, ErrNoVerity) {
				t.Errorf("measure before it is enabled: %v, %v", d, err)
			}
			if err := Enable(f, a); err != nil {
				t.Fatal(err)
			}
			if d, err := Measure(f); err != nil || d != Sum(a, data[:n]) {
				t.Errorf("kernel's %v of %d bytes is %v, %v; want %v", a, n, d, err, Sum(a, data[:n]))
			}
			if err := Enable(f, a); !errors.Is(err, ErrEnabled) {
				t.Errorf("enable twice: %v", err)
			}
		}
	}
}

func TestKernelBusy(t *testing.T) {
	testenv.Need(t, "verity")
	f := create(t, t.TempDir(), nil)
	w, err := os.OpenFile(f.Name(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := Enable(f, SHA256); !errors.Is(err, ErrBusy) {
		t.Errorf("enable on a file that is open for writing: %v", err)
	}
}

// create writes a file and opens it read-only.
func create(t *testing.T, dir string, data []byte) *os.File {
	t.Helper()
	w, err := os.CreateTemp(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(w.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
