package stream

import (
	"fmt"
	"io"
	"os"
)

// spool keeps bytes in memory up to a limit and the rest in a scratch file: all
// of them must be there before the first can be used, since their number goes
// before them.
type spool struct {
	limit   int // 0: no limit
	scratch func() (*os.File, error)
	mem     []byte // what is behind the file's content
	file    *os.File
	inFile  int64
}

func (s *spool) size() int64 { return s.inFile + int64(len(s.mem)) }

func (s *spool) Write(p []byte) (int, error) {
	if s.scratch != nil && len(s.mem) > 0 && len(s.mem)+len(p) > s.limit {
		if err := s.spill(); err != nil {
			return 0, err
		}
	}
	s.mem = append(s.mem, p...)
	return len(p), nil
}

func (s *spool) spill() (err error) {
	if s.file == nil {
		if s.file, err = s.scratch(); err != nil {
			return err
		}
	}
	if _, err := s.file.WriteAt(s.mem, s.inFile); err != nil {
		return fmt.Errorf("write scratch file: %w", err)
	}
	s.inFile += int64(len(s.mem))
	s.mem = s.mem[:0]
	return nil
}

// copyTo writes all of it to w, and may be called again. It uses no other method
// of w than Write: an encoder's ReadFrom cuts blocks in its own way, and what comes
// out must not depend on whether a file was in use.
func (s *spool) copyTo(w io.Writer) error {
	if s.inFile > 0 {
		n, err := io.Copy(struct{ io.Writer }{w}, io.NewSectionReader(s.file, 0, s.inFile))
		if err == nil && n < s.inFile {
			err = fmt.Errorf("read scratch file: %w", io.ErrUnexpectedEOF)
		}
		if err != nil {
			return err
		}
	}
	_, err := w.Write(s.mem)
	return err
}

// reset empties it and keeps buffer and file for what comes next.
func (s *spool) reset() { s.inFile, s.mem = 0, s.mem[:0] }

func (s *spool) close() error {
	s.reset()
	s.mem = nil
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}
