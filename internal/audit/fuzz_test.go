package audit_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/moat-gateway/moat/internal/audit"
)

// FuzzLine: whatever a client sends, the line is one bounded line of valid
// JSON, and what it reads back as is the text itself or a marked beginning.
func FuzzLine(f *testing.F) {
	for _, s := range []string{"", "/a/b", "\n\r\x00\x1b\"\\", "\xff\xfe\xed\xa0\x80", "\u2028\u202e日😀", strings.Repeat("\x01", 700)} {
		f.Add(s, "key", int64(1))
	}
	f.Fuzz(func(t *testing.T, text, key string, n int64) {
		e := audit.Event{Path: text, UserID: text, Roles: []string{text, key}, BytesIn: n, Seq: uint64(n)}
		e.Details.Set(key, text)
		e.Details.Set("n", n)
		line := e.AppendJSON(nil)
		if len(line) > audit.MaxLine || !json.Valid(line) || !utf8.Valid(line) {
			t.Fatalf("bad line %q", line)
		}
		if i := bytes.IndexFunc(line, func(r rune) bool { return r != utf8.RuneError && !unicode.IsPrint(r) }); i >= 0 {
			t.Fatalf("unprintable character at %d of %q", i, line)
		}
		var back struct{ Path string }
		if err := json.Unmarshal(line, &back); err != nil {
			t.Fatal(err)
		}
		// Each invalid byte becomes one U+FFFD, as ranging over a string does.
		want := string([]rune(text))
		begin, cut := strings.CutSuffix(back.Path, "…")
		if back.Path != want && (!cut || !strings.HasPrefix(want, begin)) {
			t.Fatalf("reads back as %q, want %q", back.Path, want)
		}
	})
}
