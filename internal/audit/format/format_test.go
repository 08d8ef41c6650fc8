package format_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/format"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestFormatsAreFoundByName(t *testing.T) {
	if got := strings.Join(format.Names(), " "); got != "moat ocsf ecs cloudevents" {
		t.Errorf("Names() = %s", got)
	}
	for _, name := range format.Names() {
		if f := mustFormat(t, name); f.Name() != name {
			t.Errorf("Of(%q).Name() = %q", name, f.Name())
		}
	}
	_, err := format.Of("OCSF")
	if err == nil || !strings.Contains(err.Error(), `"OCSF": must be one of moat, ocsf, ecs, cloudevents`) {
		t.Errorf("Of(OCSF): %v", err)
	}
}

func TestMoatIsTheLineItself(t *testing.T) {
	line := lineOf(fullRequest())
	got, err := mustFormat(t, "moat").Append([]byte("x"), line)
	if err != nil || string(got) != "x"+string(line) {
		t.Errorf("%s, %v", got, err)
	}
}

// TestEventsLookAsTheyDid compares with testdata/golden; -update writes it.
func TestEventsLookAsTheyDid(t *testing.T) {
	for _, name := range []string{"ocsf", "ecs", "cloudevents"} {
		var all bytes.Buffer
		for _, sample := range []string{
			"request-denied", "request-allowed", "request-token-expired", audit.ActionSummary,
			"request-aborted", "request-failed", "gateway.start", "config.loaded", audit.ActionCheckpoint,
		} {
			text, err := mustFormat(t, name).Append(nil, lineOf(samples()[sample]))
			if err != nil {
				t.Fatal(err)
			}
			all.Write(text)
			all.WriteByte('\n')
		}
		file := filepath.Join("testdata", "golden", name+".jsonl")
		if *update {
			if err := os.WriteFile(file, all.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, all.Bytes()) {
			t.Errorf("%s is\n%sand was\n%s", name, all.Bytes(), want)
		}
	}
}

func TestEveryEventFitsThePublishedSchema(t *testing.T) {
	for name, check := range validators(t) {
		for sample, e := range samples() {
			text, err := mustFormat(t, name).Append(nil, lineOf(e))
			if err != nil {
				t.Fatal(err)
			}
			for _, what := range check(decode(t, text)) {
				t.Errorf("%s of %s: %s\n%s", name, sample, what, text)
			}
		}
	}
}

func TestNoFactIsLost(t *testing.T) {
	for _, name := range []string{"ocsf", "ecs", "cloudevents"} {
		for sample, e := range samples() {
			line := lineOf(e)
			text, err := mustFormat(t, name).Append(nil, line)
			if err != nil {
				t.Fatal(err)
			}
			for _, fact := range lost(decode(t, line), decode(t, text)) {
				t.Errorf("%s of %s has lost %s:\n%s", name, sample, fact, text)
			}
		}
	}
}

// lost returns the facts of an event that are not in what it was turned into.
func lost(event, turned map[string]any) (facts []string) {
	there := leaves(nil, turned)
	for name, value := range event {
		if silent(event, name, value) {
			continue
		}
		for _, leaf := range leaves(nil, value) {
			if !slices.Contains(there, leaf) && !toldOtherwise(name, leaf, turned) {
				facts = append(facts, name+" "+leaf)
			}
		}
	}
	return facts
}

// silent are the values that say nothing: what was not known, and the sizes and
// the time of a request where there was none.
func silent(event map[string]any, name string, value any) bool {
	switch fmt.Sprint(value) {
	case "", "[]", "map[]":
		return true
	case "0", "0.000":
		method, _ := event["method"].(string)
		return name == "status" || method == "" && slices.Contains([]string{"durationMs", "bytesIn", "bytesOut"}, name)
	}
	return false
}

// toldOtherwise knows the facts that the schemas want in another form.
func toldOtherwise(name, leaf string, turned map[string]any) bool {
	switch name {
	case "severity":
		return strings.EqualFold(fmt.Sprint(turned["severity"]), leaf)
	case "host":
		host, port, _ := strings.Cut(leaf, ":")
		there := leaves(nil, turned)
		return slices.Contains(there, host) && slices.Contains(there, port)
	case "durationMs":
		event, _ := turned["event"].(map[string]any)
		ns, isNumber := new(big.Rat).SetString(leaf)
		return isNumber && ns.Mul(ns, big.NewRat(1e6, 1)).RatString() == fmt.Sprint(event["duration"])
	}
	return false
}

// leaves are all values and names in value, numbers with their digits.
func leaves(found []string, value any) []string {
	switch v := value.(type) {
	case map[string]any:
		for key, inside := range v {
			found = leaves(append(found, key), inside)
		}
	case []any:
		for _, inside := range v {
			found = leaves(found, inside)
		}
	case json.Number:
		found = append(found, v.String())
	default:
		found = append(found, fmt.Sprint(v))
	}
	return found
}

func TestWhatHasNoPlaceKeepsItsNameAndItsDigits(t *testing.T) {
	line := []byte(`{"seq":18446744073709551615,"action":"x","details":{"n":1.50e3,"big":90071992547409931234},"new":{"a":[1.0]},"outcome":7}`)
	for name, where := range map[string]string{"ocsf": "unmapped", "ecs": "moat"} {
		text, err := mustFormat(t, name).Append(nil, line)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			`"seq":18446744073709551615`, `"details":{"n":1.50e3,"big":90071992547409931234}`, `"new":{"a":[1.0]}`, `"outcome":7`,
		} {
			_, rest, _ := strings.Cut(string(text), `"`+where+`":`)
			if !strings.Contains(rest, want) {
				t.Errorf("%s: %s is not among %s", name, want, rest)
			}
		}
	}
}

