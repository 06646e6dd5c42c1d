package chunk

import (
	"errors"
	"fmt"
	"strings"
)

// maxName bounds, in bytes, a component's name that somebody chose.
const maxName = 255

// How names end of components that are beside another: what of it is no program, and what Python compiled.
const (
	dataSuffix     = "+data"
	bytecodeSuffix = "+bytecode"
)

// checkComponentName tells whether somebody may call a component so.
func checkComponentName(s string) error {
	switch {
	case s == "":
		return errors.New("a component's name is empty")
	case len(s) > maxName:
		return fmt.Errorf("a component's name has %d bytes, at most %d are possible", len(s), maxName)
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("a component's name has control characters: %q", s)
	}
	return nil
}

// escapeName makes of any bytes a part of a component's name: visible ASCII without commas, since names stand in lists of
// annotations. Other bytes, and percent signs, are written as % and two digits. No two become the same, and none ends as
// one of a component beside another does.
func escapeName(s string) string {
	const digits = "0123456789ABCDEF"
	stop := len(s)
	for _, suffix := range []string{dataSuffix, bytecodeSuffix} {
		if strings.HasSuffix(s, suffix) {
			stop -= len(suffix)
		}
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == ',' || c == '%' || i == stop {
			b.WriteString(string([]byte{'%', digits[c>>4], digits[c&15]}))
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// compareVersions orders versions, digits as numbers: 6.9 comes before 6.12.
func compareVersions(a, b string) int {
	for x, y := a, b; ; {
		var textX, textY, numberX, numberY string
		textX, numberX, x = cutNumber(x)
		textY, numberY, y = cutNumber(y)
		if c := strings.Compare(textX, textY); c != 0 {
			return c
		}
		if c := compareNumbers(numberX, numberY); c != 0 {
			return c
		}
		if x == "" && y == "" {
			return strings.Compare(a, b)
		}
	}
}

// cutNumber divides a version behind its first number.
func cutNumber(s string) (text, number, rest string) {
	start := strings.IndexAny(s, "0123456789")
	if start < 0 {
		return s, "", ""
	}
	number = s[start:]
	if end := strings.IndexFunc(number, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		number, rest = number[:end], number[end:]
	}
	return s[:start], number, rest
}

func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}
