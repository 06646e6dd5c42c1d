package dump

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/flatroot/flatroot/tree"
)

// Most lines of a labelled tree have one of a few sets of extended attributes. Those are read once: at most setsMax texts
// of at most setTextMax bytes are remembered.
const (
	setsMax    = 4096
	setTextMax = 1024
)

// setXattrs gives a node the extended attributes that the rest of a line holds.
func (p *parser) setXattrs(n tree.Node, text []byte) error {
	if len(text) == 0 {
		return nil
	}
	if len(text) > xattrTextMax {
		return fmt.Errorf("%d bytes of extended attributes, at most %d are possible", len(text), xattrTextMax)
	}
	if same, ok := p.sets[string(text)]; ok {
		p.t.CopyXattrs(n, same)
		return nil
	}
	key := ""
	if len(p.sets) < setsMax && len(text) <= setTextMax {
		key = string(text) // before escapes are resolved in place
	}
	if err := p.parseXattrs(text); err != nil {
		return err
	}
	if err := p.t.SetXattrs(n, p.xattrs); err != nil {
		return err
	}
	if key != "" {
		if p.sets == nil {
			p.sets = map[string]tree.Node{}
		}
		p.sets[key] = n
	}
	return nil
}

// parseXattrs reads KEY=VALUE pairs with one space between them; one more may follow the last.
func (p *parser) parseXattrs(text []byte) error {
	p.xattrs = p.xattrs[:0]
	for len(text) > 0 {
		var pair []byte
		pair, text, _ = bytes.Cut(text, []byte{' '})
		rawKey, rawValue, found := bytes.Cut(pair, []byte{'='})
		if !found {
			return errors.New("extended attribute without =; write KEY=VALUE, with one space between them")
		}
		key, err := unescape(rawKey)
		if err != nil {
			return fmt.Errorf("extended attribute: %w", err)
		}
		value, err := unescape(rawValue)
		if err != nil {
			return fmt.Errorf("extended attribute %q: %w", key, err)
		}
		p.xattrs = append(p.xattrs, tree.Xattr{Name: string(cutNUL(key)), Value: value})
	}
	return nil
}