func TestOfARepeatedNameTheLastCounts(t *testing.T) {
	line := []byte(`{"method":"GET","status":200,"x":1,"\u0073tatus":404,"\u0078":2}`)
	for name, want := range map[string]string{"ocsf": `"code":404`, "ecs": `"status_code":404`} {
		text, err := mustFormat(t, name).Append(nil, line)
		if err != nil || !strings.Contains(string(text), want) || strings.Count(string(text), `\u0078":2`) != 1 || strings.Contains(string(text), `"x":1`) {
			t.Errorf("%s: %s, %v", name, text, err)
		}
	}
}

func TestCallersAreToldApart(t *testing.T) {
	for line, want := range map[string][2]string{
		`{"userId":"moat"}`:                               {`"user":{"name":"moat","type_id":3`, `"user":{"name":"moat"}`},
		`{"userId":"moat","method":"GET"}`:                {`"user":{"uid":"moat"}`, `"user":{"id":"moat"}`},
		`{"userId":"anonymous","method":"GET"}`:           {`"user":{"name":"anonymous","type_id":0`, `"user":{"name":"anonymous"}`},
		`{"userId":"anonymous","action":"audit.summary"}`: {`"unmapped":{"userId":"anonymous"`, `"moat":{"userId":"anonymous"`},
		`{"userId":"p:0123456789abcdef0123456789abcdeF"}`: {`"uid":"p:`, `"user":{"id":"p:`},
		`{"userId":"p:0123456789abcdef"}`:                 {`"uid":"p:`, `"user":{"id":"p:`},
		`{"ip":"fe80::1%eth0","method":"GET"}`:            {`"src_endpoint":{"uid":"fe80::1%eth0"}`, `"client":{"address":"fe80::1%eth0"}`},
	} {
		for i, name := range []string{"ocsf", "ecs"} {
			text, err := mustFormat(t, name).Append(nil, []byte(line))
			if err != nil || !strings.Contains(string(text), want[i]) {
				t.Errorf("%s of %s: no %s in %s, %v", name, line, want[i], text, err)
			}
		}
	}
}

func TestAHugeFieldIsNotRepeated(t *testing.T) {
	long := strings.Repeat("a", 1<<16)
	line := []byte(`{"method":"GET","path":"/` + long + `","resource":"` + long + `"}`)
	for _, name := range []string{"ocsf", "ecs", "cloudevents"} {
		text, err := mustFormat(t, name).Append(nil, line)
		if err != nil || len(text) > len(line)+2048 {
			t.Errorf("%s: %d bytes of %d, %v", name, len(text), len(line), err)
		}
	}
}

func TestDataOfACloudEventIsTheLineByteForByte(t *testing.T) {
	line := []byte(`{ "seq" : 1.0, "x":"\u00e9\/é" }`)
	text, err := mustFormat(t, "cloudevents").Append(nil, line)
	if err != nil || !strings.HasSuffix(string(text), `"data":`+string(line)+`}`) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestPseudonymsAreNotTakenForAddressesOrNames(t *testing.T) {
	veil, err := audit.NewPseudonyms(bytes.Repeat([]byte("k"), 32), audit.KindIP, audit.KindUser)
	if err != nil {
		t.Fatal(err)
	}
	e := veil.Veil(fullRequest())
	hidden := map[string]string{"ip": veil.Of(audit.KindIP, "203.0.113.7"), "user": veil.Of(audit.KindUser, "u-1")}
	for name, want := range map[string][]string{
		"ocsf": {`"src_endpoint":{"uid":"` + hidden["ip"], `"user":{"uid":"` + hidden["user"]},
		"ecs":  {`"client":{"address":"` + hidden["ip"] + `"}`, `"source":{"address":"` + hidden["ip"] + `"}`, `"user":{"hash":"` + hidden["user"]},
	} {
		text, err := mustFormat(t, name).Append(nil, lineOf(e))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range want {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s: %s is not in %s", name, part, text)
			}
		}
		if strings.Contains(string(text), `"ip":"`) || strings.Contains(string(text), `"related"`) {
			t.Errorf("%s has an address: %s", name, text)
		}
		for _, what := range validators(t)[name](decode(t, text)) {
			t.Errorf("%s: %s", name, what)
		}
	}
}

