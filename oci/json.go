package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxDepth bounds how deep values nest. The specification's own documents
// need six levels.
const maxDepth = 64

// object is one JSON object with its members not yet read. encoding/json
// matches field names of structs in any case and lets the last of several
// win; here a member is found by its exact name, and parseObject has made
// sure that there is one of it.
type object map[string]json.RawMessage

// parseObject reads one JSON object, the whole of b. Repeated names, at any
// depth, are errors.
func parseObject(b []byte) (object, error) {
	if err := checkJSON(b); err != nil {
		return nil, err
	}
	return asObject(b)
}

// asObject reads an object that parseObject has been through.
func asObject(b []byte) (object, error) {
	if b = bytes.TrimLeft(b, " \t\r\n"); len(b) == 0 || b[0] != '{' {
		return nil, errors.New("no JSON object")
	}
	var o object
	if err := json.Unmarshal(b, &o); err != nil {
		return nil, err
	}
	return o, nil
}

// CheckJSON refuses what is no JSON, goes on after its end, nests deeper than
// 64 levels, or repeats a name in an object: what two readers may see
// differently. It is for documents that other packages read.
func CheckJSON(b []byte) error { return checkJSON(b) }

// checkJSON refuses what is no JSON, goes on after its end, nests deeper than
// maxDepth, or repeats a name in an object.
func checkJSON(b []byte) error {
	if !json.Valid(b) {
		return jsonError(b)
	}
	// Of each open object the names seen; nil stands for an open array.
	var open []map[string]struct{}
	wantName := false
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	for {
		t, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch name, isString := t.(string); {
		case isString && wantName:
			seen := open[len(open)-1]
			if _, again := seen[name]; again {
				return fmt.Errorf("name %s stands twice in one object", quote(name))
			}
			seen[name] = struct{}{}
			wantName = false
			continue
		case t == json.Delim('{'):
			open = append(open, make(map[string]struct{}))
		case t == json.Delim('['):
			open = append(open, nil)
		case t == json.Delim('}'), t == json.Delim(']'):
			open = open[:len(open)-1]
		}
		if len(open) > maxDepth {
			return fmt.Errorf("nests deeper than %d levels", maxDepth)
		}
		wantName = len(open) > 0 && open[len(open)-1] != nil
	}
}

// jsonError says what is wrong with text that is no JSON, and shows its
// beginning, by which a login page or an XML error is recognised.
func jsonError(b []byte) error {
	var v json.RawMessage
	err := json.Unmarshal(b, &v)
	if err == nil {
		err = errors.New("no JSON")
	}
	return fmt.Errorf("%w (it begins %s)", err, quote(Printable(string(b[:min(len(b), 80)]), 60)))
}

// has tells whether there is a member, null or not.
func (o object) has(name string) bool {
	_, ok := o[name]
	return ok
}

// read decodes a member into v, if there is one. A null is as good as none.
func (o object) read(name string, v any) error {
	raw, ok := o[name]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// str returns a member that is a string; "" if there is none.
func (o object) str(name string) (string, error) {
	var s string
	return s, o.read(name, &s)
}

// text is a member that is a string, and where it goes.
type text struct {
	name string
	to   *string
}

// texts reads several members that are strings.
func (o object) texts(ts ...text) error {
	for _, t := range ts {
		if err := o.read(t.name, t.to); err != nil {
			return err
		}
	}
	return nil
}

// list returns a member that is an array, its items not yet read.
func (o object) list(name string) ([]json.RawMessage, error) {
	var items []json.RawMessage
	return items, o.read(name, &items)
}

// sub returns a member that is an object; nil if there is none.
func (o object) sub(name string) (object, error) {
	raw, ok := o[name]
	if !ok || string(raw) == "null" {
		return nil, nil
	}
	sub, err := asObject(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return sub, nil
}

// EncodeJSON writes JSON as json.Marshal does, but leaves <, > and & alone, so
// that what is taken over from other people's documents keeps its bytes.
func EncodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
