package mount

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// infoEntry is what we need of a line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
type infoEntry struct {
	ID      int
	Root    string // of the mount within its file system
	Target  string // mount point, within the reader's root
	Options string // of the mount, comma-separated
	FSType  string
	Source  string
	Super   string // options of the file system, comma-separated, still escaped
}

// maxInfoLine bounds a line of mountinfo, bytes. The kernel's longest have many
// overlay layers; each path is below 4096 bytes, and up to 500 layers are allowed.
const maxInfoLine = 4 << 20

// parseMountinfo calls yield for each line, in order: later mounts lie on top.
func parseMountinfo(r io.Reader, yield func(infoEntry) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), maxInfoLine)
	for n := 1; s.Scan(); n++ {
		e, err := parseInfoLine(s.Text())
		if err != nil {
			return fmt.Errorf("mountinfo line %d: %w", n, err)
		}
		if err := yield(e); err != nil {
			return err
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("read mountinfo: %w", err)
	}
	return nil
}

// parseInfoLine cuts a line: six fields, any number of optional ones, a lone
// dash, three more. The last may be empty.
func parseInfoLine(line string) (infoEntry, error) {
	f := strings.Split(line, " ")
	dash := 6
	for dash < len(f) && f[dash] != "-" {
		dash++
	}
	if len(f) < dash+4 {
		return infoEntry{}, fmt.Errorf("%d fields, want at least 10 with a dash", len(f))
	}
	id, err := strconv.Atoi(f[0])
	if err != nil {
		return infoEntry{}, fmt.Errorf("mount id: %w", err)
	}
	return infoEntry{
		ID:      id,
		Root:    unescapeOctal(f[3]),
		Target:  unescapeOctal(f[4]),
		Options: f[5],
		FSType:  unescapeOctal(f[dash+1]),
		Source:  unescapeOctal(f[dash+2]),
		Super:   f[dash+3],
	}, nil
}

// unescapeOctal undoes the kernel's mangling: a backslash and three octal digits
// stand for a byte. Any other backslash is itself.
func unescapeOctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// hasOption says whether a comma-separated list has the option.
func hasOption(list, option string) bool {
	for o := range strings.SplitSeq(list, ",") {
		if o == option {
			return true
		}
	}
	return false
}