func TestOutcomesAreToldInTheWordsOfTheSchemas(t *testing.T) {
	for _, c := range []struct{ outcome, code, ocsf, ecs string }{
		{"allow", "", `"status_id":1 "action_id":1 "disposition_id":1`, `"type":["access","allowed"] "outcome":"success"`},
		{"deny", "forbidden", `"status_id":2 "action_id":2 "disposition_id":26`, `"type":["access","denied"] "outcome":"failure"`},
		{"deny", "token-missing", `"disposition_id":26`, `"category":["network","web"]`},
		{"deny", "token-invalid", `"disposition_id":26`, `"category":["network","web","authentication"] "type":["access","denied","info"]`},
		{"deny", "bad-request", `"disposition_id":25`, `"category":["network","web"]`},
		{"deny", "rate-limited", `"disposition_id":2,`, `"type":["access","denied"]`},
		{"deny", "cross-origin", `"disposition_id":2,`, `"type":["access","denied"]`},
		{"deny", "unavailable", `"disposition_id":27`, `"type":["access","denied"]`},
		{"error", "", `"status_id":2 "action_id":1`, `"type":["access","allowed","error"] "outcome":"failure"`},
		{"aborted", "", `"status_id":99 "status":"aborted" "action_id":1`, `"type":["access","allowed"] "outcome":"unknown"`},
		{"maybe", "", `"status_id":0 "action_id":0 "disposition_id":0`, `"type":["access"] "outcome":"unknown"`},
	} {
		line := fmt.Appendf(nil, `{"method":"GET","path":"/","outcome":%q,"details":{"code":%q}}`, c.outcome, c.code)
		for name, want := range map[string]string{"ocsf": c.ocsf, "ecs": c.ecs} {
			text, err := mustFormat(t, name).Append(nil, line)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range strings.Fields(want) {
				if !strings.Contains(string(text), part) {
					t.Errorf("%s of %s %s: no %s in %s", name, c.outcome, c.code, part, text)
				}
			}
		}
	}
}

// TestEveryActionOfTheTreeHasAPlace reads the sources for the actions that the
// gateway writes, so that a new one is not forgotten here.
func TestEveryActionOfTheTreeHasAPlace(t *testing.T) {
	actions := ownActions(t)
	if len(actions) < 16 {
		t.Fatalf("only %q", actions)
	}
	for _, action := range actions {
		text, err := mustFormat(t, "ocsf").Append(nil, lineOf(operationOf(action, "thing", audit.Allow)))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), `"type_id":0`) {
			t.Errorf("%s is unknown to OCSF: %s", action, text)
		}
		if text, _ = mustFormat(t, "ecs").Append(nil, lineOf(operationOf(action, "thing", audit.Allow))); !strings.Contains(string(text), `"category":`) {
			t.Errorf("%s has no category of ECS: %s", action, text)
		}
	}
}

func ownActions(t *testing.T) []string {
	found := map[string]bool{}
	file, err := parser.ParseFile(token.NewFileSet(), "../audit.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Action") {
			text, _ := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			found[text] = text != audit.ActionSummary
		}
		return true
	})
	sources, err := filepath.Glob("../../../caddymodule/app/*.go")
	if err != nil || len(sources) == 0 {
		t.Fatal("no sources of the app")
	}
	named := regexp.MustCompile(`"((?:gateway|config|keys|policy|limit|store)\.[a-z-]+)"`)
	for _, source := range sources {
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			found[m[1]] = true
		}
	}
	maps.DeleteFunc(found, func(_ string, is bool) bool { return !is })
	return slices.Sorted(maps.Keys(found))
}

