package chunk

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Bounds of a mapping. The largest that is known, made by hand over years for a desktop, has some 100 rules with 600 globs.
const (
	MaxMapping = 256 << 10 // bytes
	maxRules   = 1000
	maxGlobs   = 10000
)

// Mapping says which files are a component, by rules of which the first that matches counts.
type Mapping struct {
	rules []rule
}

// rule says of some files which component they are.
type rule struct {
	line      int // where it begins, from 1 on
	component string
	interval  time.Duration // 0: nothing is said
	exclusive bool
	globs     []glob
}

// MappingError tells what is wrong with a mapping, and where.
type MappingError struct {
	Line, Column int // from 1 on; columns are characters
	Err          error
}

func (e *MappingError) Error() string {
	return fmt.Sprintf("line %d, column %d: %v", e.Line, e.Column, e.Err)
}

// ParseMapping reads a mapping, a list in YAML:
//
//   - component: ui
//     paths: [/usr/lib/ui/**, "**/ui-*.so", "!/usr/lib/ui/cache/**"]
//     interval: weekly
//     exclusive: true
//
// A rule matches what one of its globs matches, and none of those that begin with an exclamation mark. A component may have
// several rules, which don't contradict each other. What is wrong is a MappingError.
func ParseMapping(b []byte) (*Mapping, error) {
	if len(b) > MaxMapping {
		return nil, &MappingError{1, 1, fmt.Errorf("the mapping has more than %d bytes", MaxMapping)}
	}
	if err := checkText(b); err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Load(b, &doc); err != nil {
		return nil, syntaxError(err)
	}
	p := mappingParser{components: map[string]*said{}}
	if err := p.document(&doc); err != nil {
		return nil, err
	}
	return &p.mapping, nil
}

const nextLine = 0x85 // the one of the control characters beyond ASCII that YAML allows

// checkText finds what the YAML parser refuses without saying where it is.
func checkText(b []byte) error {
	line, column := 1, 1
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && size == 1:
			return &MappingError{line, column, errors.New("this is not UTF-8")}
		case r < ' ' && r != '\n' && r != '\r' && r != '\t' || r >= 0x7f && r < 0xa0 && r != nextLine:
			return &MappingError{line, column, fmt.Errorf("control character %U", r)}
		}
		if column++; r == '\n' {
			line, column = line+1, 1
		}
		b = b[size:]
	}
	return nil
}

func syntaxError(err error) error {
	var at *yaml.LoadError
	if !errors.As(err, &at) {
		return &MappingError{1, 1, err}
	}
	message := at.Message
	if at.ContextMsg != "" {
		message = at.ContextMsg + ": " + message
	}
	switch {
	case strings.HasPrefix(at.Message, "unknown anchor"):
		message += "; a glob that begins with * stands in quotes"
	case strings.Contains(at.Message, "no documents"):
		message += "; a mapping without rules is []"
	}
	return &MappingError{max(at.Mark.Line, 1), max(at.Mark.Column, 1), errors.New(strings.TrimPrefix(message, "yaml: "))}
}

type mappingParser struct {
	mapping    Mapping
	components map[string]*said
	globs      int
}

func wrong(n *yaml.Node, format string, args ...any) error {
	return &MappingError{max(n.Line, 1), max(n.Column, 1), fmt.Errorf(format, args...)}
}

func (p *mappingParser) document(doc *yaml.Node) error {
	list, err := elements(doc.Content[0], "a mapping is a list of rules; one without any is []")
	if err != nil {
		return err
	}
	if len(list) > maxRules {
		return wrong(list[maxRules], "more than %d rules", maxRules)
	}
	for _, n := range list {
		if err := p.rule(n); err != nil {
			return err
		}
	}
	for i := range p.mapping.rules {
		r := &p.mapping.rules[i]
		s := p.components[r.component]
		r.interval, r.exclusive = s.interval, s.exclusive != nil && *s.exclusive
	}
	return nil
}

// checkNode refuses what YAML has beyond lists, fields and values. Without aliases a small text can't stand for a large one,
// or for one without end.
func checkNode(n *yaml.Node) error {
	switch {
	case n.Kind == yaml.AliasNode:
		return wrong(n, "aliases have no meaning here: write it out; a glob that begins with * stands in quotes")
	case strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!"):
		return wrong(n, "tag %.40q has no meaning here; a glob that begins with ! stands in quotes", n.Tag)
	}
	return nil
}

