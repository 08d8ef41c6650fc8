package jsonline_test

import (
	"encoding/json"
	"maps"
	"testing"
	"unicode/utf8"

	"github.com/moat-gateway/moat/internal/audit/jsonline"
)

var objects = []string{
	`{}`, `{"a":1}`, ` `, `{"a":"b","c":[1,{"d":"}"}],"e":{"f":"]\""},"g":null}`,
	"{ \"a\" :\t1 ,\r\n \"b\" : \"\\u0041\\\"\" }", `{"\u0061":true,"b\\":-1.5e3}`, `{"a":{},"b":[]}`, `{"a":1,"a":2}`,
}

// FuzzMembersAreThoseOfEncodingJSON: what is found in a valid object is what the
// standard library finds.
func FuzzMembersAreThoseOfEncodingJSON(f *testing.F) {
	for _, o := range objects {
		f.Add([]byte(o))
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		var want map[string]json.RawMessage
		// Broken UTF-8 is for the reader of the line to refuse.
		if len(object) == 0 || !utf8.Valid(object) || object[0] != '{' || json.Unmarshal(object, &want) != nil {
			return
		}
		got := make(map[string]string)
		for key, value := range jsonline.Members(object) {
			got[string(jsonline.Key(key))] = string(value)
		}
		for name, value := range maps.All(want) {
			if got[name] != string(value) {
				t.Errorf("%q: got %q, want %q in %q", name, got[name], value, object)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d members, want %d in %q", len(got), len(want), object)
		}
	})
}

func TestValuesAreReadAsWhatTheyAre(t *testing.T) {
	for value, want := range map[string]string{`"a"`: "a", `"\u0041\n"`: "A\n", `""`: "", `1`: "", `"`: "", ``: "", `null`: "", `"\ud800"`: "\ufffd"} {
		if got := jsonline.Text([]byte(value)); got != want {
			t.Errorf("Text(%s) = %q, want %q", value, got, want)
		}
	}
	for value, want := range map[string]uint64{"0": 0, "7": 7, "9999999999999999999": 9999999999999999999} {
		if got, ok := jsonline.Number([]byte(value)); !ok || got != want {
			t.Errorf("Number(%s) = %d, %v", value, got, ok)
		}
	}
	for _, value := range []string{"", "-1", "1.0", "1e3", `"1"`, "10000000000000000000", "null"} {
		if got, ok := jsonline.Number([]byte(value)); ok {
			t.Errorf("Number(%s) = %d", value, got)
		}
	}
	if got := string(jsonline.Key([]byte(`"a\u0062"`))); got != "ab" {
		t.Errorf("Key = %q", got)
	}
}
