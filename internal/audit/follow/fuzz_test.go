package follow_test

import (
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

// reference reads the same fields with encoding/json.
func reference(line []byte) (e follow.Event, ok bool) {
	var object map[string]json.RawMessage
	if !utf8.Valid(line) || json.Unmarshal(line, &object) != nil || object == nil {
		return e, false
	}
	str := func(raw json.RawMessage) string {
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return ""
		}
		return s
	}
	var err error
	if e.Seq, err = strconv.ParseUint(string(object["seq"]), 10, 64); err != nil || e.Seq == 0 {
		return e, false
	}
	e.Instance, e.Class, e.Epoch = str(object["instance"]), str(object["class"]), str(object["epoch"])
	var details map[string]json.RawMessage
	if e.Epoch == "" && json.Unmarshal(object["details"], &details) == nil {
		e.Epoch = str(details["epoch"])
	}
	return e, e.Instance != ""
}

func FuzzALineMeansWhatEncodingJSONSays(f *testing.F) {
	for _, seed := range []string{
		event(1), begin(2, "boot"), "{}", "[]", "", "{", "null",
		`{"seq":1,"instance":"a","seq":2}`,
		`{ "seq" : 7 , "instance" : "a\"b\\" , "details":{"epoch":"x","n":[{"seq":9}]}}`,
		`{"\u0073eq":3,"instance":"\u0061\ud800"}`,
		`{"details":{"seq":5},"instance":"a"}`, `{"seq":1,"instance":["a"]}`,
		`{"seq":18446744073709551615,"instance":"a"}`, `{"seq":1,"instance":"a","epoch":7}`,
		`{"seq":1,"instance":"a","details":{"epoch":"in"},"epoch":""}`, "{\"seq\":1,\"instance\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		got, err := follow.ReadEvent(line)
		want, ok := reference(line)
		if err != nil {
			// Refusing is allowed beyond the reference only for what is bounded.
			if ok && want.Seq < 1e18 && len(line) < 256 && line[0] == '{' {
				t.Fatalf("refused %q: %v", line, err)
			}
			return
		}
		if !ok || got.Seq != want.Seq || got.Instance != want.Instance || got.Class != want.Class {
			t.Fatalf("%q: got %+v, want %+v (%t)", line, got, want, ok)
		}
		if got.Epoch != want.Epoch && len(want.Epoch) < 200 && len(line) < 256 {
			t.Fatalf("%q: epoch %q, want %q", line, got.Epoch, want.Epoch)
		}
	})
}

func FuzzACursorNeverNamesAnythingButASegment(f *testing.F) {
	f.Add([]byte(`{"sink":"memory","segment":"000000000001.jsonl","offset":10,"seq":9,"head":"x"}`))
	f.Add([]byte(`{"sink":"memory","segment":"000000000001.jsonl/../x","offset":10}`))
	f.Add([]byte(`{"sink":"memory","segment":"","offset":10}`))
	f.Add([]byte(`{"sink":"memory","segment":"0000000000٠١.jsonl","offset":10}`))
	f.Add([]byte(`{"sink":"other","segment":"000000000001.jsonl","offset":-10}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		segment, offset, err := follow.ParseCursor(raw, "memory")
		if err != nil {
			return
		}
		digits, ok := strings.CutSuffix(segment, ".jsonl")
		if _, numErr := strconv.ParseUint(digits, 10, 64); !ok || (numErr != nil && len(digits) < 20) || filepath.Base(segment) != segment || offset < 0 {
			t.Fatalf("%q became segment %q, offset %d", raw, segment, offset)
		}
	})
}
