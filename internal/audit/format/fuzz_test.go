package format_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/moat-gateway/moat/internal/audit/format"
)

// FuzzAppend turns any JSON object into every format: what comes out is one valid
// JSON object that has what its schema requires and all that was in the line.
func FuzzAppend(f *testing.F) {
	for _, e := range samples() {
		f.Add(lineOf(e))
	}
	for _, line := range hostileLines {
		f.Add([]byte(line))
	}
	checks := validators(f)
	f.Fuzz(func(t *testing.T, line []byte) {
		object := json.Valid(line) && utf8.Valid(line) && bytes.HasPrefix(bytes.TrimSpace(line), []byte("{"))
		for name, check := range checks {
			if object && !bytes.ContainsAny(line, "\n\r") {
				checkTurned(t, name, check, line)
			} else if got, err := mustFormat(t, name).Append(nil, line); err == nil || got != nil {
				t.Errorf("%s took %q: %q", name, line, got)
			}
		}
		if got, err := mustFormat(t, format.Names()[0]).Append(nil, line); err != nil || !bytes.Equal(got, line) {
			t.Errorf("moat changed %q to %q, %v", line, got, err)
		}
	})
}
