package keeper

import (
	"encoding/binary"
	"strings"
)

// journalSocket is where systemd's journal takes messages in its native protocol.
const journalSocket = root + "/run/systemd/journal/socket"

// appendField appends a field as the journal reads it: NAME=value and a newline.
// A value with newlines has its length before it, as 64 bits little-endian, since
// it could otherwise be mistaken for more fields (systemd, "Native Journal
// Protocol").
func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	if strings.Contains(value, "\n") {
		b = append(b, '\n')
		b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	} else {
		b = append(b, '=')
	}
	return append(append(b, value...), '\n')
}

// journalEntry is a message as the journal wants it.
func journalEntry(p priority, text string) []byte {
	b := appendField(nil, "SYSLOG_IDENTIFIER", identifier)
	b = appendField(b, "PRIORITY", string('0'+byte(p)))
	return appendField(b, "MESSAGE", text)
}
