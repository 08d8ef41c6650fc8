package journal_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/journal"
)

// FuzzAnyChangeIsFound: no byte before the last line can become another one
// without Verify saying so.
func FuzzAnyChangeIsFound(f *testing.F) {
	base := crashed(f, 4)
	path := segments(f, base)[0]
	content, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	lastLine := bytes.LastIndexByte(content[:len(content)-1], '\n') + 1
	for _, at := range []int{0, 1, 100, lastLine - 1, lastLine / 2} {
		f.Add(at, byte('\n'))
		f.Add(at, byte(' '))
		f.Add(at, byte('0'))
	}
	f.Fuzz(func(t *testing.T, at int, b byte) {
		if at < 0 || at >= lastLine || content[at] == b {
			return
		}
		changed := bytes.Clone(content)
		changed[at] = b
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := journal.Verify(dir, journal.VerifyOptions{}); err == nil {
			t.Fatalf("byte %d of %q became %q unseen", at, content[at], b)
		}
	})
}

// FuzzRecovery: whatever a crash leaves behind a whole trail, the trail is
// there and whole after the next start, or Open refuses and changes nothing.
func FuzzRecovery(f *testing.F) {
	base := crashed(f, 2)
	content, err := os.ReadFile(segments(f, base)[0])
	if err != nil {
		f.Fatal(err)
	}
	lines := bytes.SplitAfter(content, []byte("\n"))
	for _, tail := range [][]byte{nil, []byte("{"), []byte("\n"), []byte("{}\n{"), make([]byte, 100), lines[0], lines[1][:50]} {
		f.Add(tail)
	}
	f.Fuzz(func(t *testing.T, tail []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, "000000000001.jsonl")
		if err := os.WriteFile(path, append(bytes.Clone(content), tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := journal.Open(config(dir))
		if err == nil {
			err = j.Close()
		}
		now, readErr := os.ReadFile(path)
		if readErr != nil || !bytes.HasPrefix(now, content) || !bytes.HasPrefix(append(bytes.Clone(content), tail...), now) {
			t.Fatalf("the segment became %q", now)
		}
		// What is left of the tail are lines that are events of some trail, which
		// no crash leaves: only then may Verify object.
		if _, verifyErr := journal.Verify(dir, journal.VerifyOptions{}); err == nil && verifyErr != nil && len(now) == len(content) {
			t.Fatalf("after %q: %v", tail, verifyErr)
		}
	})
}

// FuzzHead: what passes for a line of a trail is a bounded JSON object.
func FuzzHead(f *testing.F) {
	e := audit.Event{Seq: 1, Prev: string(bytes.Repeat([]byte("0"), 64))}
	f.Add(e.AppendJSON(nil))
	f.Add([]byte(`{"seq":1}`))
	f.Add([]byte(`{"seq":-1,"prev":""}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if !journal.ParseHead(line) {
			return
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(line, &object); err != nil || len(line) > audit.MaxLine {
			t.Fatalf("%q passes: %v", line, err)
		}
	})
}
