package command

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestCasesReadAlikeAsJSONAndYAML(t *testing.T) {
	asYAML := `
- name: "a \u00e9 \x7f"
  method: GET
  url: https://orders.test/a
  user: "7"
  roles: user, Form Manager
  claims: {level: 3, amr: [mfa], deep: {x: true, y: null}}
  headers: {Accept: [a, b]}
  at: 2026-07-01T09:00:00Z
  expect: 403
`
	asJSON := "[\n\t{\n\t\t\"name\": \"a \u00e9 \x7f\", \"method\": \"GET\", \"url\": \"https:\\/\\/orders.test/a\", \"user\": \"7\",\n" +
		"\t\t\"roles\": [\"user\", \"Form Manager\"], \"claims\": {\"level\": 3, \"amr\": [\"mfa\"], \"deep\": {\"x\": true, \"y\": null}},\n" +
		"\t\t\"headers\": {\"Accept\": [\"a\", \"b\"]}, \"at\": \"2026-07-01T09:00:00Z\", \"expect\": 403\n\t}\n]"
	one, err := parseCases("x", []byte(asYAML))
	if err != nil {
		t.Fatal(err)
	}
	other, err := parseCases("x", []byte(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(one, other) {
		t.Errorf("YAML %+v %+v\nJSON %+v %+v", one[0], one[0].request.caller, other[0], other[0].request.caller)
	}
	if level := one[0].request.caller.Claims["level"]; level != json.Number("3") {
		t.Errorf("a number is a %T; a token's is a json.Number", level)
	}
	if roles := one[0].request.caller.Roles; !reflect.DeepEqual(roles, []string{"user", "Form Manager"}) {
		t.Errorf("roles %q", roles)
	}
}

func TestCasesThatCannotBeRead(t *testing.T) {
	const whole = "- {method: GET, url: 'https://a.test/', expect: allow, "
	for name, c := range map[string]struct{ text, want string }{
		"nothing":            {"", "is empty"},
		"an object":          {"cases: []", "must be a list of cases"},
		"an empty list":      {"[]", "must be a list of cases"},
		"no YAML":            {"- [", "neither YAML nor JSON"},
		"two documents":      {whole + "}\n---\n" + whole + "}", "more than one document"},
		"an anchor":          {whole + "name: &a x}", "anchors and aliases"},
		"too deep":           {strings.Repeat("[", 100) + strings.Repeat("]", 100), "too deep"},
		"a word twice":       {whole + "expect: deny}", "expect: stands twice"},
		"a list for text":    {whole + "user: [a]}", "user: must be one text"},
		"null":               {whole + "user: }", "user: must be one text"},
		"no expectation":     {"- {method: GET, url: 'https://a.test/'}", "expect: is missing"},
		"a good status":      {strings.Replace(whole, "allow", "204", 1) + "}", `expect "204"`},
		"an object of roles": {whole + "roles: {a: b}}", "roles: must be a text or a list"},
		"claims in a list":   {whole + "claims: [a]}", "must be one JSON object"},
		"a list of headers":  {whole + "headers: [a]}", "headers: must be an object"},
		"a bad header":       {whole + "headers: {'a b': x}}", `header 1`},
		"a split header":     {whole + `headers: {a: "x\r\nb: y"}}`, `header 1`},
		"a split method":     {strings.Replace(whole, "GET", "'GET / HTTP/1.1'", 1) + "}", "must be one word"},
		"a split URL":        {strings.Replace(whole, "'https://a.test/'", `"https://a.test/\r\nX: y"`, 1) + "}", "must be one line"},
		"a split token":      {whole + `token: "x\r\ny"}`, "the token has characters"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseCases("x.yaml", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "x.yaml:") {
				t.Errorf("error %v, want x.yaml: and %q", err, c.want)
			}
		})
	}
}

func TestURLsAreTakenApartAndNotChanged(t *testing.T) {
	for url, want := range map[string]target{
		"https://a.test":                    {https: true, host: "a.test", name: "a.test", port: 443, path: "/"},
		"http://a.test:8080/x//../%2e?y=#z": {host: "a.test:8080", name: "a.test", port: 8080, path: "/x//../%2e?y=#z"},
		"https://[2001:db8::1]:8443?q":      {https: true, host: "[2001:db8::1]:8443", name: "2001:db8::1", port: 8443, path: "/?q"},
		"http://[2001:db8::1]/":             {host: "[2001:db8::1]", name: "2001:db8::1", port: 80, path: "/"},
		"http://a.test#x":                   {host: "a.test", name: "a.test", port: 80, path: "#x"},
	} {
		want.url = url
		got, err := parseTarget(url)
		if err != nil || *got != want {
			t.Errorf("%s: %+v, %v; want %+v", url, got, err, want)
		}
	}
	for _, url := range []string{"", "a.test", "/x", "ftp://a.test/", "https:///x", "https://a.test:x/", "https://u:p@a.test/", "https://a b/"} {
		if got, err := parseTarget(url); err == nil {
			t.Errorf("%q is %+v, want an error", url, got)
		}
	}
}

// TestReduceTakesOffWhatNeedsAnything looks at the configuration that is
// provisioned.
func TestReduceTakesOffWhatNeedsAnything(t *testing.T) {
	const config = `{
	"storage": {"module": "somewhere"}, "logging": {"logs": {"x": {}}},
	"apps": {
		"tls": {"certificates": {}}, "pki": {}, "layer4": {},
		"moat": {"redis": {"url": "x"}, "audit": {"journal": {"dir": "/x"}}, "role": [{"name": "a"}], "issuer": [
			{"name": "main", "iss": ["i"], "discovery": true, "algorithms": ["ES256"], "jwks": "x", "key": ["y"], "secret": ["z"]}]},
		"http": {"metrics": {}, "servers": {"srv0": {
			"errors": {"routes": []}, "logs": {}, "listener_wrappers": [{"wrapper": "tls"}],
			"tls_connection_policies": [{"client_authentication": {"mode": "require"}, "protocol_min": "tls1.3"}],
			"named_routes": {"n": {"handle": [{"handler": "encode"}]}},
			"routes": [{"handle": [{"handler": "subroute", "errors": {}, "routes": [{"handle": [
				{"handler": "moat_guard"},
				{"handler": "invoke", "name": "n"},
				{"handler": "reverse_proxy", "health_checks": {"active": {}}, "transport": {"protocol": "moat", "tls": {"ca": "x"}}}
			]}]}]}]
		}}}
	}
}`
	for _, keys := range []bool{false, true} {
		got, err := reduce([]byte(config), "/store", keys)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.AppsRaw) != 2 || string(got.StorageRaw) != `{"module":"file_system","root":"/store"}` {
			t.Errorf("apps %v, storage %s", got.AppsRaw, got.StorageRaw)
		}
		http, moat := string(got.AppsRaw["http"]), string(got.AppsRaw["moat"])
		for _, not := range []string{"errors", "logs", "wrappers", "client_authentication", "health_checks", `"ca"`, "metrics"} {
			if strings.Contains(http, not) {
				t.Errorf("%s is still in\n%s", not, http)
			}
		}
		for _, want := range []string{
			`"strict_sni_host":true`, `"protocol_min":"tls1.3"`,
			`{"handler":"moat_explained","of":{"handler":"encode"}}`, `{"handler":"moat_explained","of":{"handler":"moat_guard"}}`,
			`{"handler":"invoke","name":"n"}`,
			`{"handler":"moat_explained","of":{"handler":"reverse_proxy","transport":{"protocol":"moat"}}}`,
		} {
			if !strings.Contains(http, want) {
				t.Errorf("no %s in\n%s", want, http)
			}
		}
		if strings.Contains(moat, "redis") || strings.Contains(moat, "audit") || !strings.Contains(moat, `"role":[{"name":"a"}]`) {
			t.Errorf("moat is %s", moat)
		}
		if locked := !strings.Contains(moat, "discovery") && !strings.Contains(moat, "ES256") && !strings.Contains(moat, `"z"`); locked == keys {
			t.Errorf("keys %v: moat is %s", keys, moat)
		}
	}
}

func TestReduceNeedsSites(t *testing.T) {
	for _, text := range []string{"{}", "[]", "x", `{"apps":{"http":{"servers":{}}}}`} {
		if _, err := reduce([]byte(text), "/store", false); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}