// elements are a list's.
func elements(n *yaml.Node, otherwise string) ([]*yaml.Node, error) {
	if err := checkNode(n); err != nil {
		return nil, err
	}
	if n.Kind != yaml.SequenceNode {
		return nil, wrong(n, "%s", otherwise)
	}
	return n.Content, nil
}

// scalar is a value that is no list.
func scalar(n *yaml.Node, what string) (string, error) {
	if err := checkNode(n); err != nil {
		return "", err
	}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return "", wrong(n, "%s has a single value", what)
	}
	return n.Value, nil
}

func (p *mappingParser) rule(n *yaml.Node) error {
	fields, err := fieldsOf(n)
	if err != nil {
		return err
	}
	name, paths := fields["component"], fields["paths"]
	if name == nil || paths == nil {
		return wrong(n, "a rule has a component and paths")
	}
	r := rule{line: max(n.Line, 1)}
	if r.component, err = scalar(name, "component"); err != nil {
		return err
	}
	if err := checkComponentName(r.component); err != nil {
		return wrong(name, "%w", err)
	}
	r.component = escapeName(r.component)
	if r.globs, err = p.paths(paths); err != nil {
		return err
	}
	p.mapping.rules = append(p.mapping.rules, r)
	return p.describe(r.component, fields["interval"], fields["exclusive"])
}

// fieldsOf are a rule's.
func fieldsOf(n *yaml.Node) (map[string]*yaml.Node, error) {
	if err := checkNode(n); err != nil {
		return nil, err
	}
	if n.Kind != yaml.MappingNode {
		return nil, wrong(n, "a rule has fields: component, paths, and if need be interval and exclusive")
	}
	fields := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, err := scalar(n.Content[i], "a field's name")
		if err != nil {
			return nil, err
		}
		if !slices.Contains([]string{"component", "paths", "interval", "exclusive"}, key) {
			return nil, wrong(n.Content[i], "field %.40q isn't known; a rule has component, paths, interval and exclusive", key)
		}
		if fields[key] != nil {
			return nil, wrong(n.Content[i], "field %s is there twice", key)
		}
		fields[key] = n.Content[i+1]
	}
	return fields, nil
}

func (p *mappingParser) paths(n *yaml.Node) ([]glob, error) {
	list, err := elements(n, "paths is a list of globs")
	if err != nil {
		return nil, err
	}
	var globs []glob
	for _, item := range list {
		if p.globs++; p.globs > maxGlobs {
			return nil, wrong(item, "more than %d globs", maxGlobs)
		}
		text, err := scalar(item, "a glob")
		if err != nil {
			return nil, err
		}
		text, exclude := strings.CutPrefix(text, "!")
		g, err := parseGlob(text)
		if err != nil {
			return nil, wrong(item, "bad glob: %w", err)
		}
		g.exclude, g.rule = exclude, int32(len(p.mapping.rules))
		globs = append(globs, g)
	}
	if !slices.ContainsFunc(globs, func(g glob) bool { return !g.exclude }) {
		return nil, wrong(n, "no paths are left: a rule needs a glob that doesn't begin with !")
	}
	return globs, nil
}

// said is what rules say of a component, the zero value and nil being nothing.
type said struct {
	interval  time.Duration
	exclusive *bool
}

// describe takes over what a rule says of its component.
func (p *mappingParser) describe(component string, interval, exclusive *yaml.Node) error {
	s := p.components[component]
	if s == nil {
		s = new(said)
		p.components[component] = s
	}
	if err := s.setInterval(interval); err != nil {
		return err
	}
	return s.setExclusive(exclusive)
}

func (s *said) setInterval(n *yaml.Node) error {
	if n == nil {
		return nil
	}
	text, err := scalar(n, "interval")
	if err != nil {
		return err
	}
	d, err := ParseInterval(text)
	if err != nil {
		return wrong(n, "%w", err)
	}
	if s.interval != 0 && s.interval != d {
		return wrong(n, "an earlier rule says that the component's interval is %d days", s.interval/day)
	}
	s.interval = d
	return nil
}

func (s *said) setExclusive(n *yaml.Node) error {
	if n == nil {
		return nil
	}
	text, err := scalar(n, "exclusive")
	if err != nil {
		return err
	}
	if text != "true" && text != "false" {
		return wrong(n, "exclusive is true or false, not %.40q", text)
	}
	v := text == "true"
	if s.exclusive != nil && *s.exclusive != v {
		return wrong(n, "an earlier rule says that exclusive is %t for the component", *s.exclusive)
	}
	s.exclusive = &v
	return nil
}