func TestASummaryIsOneEventOfManyRequests(t *testing.T) {
	line := lineOf(samples()[audit.ActionSummary])
	ocsf, err := mustFormat(t, "ocsf").Append(nil, line)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"count":4711`, `"time":1795316390000`, `"start_time":1795316390000`, `"end_time":1795316399999`, `"duration":9999`} {
		if !strings.Contains(string(ocsf), part) {
			t.Errorf("no %s in %s", part, ocsf)
		}
	}
	ecs, err := mustFormat(t, "ecs").Append(nil, line)
	if err != nil {
		t.Fatal(err)
	}
	if part := `"start":"2026-11-22T02:59:50.000001Z","end":"2026-11-22T02:59:59.999999Z"`; !strings.Contains(string(ecs), part) {
		t.Errorf("no %s in %s", part, ecs)
	}
	for _, half := range []string{
		`"from":"2026-11-22T02:00:00Z","to":"2026-11-22T03:00:00Z"`, `"count":2,"from":"2026-11-22T02:00:00Z"`,
		`"count":2,"to":"2026-11-22T03:00:00Z"`, `"count":"many"`,
	} {
		line := `{"action":"audit.summary","timestamp":"2026-11-22T03:00:00Z","details":{` + half + `}}`
		text, err := mustFormat(t, "ocsf").Append(nil, []byte(line))
		if err != nil || strings.Contains(string(text), `"start_time"`) || !strings.Contains(string(text), `"time":1795316400000`) {
			t.Errorf("%s: %s, %v", half, text, err)
		}
	}
}

func TestHostAndPortArePutApart(t *testing.T) {
	for host, want := range map[string]string{
		"a.example": `"domain":"a.example"}`, "a.example:8443": `"domain":"a.example","port":8443`,
		"[::1]:80": `"domain":"[::1]","port":80`, "::1": `"domain":"::1"}`, "a:99999": `"domain":"a:99999"}`,
		"a:080": `"domain":"a:080"}`, "a:": `"domain":"a:"}`, ":80": `"domain":":80"}`, "a:0": `"domain":"a:0"}`,
	} {
		text, err := mustFormat(t, "ecs").Append(nil, fmt.Appendf(nil, `{"host":%q}`, host))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: no %s in %s, %v", host, want, text, err)
		}
	}
}

func TestIdentitiesOfACloudEventAreSafe(t *testing.T) {
	for line, want := range map[string]string{
		`{"id":"a-1","instance":"gw a/ü?#%\u0000"}`: `"id":"a-1","source":"/moat/gw%20a%2F%C3%BC%3F%23%25%00",`,
		`{"id":"a b"}`:                                    `"source":"/moat",`,
		`{"seq":7}`:                                       `"sequence":"0000000000000000007"`,
		`{"action":"config.loaded"}`:                      `"type":"io.github.moat-gateway.audit.config.loaded"`,
		`{"action":"audit.checkpoint"}`:                   `"type":"io.github.moat-gateway.audit.checkpoint"`,
		`{"action":"config.loaded","method":"GET"}`:       `"type":"io.github.moat-gateway.audit.http.request"`,
		`{"action":"a b"}`:                                `"type":"io.github.moat-gateway.audit.unknown"`,
		`{"resource":"\u00e9<&"}`:                         `"subject":"\u00e9<&"`,
		`{"timestamp":"yesterday"}`:                       `unknown","datacontenttype"`,
		`{"timestamp":"2026-11-22T03:00:00.000001Z"}`:     `"time":"2026-11-22T03:00:00.000001Z"`,
		`{"resource":"\ud800","outcome":"deny"}`:          `unknown","datacontenttype"`,
		`{"resource":"a\u0085b"}`:                         `unknown","datacontenttype"`,
		`{"resource":"a\ufffe"}`:                          `unknown","datacontenttype"`,
		`{"id":"a\u0000"}`:                                `"source":"/moat",`,
		`{"resource":"\ufdd0","x":1}`:                     `unknown","datacontenttype"`,
		`{"severity":"high","outcome":"deny","seq":-1.5}`: `"application/json","outcome":"deny","severity":"high","data"`,
	} {
		text, err := mustFormat(t, "cloudevents").Append(nil, []byte(line))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: no %s in %s, %v", line, want, text, err)
			continue
		}
		for _, what := range validators(t)["cloudevents"](decode(t, text)) {
			t.Errorf("%s: %s\n%s", line, what, text)
		}
	}
}

