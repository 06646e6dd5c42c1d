package index

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// buildTar makes a tar of a text with a line for each header, in the form that doc/formats/oci-1.md describes:
//
//	dir usr 0755 uid=1 gid=2 mtime=12.5 x:user.a=value x:security.capability=0x0100
//	file usr/a 0644 data=text
//	file usr/b size=100000 fill=b
//	sym usr/c -> a
//	hard usr/d -> usr/a
//	chr dev/null 0666 dev=1,3
//	global uid=1000
//
// A word may be quoted as in Go, and so may what is behind its first "=". Empty lines and lines that begin with # are
// skipped. The mode is 0755 of directories and 0644 of the rest if not given, the time 0.
func buildTar(t testing.TB, text string) []byte {
	t.Helper()
	b, err := tarOf(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tarOf(text string) ([]byte, error) {
	var b tarBuilder
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := b.addLine(line); err != nil {
			return nil, fmt.Errorf("line %d of the tar, %q: %w", i+1, line, err)
		}
	}
	return b.end(), nil
}

// lineTypes are the words for an entry's type flag.
var lineTypes = map[string]byte{
	"file": typeFile, "dir": typeDir, "sym": typeSymlink, "hard": typeHardlink,
	"chr": typeChar, "blk": typeBlock, "fifo": typeFifo, "cont": typeCont,
}

var errWords = errors.New("needs a type and a name")

// addLine adds the header of one line, and what belongs to it.
func (t *tarBuilder) addLine(line string) error {
	words, err := splitWords(line)
	if err != nil {
		return err
	}
	if typ, ok := lineTypes[words[0]]; ok {
		return t.addEntry(typ, words[1:])
	}
	return t.addSpecial(words[0], words[1:])
}

// addSpecial adds what is no plain entry.
func (t *tarBuilder) addSpecial(word string, args []string) error {
	switch word {
	case "no-end":
		t.cut()
		return nil
	case "pax":
		t.pax(args...)
		return nil
	case "global":
		t.global(args...)
		return nil
	}
	if len(args) == 0 {
		return errWords
	}
	switch word {
	case "nul":
		return t.addEntry(typeFileV7, args)
	case "type":
		return t.addEntry(args[0][0], args[1:])
	case "sparse", "sparse-1.0":
		return t.addSparse(args, word != "sparse")
	case "gnu-name":
		t.add(head{typ: typeLongName, name: "././@LongLink", data: args[0] + "\x00", magic: magicGNU})
	case "gnu-link":
		t.add(head{typ: typeLongLink, name: "././@LongLink", data: args[0] + "\x00", magic: magicGNU})
	case "zeros":
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		t.raw(make([]byte, n*tarBlock))
	case "bytes":
		t.raw([]byte(args[0]))
	default:
		return fmt.Errorf("unknown type %q", word)
	}
	return nil
}

// addSparse adds a sparse file, in GNU's old form or that of version 1.0: NAME SIZE OFFSET:DATA...
func (t *tarBuilder) addSparse(args []string, pax bool) error {
	if len(args) < 2 {
		return errors.New("needs a name and a size")
	}
	size, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	m, stored, err := parseSegments(args[2:])
	if err != nil {
		return err
	}
	if pax {
		t.pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name="+args[0], "GNU.sparse.realsize="+args[1])
		t.add(head{name: "GNUSparseFile.0/x", mode: 0o644, data: textMapOf(m...) + stored})
		return nil
	}
	h, blocks := oldSparse(args[0], size, stored, m...)
	h.mode = 0o644
	t.raw(h.block()).raw(blocks).padded(stored)
	return nil
}

// parseSegments reads OFFSET:DATA words.
func parseSegments(args []string) (m []segment, stored string, err error) {
	for _, arg := range args {
		offset, data, _ := strings.Cut(arg, ":")
		at, err := strconv.ParseInt(offset, 10, 64)
		if err != nil {
			return nil, "", err
		}
		m, stored = append(m, segment{at, int64(len(data))}), stored+data
	}
	return m, stored, nil
}

// lineEntry is an entry while its line is read.
type lineEntry struct {
	head
	records []string
	fill    string
}

// addEntry adds an entry: NAME [-> TARGET] [MODE] [KEY=VALUE...]
func (t *tarBuilder) addEntry(typ byte, words []string) error {
	if len(words) == 0 {
		return errWords
	}
	e := lineEntry{head: head{typ: typ, mode: 0o644, name: words[0]}, fill: "x"}
	if typ == typeDir {
		e.mode = 0o755
	}
	if len(words[0]) > 100 {
		e.name, e.records = "", []string{"path=" + words[0]}
	}
	for i := 1; i < len(words); i++ {
		if words[i] == "->" && i+1 < len(words) {
			i++
			e.setTarget(words[i])
			continue
		}
		if err := e.set(words[i]); err != nil {
			return err
		}
	}
	if e.size > 0 && e.data == "" && (typ == typeFile || typ == typeCont) {
		e.data = strings.Repeat(e.fill, int(e.size))[:e.size]
	}
	if len(e.records) > 0 {
		t.pax(e.records...)
	}
	if typ == typeFileV7 { // a head has a file's type if it says none
		e.edit = func(b []byte) { b[offType] = typeFileV7 }
	}
	t.add(e.head)
	return nil
}

func (e *lineEntry) setTarget(target string) {
	if len(target) > 100 {
		e.records = append(e.records, "linkpath="+target)
		return
	}
	e.link = target
}

// set reads a mode or a KEY=VALUE.
func (e *lineEntry) set(word string) error {
	key, value, hasValue := strings.Cut(word, "=")
	if !hasValue {
		var err error
		e.mode, err = strconv.ParseInt(word, 8, 64)
		return err
	}
	if name, isXattr := strings.CutPrefix(key, "x:"); isXattr {
		value, err := xattrValue(value)
		e.records = append(e.records, paxXattrPrefix+name+"="+value)
		return err
	}
	var err error
	switch key {
	case "mtime":
		if e.mtime, err = strconv.ParseInt(value, 10, 64); err != nil {
			e.records = append(e.records, "mtime="+value)
		}
		return nil
	case "data":
		e.data = value
	case "fill":
		e.fill = value
	case "prefix":
		e.prefix = value
	case "magic":
		err = e.setMagic(value)
	case "dev":
		_, err = fmt.Sscanf(value, "%d,%d", &e.major, &e.minor)
	default:
		err = e.setNumber(key, value)
	}
	return err
}

func (e *lineEntry) setMagic(value string) error {
	magic, ok := map[string]string{"v7": v7, "gnu": magicGNU}[value]
	if !ok {
		return fmt.Errorf("unknown magic %q", value)
	}
	e.magic = magic
	return nil
}

// setNumber sets a numeric field by its name.
func (h *head) setNumber(key, value string) error {
	fields := map[string]*int64{"uid": &h.uid, "gid": &h.gid, "size": &h.size}
	f := fields[key]
	if f == nil {
		return fmt.Errorf("unknown key %q", key)
	}
	var err error
	*f, err = strconv.ParseInt(value, 10, 64)
	return err
}

// xattrValue reads a value that may be in hex.
func xattrValue(s string) (string, error) {
	digits, isHex := strings.CutPrefix(s, "0x")
	if !isHex {
		return s, nil
	}
	b, err := hex.DecodeString(digits)
	return string(b), err
}

// splitWords splits a line at blanks. A word, or the part of it behind its first "=", may be quoted.
func splitWords(line string) ([]string, error) {
	var words []string
	for line = strings.TrimLeft(line, " \t"); line != ""; line = strings.TrimLeft(line, " \t") {
		end := strings.IndexAny(line, " \t\"")
		if end < 0 {
			end = len(line)
		}
		word := line[:end]
		line = line[end:]
		if strings.HasPrefix(line, `"`) {
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, err
			}
			text, err := strconv.Unquote(quoted)
			if err != nil {
				return nil, err
			}
			word, line = word+text, line[len(quoted):]
		}
		words = append(words, word)
	}
	return words, nil
}
