package audit_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

var moment = time.Date(2026, 11, 22, 4, 5, 6, 7_008_999, time.FixedZone("", 3600))

func sample() *audit.Event {
	e := &audit.Event{
		Timestamp: moment, UserID: "u-1", Action: "http.request", Resource: "GET orders.example.com/orders/{id}",
		IP: "203.0.113.7", ID: "019abc00-0000-7000-8000-000000000001", Class: audit.Access, Outcome: audit.Allow,
		RequestID: "019abc00-0000-7000-8000-000000000002", Tenant: "acme", Roles: []string{"user", "admin"},
		Method: "GET", Host: "orders.example.com", Path: "/orders/17", Route: "/orders/{id}", Status: 200,
		Duration: 1234567 * time.Nanosecond, BytesIn: 12, BytesOut: 3456,
		Seq: 42, Instance: "gw-a", Prev: strings.Repeat("ab", 32),
	}
	e.Details.Set("auth", "jwt")
	e.Details.Set("issuer", "main")
	return e
}

func decode(t testing.TB, line []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(line, &m); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, line)
	}
	return m
}

// fieldNames is the whole of the contract with those who read a trail.
var fieldNames = []string{
	"timestamp", "userId", "action", "resource", "details", "ip", "id", "class", "outcome", "reason", "severity",
	"requestId", "tenant", "roles", "method", "host", "path", "route", "status", "durationMs", "bytesIn", "bytesOut",
	"seq", "instance", "prev",
}