func TestLinesThatAreNoEventAreRefusedAndLeaveTheSliceAlone(t *testing.T) {
	for line, want := range map[string]error{
		"": format.ErrNoEvent, " ": format.ErrNoEvent, "[]": format.ErrNoEvent, "7": format.ErrNoEvent, `"a"`: format.ErrNoEvent,
		"{": format.ErrNoEvent, `{"a":1}{}`: format.ErrNoEvent, "{\"a\":\"\xff\"}": format.ErrNoEvent,
		"{\"a\":\n1}": format.ErrLineBreak, "{}\n": format.ErrLineBreak, "{\"a\":\r1}": format.ErrLineBreak,
	} {
		for _, name := range []string{"ocsf", "ecs", "cloudevents"} {
			got, err := mustFormat(t, name).Append([]byte("before"), []byte(line))
			if !errors.Is(err, want) || string(got) != "before" {
				t.Errorf("%s of %q: %q, %v", name, line, got, err)
			}
		}
	}
}

// hostileLines are lines that no journal of ours writes.
var hostileLines = []string{
	`{}`, ` {"seq" : 7 , "roles" : [ "a" ,"b" ] } `, `{"method":"GET"}`, `{"action":"audit.summary"}`, `{"action":"gateway.start"}`,
	`{"timestamp":1,"userId":[],"action":{},"resource":null,"details":"x","ip":7,"id":true,"class":[1],"outcome":null,"reason":3,
"severity":{},"requestId":1,"tenant":[],"roles":"ops","method":9,"host":{},"path":1,"route":null,"status":"200","durationMs":"1","bytesIn":-1,"bytesOut":1.5,"seq":"1","instance":7,"prev":false}`,
	`{"method":"\u0047ET","path":"/\u0022\\\u000a\ud83d\ude00\ud800","outcome":"d\u0065ny","host":"\\:80","ip":"::1%eth0"}`,
	`{"status":200,"status":404,"x":1,"x":2,"\u0078":3,"\u0073tatus":500,"method":"GET"}`,
	`{"method":"GET","status":99999999999,"bytesIn":9223372036854775808,"bytesOut":-0,"durationMs":9223372036854775807,"seq":2147483648}`,
	`{"method":"GET","durationMs":1.1234567,"details":{"code":"forbidden","code":7}}`,
	`{"details":{"count":2,"from":"2026-01-01T00:00:00Z","to":"2025-01-01T00:00:00Z"},"action":"audit.summary"}`,
	`{"roles":["a",1]}`, `{"roles":[["a"]]}`, `{"roles":[ ]}`, `{"roles":[""]}`, `{"action":"audit.summary","method":10}`, `{"durationMs":1000000000001}`, `{"durationMs":1.5e3}`, `{"severity":"awful"}`,
	`{"method":"GET","status":200,"bytesIn":18446744073709551617,"bytesOut":2147483648,"durationMs":2147483648}`,
	`{"method":"GET","bytesIn":2147483648}`, `{"action":"audit.summary","details":{"count":1,"from":"x","to":7}}`, `{"userId":"p:zz","ip":"p:0123456789abcdef0123456789abcdef"}`,
	`{"":"","unmapped":{"a":1},"moat":2,"data":3,"@timestamp":4}`, `{"userId":"moat","method":"GET"}`,
	`{"timestamp":"9999-12-31T23:59:60Z","details":[1,[2,{"a":"]}"}]]}`, "{\"resource\":\"\u2028\x7f\u0085\ufffe\"}",
}

func TestHostileLinesStillFitTheSchemas(t *testing.T) {
	lines := append([]string{
		`{"path":"` + strings.Repeat(`\u0022`, 1<<16) + `","method":"` + strings.Repeat("M", 1<<16) + `","action":"` + strings.Repeat("a", 1<<16) + `"}`,
		`{"x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`,
	}, hostileLines...)
	for _, line := range lines {
		for name, check := range validators(t) {
			checkTurned(t, name, check, []byte(strings.ReplaceAll(line, "\n", "")))
		}
	}
}

// checkTurned checks all that is promised of any line that is a JSON object.
func checkTurned(t *testing.T, name string, check validator, line []byte) {
	t.Helper()
	text, err := mustFormat(t, name).Append([]byte("before"), line)
	if err != nil {
		t.Fatalf("%s of %.200q: %v", name, line, err)
	}
	text, ok := bytes.CutPrefix(text, []byte("before"))
	if !ok || bytes.ContainsAny(text, "\n\r") || !bytes.Equal(bytes.ToValidUTF8(text, nil), text) {
		t.Fatalf("%s of %.200q is %.200q", name, line, text)
	}
	turned := decode(t, text)
	for _, what := range check(turned) {
		t.Errorf("%s of %.500q: %s\n%.2000s", name, line, what, text)
	}
	for _, fact := range lost(decode(t, line), turned) {
		t.Errorf("%s of %.500q has lost %.200s:\n%.2000s", name, line, fact, text)
	}
}
