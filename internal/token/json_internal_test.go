package token

import (
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func TestStrictJSONKeepsExactValues(t *testing.T) {
	got, err := decodeObject(` { "a" : [ 1 , -0.5e+10 , "x\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é" , true , false , null , { } , [ ] ] , "" : 12345678901234567890 } `, claimLimits)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"a": []any{json.Number("1"), json.Number("-0.5e+10"), "x\"\\/\b\f\n\r\té😀é", true, false, nil, map[string]any{}, []any{}},
		"":  json.Number("12345678901234567890"),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v", got)
	}
}

func TestStrictJSONLimitsAreExact(t *testing.T) {
	limits := jsonLimits{depth: 3, nodes: 4}
	for _, tc := range []struct {
		data string
		err  error
	}{
		{`{"a":{"b":[1]}}`, nil},
		{`{"a":{"b":[[]]}}`, errJSONTooLarge},
		{`{"a":{"b":[{}]}}`, errJSONTooLarge},
		{`{"a":1,"b":2,"c":3,"d":4}`, nil},
		{`{"a":1,"b":2,"c":3,"d":4,"e":5}`, errJSONTooLarge},
		{`{"a":[1,2,3]}`, nil},
		{`{"a":[1,2,3,4]}`, errJSONTooLarge},
		{`{"a":` + strings.Repeat("1", maxNumber) + `}`, nil},
		{`{"a":` + strings.Repeat("1", maxNumber+1) + `}`, errJSONTooLarge},
	} {
		if _, err := decodeObject(tc.data, limits); !errors.Is(err, tc.err) {
			t.Errorf("%s: %v, want %v", tc.data, err, tc.err)
		}
	}
}

func TestBrokenJSONIsRefused(t *testing.T) {
	for _, data := range []string{
		``, ` `, `{`, `{"`, `{"a`, `{"a"`, `{"a":`, `{"a":1`, `{"a":[`, `{"a":[1`, `{"a":"\`, `{"a":"\n`, `{"a":"\u`, `{"a":"\u00`, `{"a":"\u00g0"}`,
		`{"a":"\ud83d\u`, `{"a":"\ud83d\uzzzz"}`, `{"a":"\ud83d`, `{"a":-}`, `{"a":1e}`, `{"a":1e+}`, `{"a":1.e1}`, `{"a":.1}`, `{"a\x":1}`, `{1:1}`,
		`{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`, `{"a":1 "b":2}`, `{"a":1;"b":2}`, `{"a"=1}`, `{"a":nul}`, `{"a":}`, `{"a":1}}`, `{"a":1}]`,
	} {
		if got, err := decodeObject(data, claimLimits); !errors.Is(err, errJSONSyntax) || got != nil {
			t.Errorf("%s: %v, %v", data, got, err)
		}
	}
}

// What the strict decoder accepts, encoding/json accepts with the same result.
// And what it refuses other than for size, encoding/json refuses, unless it is
// one of the leniencies the decoder exists to shut out.
func FuzzStrictJSON(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1}`, `{"a":1,"a":2}`, `{"a":"\ud800"}`, `{"a":"\ud83d\ude00"}`, `{"a":"\u0000"}`, `{"a":[1,2,{"b":null}]}`, `[]`,
		`{"a":1e999}`, `{"a":-0}`, `{"a":01}`, `{"a":1}x`, "{\"a\":\"\xff\"}", `{"a":"` + "\x01" + `"}`, `{"a":true,"b":false}`, ` { } `,
		`{"a":{"b":{"c":{}}}}`, `{"a":tru}`, `{"a":"\u12"}`, `{"a":"\uD83D\u0041"}`, `{"a"1}`, `{"a":1,}`, `{,}`, `{"a":"`, `{"a":"\`, "\ufeff{}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data string) {
		got, err := decodeObject(data, claimLimits)
		decoder := json.NewDecoder(strings.NewReader(data))
		decoder.UseNumber()
		var want map[string]any
		oracle := decoder.Decode(&want)
		if oracle == nil {
			if _, more := decoder.Token(); more != io.EOF {
				oracle = errors.New("trailing data")
			}
		}
		switch {
		case err == nil && (oracle != nil || !reflect.DeepEqual(got, want)):
			t.Fatalf("%q: accepted as %#v; encoding/json: %#v, %v", data, got, want, oracle)
		case errors.Is(err, errJSONSyntax) && oracle == nil && want != nil:
			// Broken UTF-8 and half surrogates become U+FFFD there.
			if !strings.ContainsRune(toText(want), '\ufffd') {
				t.Fatalf("%q: refused; encoding/json: %#v", data, want)
			}
		}
	})
}

func toText(v any) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return err.Error()
	}
	return b.String()
}

func TestDuplicateIsFoundThroughEscapes(t *testing.T) {
	for _, data := range []string{`{"a":1,"a":1}`, `{"a":1,"\u0061":1}`, `{"":1,"":1}`, `{"é":1,"\u00e9":1}`, `{"😀":1,"\ud83d\ude00":1}`} {
		if _, err := decodeObject(data, claimLimits); !errors.Is(err, errJSONDuplicate) {
			t.Errorf("%s: %v", data, err)
		}
	}
	if _, err := decodeObject(`{"a":1,"A":1,"b":{"a":1}}`, claimLimits); err != nil {
		t.Error(err)
	}
}
