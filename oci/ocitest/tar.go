package ocitest

import (
	"archive/tar"
	"bytes"
	"fmt"
)

// File is an entry of a layer. A name that ends in a slash is a directory.
type File struct {
	Name string
	Data string
	Link string // target of a symlink
}

// Tar returns a layer of these files, 0644 or 0755, 0:0, at time 0. It panics
// on files that a tar can't have, as only a wrong test has them.
func Tar(files ...File) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		h := &tar.Header{Name: f.Name, Mode: 0o644, Size: int64(len(f.Data)), Typeflag: tar.TypeReg, Linkname: f.Link}
		switch {
		case f.Link != "":
			h.Typeflag, h.Mode = tar.TypeSymlink, 0o777
		case f.Name == "" || f.Name[len(f.Name)-1] == '/':
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			panic(fmt.Sprintf("tar header of %q: %v", f.Name, err))
		}
		if _, err := w.Write([]byte(f.Data)); err != nil {
			panic(fmt.Sprintf("tar data of %q: %v", f.Name, err))
		}
	}
	if err := w.Close(); err != nil {
		panic(fmt.Sprintf("end of tar: %v", err))
	}
	return out.Bytes()
}
