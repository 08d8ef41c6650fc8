package audit

import (
	"crypto/rand"
	"encoding/hex"
	"time"
)

// NewID returns a UUID of version 7 (RFC 9562, section 5.7): 48 bits of Unix
// milliseconds and 74 random bits, in lower case. Two of the same millisecond
// are in no order. A time before 1970 counts as 1970.
func NewID(now time.Time) string {
	var id [16]byte
	ms := max(now.UnixMilli(), 0)
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	// Read never fails: without randomness the runtime ends the process.
	_, _ = rand.Read(id[6:])
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80

	var text [36]byte
	hex.Encode(text[0:8], id[0:4])
	hex.Encode(text[9:13], id[4:6])
	hex.Encode(text[14:18], id[6:8])
	hex.Encode(text[19:23], id[8:10])
	hex.Encode(text[24:36], id[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}