func TestLineOfAFullEvent(t *testing.T) {
	want := `{"timestamp":"2026-11-22T03:05:06.007008Z","userId":"u-1","action":"http.request",` +
		`"resource":"GET orders.example.com/orders/{id}","details":{"auth":"jwt","issuer":"main"},"ip":"203.0.113.7",` +
		`"id":"019abc00-0000-7000-8000-000000000001","class":"access","outcome":"allow","reason":"","severity":"low",` +
		`"requestId":"019abc00-0000-7000-8000-000000000002","tenant":"acme","roles":["user","admin"],"method":"GET",` +
		`"host":"orders.example.com","path":"/orders/17","route":"/orders/{id}","status":200,"durationMs":1.234,` +
		`"bytesIn":12,"bytesOut":3456,"seq":42,"instance":"gw-a","prev":"` + strings.Repeat("ab", 32) + `"}`
	if got := string(sample().AppendJSON(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAllFieldsArePresentInTheZeroEvent(t *testing.T) {
	var e audit.Event
	m := decode(t, e.AppendJSON(nil))
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	want := slices.Sorted(slices.Values(fieldNames))
	if !slices.Equal(names, want) {
		t.Errorf("fields %v, want %v", names, want)
	}
	for name, want := range map[string]any{
		"userId": "anonymous", "class": "security", "outcome": "error", "severity": "medium",
		"timestamp": "0001-01-01T00:00:00.000000Z", "durationMs": 0.0, "status": 0.0,
		"roles": []any{}, "details": map[string]any{},
	} {
		if !reflect.DeepEqual(m[name], want) {
			t.Errorf("%s = %v, want %v", name, m[name], want)
		}
	}
}

func TestUnknownWordsReadAsTheCarefulOnes(t *testing.T) {
	e := audit.Event{Class: "acces", Outcome: "allowed", Severity: "none"}
	m := decode(t, e.AppendJSON(nil))
	if m["class"] != "security" || m["outcome"] != "error" || m["severity"] != "medium" {
		t.Errorf("class %v, outcome %v, severity %v", m["class"], m["outcome"], m["severity"])
	}
}

func TestNumbersAreWrittenSoThatAnyReaderTakesThem(t *testing.T) {
	for name, c := range map[string]struct {
		e    audit.Event
		want string
	}{
		"a microsecond":        {audit.Event{Duration: time.Microsecond}, `"durationMs":0.001,`},
		"less than one":        {audit.Event{Duration: 999}, `"durationMs":0.000,`},
		"tens of them":         {audit.Event{Duration: 1020 * time.Microsecond}, `"durationMs":1.020,`},
		"an hour":              {audit.Event{Duration: time.Hour}, `"durationMs":3600000.000,`},
		"a clock set back":     {audit.Event{Duration: -time.Second}, `"durationMs":0.000,`},
		"an unknown length":    {audit.Event{BytesIn: -1, BytesOut: -1}, `"bytesIn":0,"bytesOut":0,`},
		"a year out of range":  {audit.Event{Timestamp: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)}, `"timestamp":"0001-01-01T`},
		"a year before zero":   {audit.Event{Timestamp: time.Date(-3, 1, 1, 0, 0, 0, 0, time.UTC)}, `"timestamp":"0001-01-01T`},
		"a time without a dot": {audit.Event{Timestamp: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}, `"2026-01-02T03:04:05.000000Z"`},
	} {
		if got := string(c.e.AppendJSON(nil)); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s\nlacks %s", name, got, c.want)
		}
	}
}

func TestHostileTextStaysInsideItsString(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"line break":          {"a\nb", `"a\u000ab"`},
		"carriage return":     {"a\rb", `"a\u000db"`},
		"quote and backslash": {`"\`, `"\"\\"`},
		"NUL":                 {"\x00", `"\u0000"`},
		"escape sequence":     {"\x1b[2J", `"\u001b[2J"`},
		"delete":              {"\x7f", `"\u007f"`},
		"C1 control":          {"\u009b", `"\u009b"`},
		"next line":           {"\u0085", `"\u0085"`},
		"line separator":      {"\u2028\u2029", `"\u2028\u2029"`},
		"right to left":       {"\u202e", `"\u202e"`},
		"a tag beyond 16 bit": {"\U000e0041", `"\udb40\udc41"`},
		"a half character":    {"a\xc3", `"a` + "\ufffd" + `"`},
		"an encoded half":     {"\xed\xa0\x80", `"` + "\ufffd\ufffd\ufffd" + `"`},
		"printable text":      {"Zoë <é> 日本 😀 ' /", `"Zoë <é> 日本 😀 ' /"`},
	} {
		e := audit.Event{Path: c.in}
		line := string(e.AppendJSON(nil))
		want := strings.ReplaceAll(c.want, "\u009b", `\u009b`)
		for _, r := range "\u0085\u2028\u2029\u202e" {
			want = strings.ReplaceAll(want, string(r), `\u`+hex4(r))
		}
		if !strings.Contains(line, `,"path":`+want+`,"route"`) {
			t.Errorf("%s: %s\nlacks %s", name, line, want)
		}
		if m := decode(t, []byte(line)); m["path"] != strings.ToValidUTF8(c.in, "\ufffd") && name != "an encoded half" {
			t.Errorf("%s: reads back as %q", name, m["path"])
		}
	}
}

func hex4(r rune) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15]})
}

func TestEveryFieldIsBounded(t *testing.T) {
	for name, filler := range map[string]string{
		"plain": "a", "escaped": "\x00", "wide": "日", "invalid": "\xff", "beyond": "\U000e0041",
	} {
		huge := strings.Repeat(filler, 1<<20)
		e := audit.Event{
			UserID: huge, Action: huge, Resource: huge, IP: huge, ID: huge, Class: audit.Class(huge), Reason: huge,
			RequestID: huge, Tenant: huge, Method: huge, Host: huge, Path: huge, Route: huge, Instance: huge, Prev: huge,
		}
		for range 1000 {
			e.Roles = append(e.Roles, huge)
		}
		for i := range 100 {
			e.Details.Set(strings.Repeat(filler, 100)+string(rune('A'+i)), huge)
		}
		e.Details.Set("words", e.Roles)
		line := e.AppendJSON(nil)
		if len(line) > audit.MaxLine {
			t.Errorf("%s: %d bytes", name, len(line))
		}
		m := decode(t, line)
		path, _ := m["path"].(string)
		if !strings.HasSuffix(path, "…") || len(path) > 2048 {
			t.Errorf("%s: path of %d bytes ends in %q", name, len(path), path[max(0, len(path)-8):])
		}
		if roles, _ := m["roles"].([]any); len(roles) != 32 || roles[31] != "…" {
			t.Errorf("%s: %d roles", name, len(roles))
		}
		details, _ := m["details"].(map[string]any)
		if n, _ := details["truncated"].(float64); n < 69 {
			t.Errorf("%s: truncated = %v", name, details["truncated"])
		}
	}
}

func TestAValueThatJustFitsIsWhole(t *testing.T) {
	for _, n := range []int{2047, 2048, 2049} {
		e := audit.Event{Path: strings.Repeat("a", n)}
		path := decode(t, e.AppendJSON(nil))["path"].(string)
		if whole := path == e.Path; whole != (n <= 2048) {
			t.Errorf("%d bytes: whole = %v", n, whole)
		}
	}
	many := make([]string, 32)
	e := audit.Event{Roles: many}
	if roles := decode(t, e.AppendJSON(nil))["roles"].([]any); len(roles) != 32 || roles[31] != "" {
		t.Errorf("32 roles became %v", roles)
	}
}

func TestDetailsKeepOrderAndReplace(t *testing.T) {
	var e audit.Event
	d := &e.Details
	d.Set("z", "1")
	d.Set("n", 7)
	d.Set("big", int64(1)<<60)
	d.Set("yes", true)
	d.Set("no", false)
	d.Set("list", []string{"a", `"`})
	d.Set("none", []string(nil))
	d.Set("z", "2")
	want := `"details":{"z":"2","n":7,"big":1152921504606846976,"yes":true,"no":false,"list":["a","\""],"none":[]},`
	if got := string(e.AppendJSON(nil)); !strings.Contains(got, want) {
		t.Errorf("%s\nlacks %s", got, want)
	}
	for key, want := range map[string]any{"z": "2", "n": int64(7), "yes": true, "no": false, "list": []string{"a", `"`}} {
		if got, ok := d.Get(key); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("Get(%q) = %v, %v", key, got, ok)
		}
	}
	if got, ok := d.Get("missing"); ok || got != nil {
		t.Errorf("a missing key gave %v", got)
	}
	d.Reset()
	if got := string(e.AppendJSON(nil)); d.Len() != 0 || !strings.Contains(got, `"details":{},`) {
		t.Errorf("after Reset: %s", got)
	}
}

type credentials struct{ Password string }

func (c credentials) String() string { return c.Password }
func (c credentials) Error() string  { return c.Password }

func TestValuesOfOtherTypesNeverReachTheTrail(t *testing.T) {
	var e audit.Event
	for i, v := range []any{
		credentials{"hunter2"}, &credentials{"hunter2"}, []byte("hunter2"), map[string]string{"p": "hunter2"},
		[]any{"hunter2"}, error(credentials{"hunter2"}), nil,
	} {
		e.Details.Set(string(rune('a'+i)), v)
	}
	line := string(e.AppendJSON(nil))
	if strings.Contains(line, "hunter2") || strings.Count(line, "unsupported value") != 7 {
		t.Error(line)
	}
}

func TestAnEntryThatDoesNotFitIsCountedAndTheNextStillFits(t *testing.T) {
	var e audit.Event
	words := slices.Repeat([]string{strings.Repeat("w", 256)}, 64)
	e.Details.Set("first", "1")
	e.Details.Set("big", words)
	e.Details.Set("last", "2")
	d := decode(t, e.AppendJSON(nil))["details"].(map[string]any)
	if want := map[string]any{"first": "1", "last": "2", "truncated": 1.0}; !reflect.DeepEqual(d, want) {
		t.Errorf("details = %v", d)
	}
}

func TestCodeIsTheDetailElseTheReason(t *testing.T) {
	e := audit.Event{Reason: "rbac.no-rule"}
	if e.Code() != "rbac.no-rule" {
		t.Error(e.Code())
	}
	e.Details.Set("code", "forbidden")
	if e.Code() != "forbidden" {
		t.Error(e.Code())
	}
	e.Details.Set("code", 403)
	if e.Code() != "rbac.no-rule" {
		t.Error(e.Code())
	}
}

func TestSeverity(t *testing.T) {
	for name, c := range map[string]struct {
		class   audit.Class
		outcome audit.Outcome
		what    string
		want    audit.Severity
	}{
		"allowed request":          {audit.Access, audit.Allow, "http.request", audit.Low},
		"aborted request":          {audit.Access, audit.Aborted, "http.request", audit.Low},
		"failed request":           {audit.Access, audit.Failure, "http.request", audit.Medium},
		"nobody yet":               {audit.Security, audit.Deny, "token-missing", audit.Low},
		"flooded":                  {audit.Security, audit.Deny, "rate-limited", audit.Low},
		"expired":                  {audit.Security, audit.Deny, "token-expired", audit.Low},
		"forged":                   {audit.Security, audit.Deny, "token-invalid", audit.Medium},
		"not allowed":              {audit.Security, audit.Deny, "forbidden", audit.Medium},
		"cross-origin":             {audit.Security, audit.Deny, "cross-origin", audit.Medium},
		"smuggling":                {audit.Security, audit.Deny, "bad-request", audit.Medium},
		"a new code":               {audit.Security, audit.Deny, "invented", audit.Medium},
		"a refusal named as a gap": {audit.Security, audit.Deny, audit.ActionGap, audit.Medium},
		"degraded":                 {audit.Admin, audit.Allow, "store.degraded", audit.High},
		"a gap in the trail":       {audit.Security, audit.Failure, audit.ActionGap, audit.High},
		"a torn trail":             {audit.Admin, audit.Allow, audit.ActionRecovered, audit.High},
		"a new segment":            {audit.Admin, audit.Allow, audit.ActionSegment, audit.Low},
		"retention":                {audit.Admin, audit.Allow, audit.ActionRemoved, audit.Low},
		"configuration":            {audit.Admin, audit.Allow, "config.loaded", audit.Medium},
		"nothing known":            {"", "", "", audit.Medium},
	} {
		if got := audit.SeverityOf(c.class, c.outcome, c.what); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	e := audit.Event{Outcome: audit.Deny, Reason: "limit.login", Action: "http.request"}
	e.Details.Set("code", "rate-limited")
	if got := decode(t, e.AppendJSON(nil))["severity"]; got != "low" {
		t.Errorf("computed severity of a limit = %v", got)
	}
	e.Severity = audit.High
	if got := decode(t, e.AppendJSON(nil))["severity"]; got != "high" {
		t.Errorf("a given severity became %v", got)
	}
}
