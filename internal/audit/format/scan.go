package format

import "github.com/moat-gateway/moat/internal/audit/jsonline"

// member is one member of a JSON object, both parts as they stand in it: the key
// with its quotes.
type member struct{ key, value []byte }

// inner is what stands between the quotes of a JSON string, escapes and all; nil
// when the value is no string.
func inner(value []byte) []byte {
	if len(value) < len(`""`) || value[0] != '"' {
		return nil
	}
	return value[1 : len(value)-1]
}

// whole reads a JSON number that is an integer from 0 to max.
func whole(value []byte, most int64) (int64, bool) {
	n, ok := jsonline.Number(value)
	return int64(n), ok && n <= uint64(most)
}
