package lint_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/caddymodule/internal/lint"
	"github.com/moat-gateway/moat/internal/rbac"
)

// Pieces of configurations. The server is quiet: nothing but the routes is
// judged.
const (
	quiet = `"listen": ["127.0.0.1:80"]`
	open  = `"listen": [":8080"]`
	gate  = `{"handler": "moat_guard"}, {"handler": "moat_limit", "limits": [{"rate": "5/1m", "by": ["ip"]}]},
		{"handler": "moat_rbac", "rules": [{"methods": ["GET"], "pattern": "/a", "require": ["public"]}]}`
	proxy  = `{"handler": "reverse_proxy", "upstreams": [{"dial": "app:1"}]}`
	sealed = `{"handler": "reverse_proxy", "transport": {"protocol": "moat"}}`
)

// server is a configuration with one server; the rest of it has no finding.
func server(fields ...string) string {
	return `{"admin": {"disabled": true}, "apps": {"moat": {"audit": {}}, "http": {"grace_period": "1s", "servers": {"s": {` +
		strings.Join(fields, ", ") + `}}}}}`
}

func routes(list ...string) string { return `"routes": [` + strings.Join(list, ", ") + `]` }

func route(handlers ...string) string { return `{"handle": [` + strings.Join(handlers, ", ") + `]}` }

func matched(matchers string, handlers ...string) string {
	return `{"match": [{` + matchers + `}], "handle": [` + strings.Join(handlers, ", ") + `]}`
}

func grouped(matchers string, handlers ...string) string {
	return `{"group": "g", "match": [` + matchers + `], "handle": [` + strings.Join(handlers, ", ") + `]}`
}

func subroute(list ...string) string {
	return `{"handler": "subroute", ` + routes(list...) + `}`
}

func run(t *testing.T, config string, opts lint.Options) *lint.Report {
	t.Helper()
	report, err := lint.Run([]byte(config), opts)
	if err != nil {
		t.Fatalf("%v in %s", err, config)
	}
	return report
}

// found are the findings as "severity code place", the place from the routes on.
func found(t *testing.T, config string, opts lint.Options) []string {
	t.Helper()
	out := []string{}
	for _, f := range run(t, config, opts).Findings {
		out = append(out, fmt.Sprintf("%s %s %s", f.Severity, f.Code, strings.TrimPrefix(f.Place, "apps/http/servers/s/")))
	}
	return out
}

func TestEveryWayAroundTheGateIsFound(t *testing.T) {
	const path = `"path": ["/x"]`
	const path0 = `{` + path + `}`
	ungated := func(severity, place string) []string { return []string{severity + " responder-without-gate " + place} }
	for name, row := range map[string]struct {
		config string
		want   []string
	}{
		"no server":                {server(quiet), nil},
		"gated":                    {server(quiet, routes(route(gate, sealed))), nil},
		"gated before":             {server(quiet, routes(route(gate), route(sealed))), nil},
		"gated in a subroute":      {server(quiet, routes(route(subroute(route(gate))), route(sealed))), nil},
		"gated in every branch":    {server(quiet, routes(grouped(`{"host": ["a"]}`, gate), grouped(``, gate), route(sealed))), nil},
		"gated in one branch":      {server(quiet, routes(grouped(`{"host": ["a"]}`, gate), grouped(``, `{"handler": "vars"}`), route(proxy))), ungated("medium", "routes/2/handle/0")},
		"gated in the last branch": {server(quiet, routes(grouped(`{"host": ["a"]}`, `{"handler": "vars"}`), grouped(``, gate), route(proxy))), ungated("medium", "routes/2/handle/0")},
		"decided in one branch":    {server(quiet, routes(grouped(`{"host": ["a"]}`, `{"handler": "moat_guard"}`), grouped(``, gate), route(proxy))), ungated("medium", "routes/2/handle/0")},
		"guarded in one branch":    {server(quiet, routes(grouped(`{"host": ["a"]}`, `{"handler": "moat_limit", "limits": [{"rate": "5/1m", "by": ["ip"]}]}, {"handler": "moat_rbac"}`), grouped(``, gate), route(proxy))), ungated("medium", "routes/2/handle/0")},
		"limited by method": {server(quiet, routes(matched(`"method": ["POST"]`, `{"handler": "moat_limit", "limits": [{"rate": "5/1m", "by": ["ip"]}]}`), route(`{"handler": "moat_guard"}`, `{"handler": "moat_rbac"}`, sealed))),
			[]string{"low no-limit-for-anonymous routes/1/handle/1"}},
		"gated for one host":        {server(quiet, routes(matched(`"host": ["a"]`, gate), route(proxy))), ungated("medium", "routes/1/handle/0")},
		"gated behind":              {server(quiet, routes(route(proxy, gate))), ungated("medium", "routes/0/handle/0")},
		"looked up, not decided":    {server(quiet, routes(route(`{"handler": "moat_guard"}, {"handler": "moat_rbac", "stage": "match"}`, proxy))), ungated("medium", "routes/0/handle/2")},
		"no guard":                  {server(quiet, routes(route(`{"handler": "moat_limit", "limits": [{"rate": "5/1m", "by": ["ip"]}]}, {"handler": "moat_rbac"}`, proxy))), ungated("medium", "routes/0/handle/2")},
		"a named route":             {server(quiet, routes(route(`{"handler": "invoke", "name": "n"}`)), `"named_routes": {"n": `+route(proxy)+`}`), ungated("medium", "named_routes/n/handle/0")},
		"a named gate":              {server(quiet, routes(route(`{"handler": "invoke", "name": "n"}`, sealed)), `"named_routes": {"n": `+route(gate)+`}`), nil},
		"nobody calls it":           {server(quiet, `"named_routes": {"n": `+route(proxy)+`}`), nil},
		"routes that call a circle": {server(quiet, routes(route(`{"handler": "invoke", "name": "n"}`)), `"named_routes": {"n": `+route(`{"handler": "invoke", "name": "n"}`)+`}`), nil},
		"behind an answer": {server(quiet, routes(route(gate, `{"handler": "reverse_proxy", "transport": {"protocol": "moat"}, "handle_response": [{"routes": [`+route(proxy)+`]}]}`))),
			[]string{"high proxy-without-seal routes/0/handle/3/handle_response/0/routes/0/handle/0"}},
		"behind an intercepted answer": {server(quiet, routes(route(`{"handler": "intercept", "handle_response": [{"routes": [`+route(proxy)+`]}]}`))),
			ungated("medium", "routes/0/handle/0/handle_response/0/routes/0/handle/0")},
		"a question":              {server(open, routes(route(`{"handler": "reverse_proxy", "rewrite": {"method": "GET", "uri": "/v?u={uri}"}, "handle_response": [{"match": {"status_code": [2]}, "routes": [{"handle": [{"handler": "headers"}]}]}]}`))), nil},
		"a question by the path":  {server(open, routes(route(`{"handler": "reverse_proxy", "rewrite": {"method": "GET", "uri": "{uri}"}, "handle_response": [{"match": {"status_code": [2]}, "routes": [{"handle": [{"handler": "headers"}]}]}]}`))), ungated("high", "routes/0/handle/0")},
		"an answer passed on":     {server(open, routes(route(`{"handler": "reverse_proxy", "rewrite": {"method": "GET", "uri": "/v"}, "handle_response": [{"match": {"status_code": [2]}, "routes": [{"handle": [{"handler": "copy_response"}]}]}]}`))), ungated("high", "routes/0/handle/0")},
		"another answer":          {server(open, routes(route(`{"handler": "reverse_proxy", "rewrite": {"method": "GET", "uri": "/v"}, "handle_response": [{"match": {"status_code": [4]}, "routes": [{"handle": [{"handler": "headers"}]}]}]}`))), ungated("high", "routes/0/handle/0")},
		"any answer":              {server(open, routes(route(`{"handler": "reverse_proxy", "rewrite": {"method": "GET", "uri": "/v"}, "handle_response": [{}]}`))), ungated("high", "routes/0/handle/0")},
		"a question with a POST":  {server(open, routes(route(`{"handler": "reverse_proxy", "rewrite": {"method": "POST", "uri": "/v"}, "handle_response": [{}]}`))), ungated("high", "routes/0/handle/0")},
		"a question about itself": {server(open, routes(route(`{"handler": "reverse_proxy", "rewrite": {"method": "GET"}, "handle_response": [{}]}`))), ungated("high", "routes/0/handle/0")},
		"a rewritten request":     {server(open, routes(route(`{"handler": "reverse_proxy", "rewrite": {"method": "GET", "uri": "/v"}}`))), ungated("high", "routes/0/handle/0")},
		"for everybody":           {server(open, routes(route(proxy))), ungated("high", "routes/0/handle/0")},
		"files":                   {server(open, routes(route(`{"handler": "file_server"}`))), ungated("high", "routes/0/handle/0")},
		"files for this machine":  {server(quiet, routes(route(`{"handler": "file_server"}`))), ungated("medium", "routes/0/handle/0")},
		"a socket":                {server(`"listen": ["unix//run/a.sock", "[::1]:1", "tcp/localhost:2"]`, routes(route(proxy))), ungated("medium", "routes/0/handle/0")},
		"a socket and a port":     {server(`"listen": ["unix//run/a.sock", "192.0.2.1:8080"]`, routes(route(proxy))), ungated("high", "routes/0/handle/0")},
		"a text":                  {server(open, routes(route(`{"handler": "static_response", "body": "x"}`))), ungated("medium", "routes/0/handle/0")},
		"a text with a status":    {server(open, routes(route(`{"handler": "static_response", "body": "x", "status_code": 200}`))), ungated("medium", "routes/0/handle/0")},
		"a template":              {server(open, routes(route(`{"handler": "templates"}`, `{"handler": "static_response", "body": "x"}`))), ungated("high", "routes/0/handle/1")},
		"an error with a text":    {server(open, routes(route(`{"handler": "static_response", "body": "x", "status_code": "404"}`))), nil},
		"a redirect":              {server(open, routes(route(`{"handler": "static_response", "body": "x", "status_code": 302}`))), nil},
		"an end":                  {server(open, routes(route(`{"handler": "static_response", "abort": true, "body": "x"}`))), nil},
		"an empty answer":         {server(open, routes(route(`{"handler": "static_response", "status_code": 204}`))), nil},
		"metrics":                 {server(open, routes(route(`{"handler": "metrics"}`))), ungated("medium", "routes/0/handle/0")},
		"health":                  {server(open, routes(matched(path, `{"handler": "moat_health"}`))), ungated("low", "routes/0/handle/0")},
		"metrics and health here": {server(quiet, routes(route(`{"handler": "metrics"}`), matched(path, `{"handler": "moat_health"}`))), nil},
		"somebody's handler":      {server(open, routes(route(`{"handler": "cgi"}`))), ungated("low", "routes/0/handle/0")},
		"what answers nothing":    {server(open, routes(route(`{"handler": "encode"}`, `{"handler": "vars"}`, `{"handler": "error"}`))), nil},
		"sealed":                  {server(open, routes(route(sealed))), ungated("low", "routes/0/handle/0")},
		"no seal":                 {server(quiet, routes(route(gate, proxy))), []string{"high proxy-without-seal routes/0/handle/3"}},
		"an error page":           {server(open, `"errors": {`+routes(route(proxy))+`}`), ungated("high", "errors/routes/0/handle/0")},
		"a group outside": {server(quiet, routes(grouped(path0, `{"handler": "vars"}`), route(subroute(grouped(``, gate))), route(proxy))),
			[]string{"medium responder-without-gate routes/2/handle/0"}},
		"a page by its own name": {server(quiet, routes(route(gate)), `"errors": {`+routes(route(`{"handler": "rewrite", "uri": "/{http.error.status_code}.html"}`, sealed, `{"handler": "file_server"}`))+`}`), nil},
		"a page by the path": {server(quiet, routes(route(gate)), `"errors": {`+routes(route(`{"handler": "rewrite", "uri": "/e{http.request.uri.path}"}`, `{"handler": "file_server"}`))+`}`),
			[]string{"high error-route-by-path errors/routes/0/handle/1"}},
		"a page perhaps by its own name": {server(quiet, routes(route(gate)), `"errors": {`+routes(matched(path, `{"handler": "rewrite", "uri": "/e.html"}`), route(`{"handler": "file_server"}`))+`}`),
			[]string{"high error-route-by-path errors/routes/1/handle/0"}},
		"an error page of a guarded server": {server(quiet, routes(route(gate)), `"errors": {`+routes(route(proxy, `{"handler": "file_server"}`))+`}`),
			[]string{"high proxy-without-seal errors/routes/0/handle/0", "high error-route-by-path errors/routes/0/handle/1"}},
		"a sealed error page": {server(quiet, routes(route(gate)), `"errors": {`+routes(route(sealed, `{"handler": "moat_refusal"}`))+`}`),
			[]string{"medium error-route-by-path errors/routes/0/handle/0"}},
		"an error page of a subroute": {server(quiet, routes(route(gate, `{"handler": "subroute", "errors": {`+routes(route(proxy))+`}}`))),
			[]string{"high proxy-without-seal routes/0/handle/3/errors/routes/0/handle/0"}},
		"behind a path": {server(quiet, routes(matched(path, gate, sealed))),
			[]string{"medium gate-behind-matcher routes/0", "low no-limit-for-anonymous routes/0/handle/2"}},
		"below a path":         {server(quiet, routes(route(gate), matched(path, subroute(matched(`"header": {"X": ["1"]}`, `{"handler": "moat_headers"}`))))), []string{"medium gate-behind-matcher routes/1"}},
		"behind no path":       {server(quiet, routes(route(gate), matched(`"not": [{`+path+`}]`, `{"handler": "moat_headers"}`))), []string{"medium gate-behind-matcher routes/1"}},
		"behind an address":    {server(quiet, routes(route(gate), matched(`"not": [{"remote_ip": {}, "method": ["GET"]}]`, `{"handler": "moat_headers"}`))), nil},
		"behind a method":      {server(quiet, routes(route(gate), matched(`"method": ["POST"], "protocol": "https"`, `{"handler": "moat_headers"}`))), nil},
		"behind a broken list": {server(quiet, `"routes": [null, 7, `+route("7", "null", proxy)+`]`), ungated("medium", "routes/2/handle/2")},
	} {
		if got := found(t, row.config, lint.Options{}); !slices.Equal(got, row.want) && len(got)+len(row.want) > 0 {
			t.Errorf("%s:\n got %q\nwant %q", name, got, row.want)
		}
	}
}

func TestServersAreJudgedByWhatTheyWillSpeak(t *testing.T) {
	const floor = `"tls_connection_policies": [{"protocol_min": "tls1.3"}]`
	tls := []string{"high tls-below-1-3 apps/http/servers/s", "medium early-data-on apps/http/servers/s", "medium strict-sni-host-off apps/http/servers/s"}
	host := routes(matched(`"host": ["a.example.com"]`, `{"handler": "error"}`))
	for name, row := range map[string]struct {
		config string
		want   []string
	}{
		"plain":                    {server(`"listen": [":8080"]`), nil},
		"the https port":           {server(`"listen": ["0.0.0.0:443"]`), tls},
		"another https port":       {`{"admin": {"disabled": true}, "apps": {"http": {"https_port": 8443, "grace_period": 1, "servers": {"s": {"listen": [":8443"]}}}}}`, tls},
		"the http port":            {server(`"listen": [":80"]`, host), nil},
		"a host":                   {server(`"listen": [":8443"]`, host), tls},
		"a host that is skipped":   {server(`"listen": [":8443"]`, host, `"automatic_https": {"skip": ["a.example.com"]}`), nil},
		"no automatic https":       {server(`"listen": [":443"]`, `"automatic_https": {"disable": true}`), nil},
		"everything set":           {server(`"listen": [":443"]`, floor, `"strict_sni_host": true, "allow_0rtt": false`), nil},
		"early data without h3":    {server(`"listen": [":443"]`, floor, `"strict_sni_host": true, "protocols": ["h1", "h2"]`), nil},
		"early data asked for":     {server(`"listen": [":443"]`, floor, `"strict_sni_host": true, "allow_0rtt": true`), tls[1:2]},
		"client certificates":      {server(`"listen": [":443"]`, `"tls_connection_policies": [{"protocol_min": "tls1.3", "client_authentication": {"mode": "require"}}]`, `"allow_0rtt": false`), nil},
		"off for all certificates": {server(`"listen": [":443"]`, `"tls_connection_policies": [{"protocol_min": "tls1.3", "client_authentication": {"mode": "require"}}]`, `"allow_0rtt": false, "strict_sni_host": false`), tls[2:]},
		"a connection that ends":   {server(`"listen": [":443"]`, `"tls_connection_policies": [{"drop": true}]`, `"strict_sni_host": true, "allow_0rtt": false`), nil},
		"by another matcher": {server(`"listen": [":443"]`, `"tls_connection_policies": [{"match": {"remote_ip": {}}, "protocol_min": "tls1.2"}]`, `"strict_sni_host": true, "allow_0rtt": false`),
			[]string{"high tls-below-1-3 tls_connection_policies/0"}},
		"guarded without TLS":      {server(`"listen": [":8080"]`, routes(route(gate))), []string{"low gate-without-tls apps/http/servers/s"}},
		"guarded for this machine": {server(quiet, routes(route(gate))), nil},
		"proxies that lie":         {server(quiet, `"trusted_proxies": {"source": "static"}`), []string{"high trusted-proxies-not-strict trusted_proxies"}},
		"proxies that may not":     {server(quiet, `"trusted_proxies": {"source": "static"}, "trusted_proxies_strict": 1`), nil},
	} {
		got := found(t, row.config, lint.Options{})
		if !slices.Equal(got, row.want) && len(got)+len(row.want) > 0 {
			t.Errorf("%s:\n got %q\nwant %q", name, got, row.want)
		}
	}
}

func TestTheAdminEndpointIsJudgedByWhoCanConnect(t *testing.T) {
	for admin, want := range map[string]string{
		`{"disabled": true}`: "", `{"listen": "unix//run/a.sock"}`: "", `{"listen": "fd/3"}`: "",
		`{}`: "medium", `{"listen": "localhost:2019"}`: "medium", `{"listen": "tcp/[::1]:2019"}`: "medium",
		`{"listen": ":2019"}`: "high", `{"listen": "192.0.2.1:2019"}`: "high", `{"listen": "{env.ADMIN}"}`: "high",
	} {
		got := ""
		for _, f := range run(t, `{"admin": `+admin+`}`, lint.Options{}).Findings {
			got = string(f.Severity)
		}
		if got != want {
			t.Errorf("admin %s: %q, want %q", admin, got, want)
		}
	}
}

const files = `{"admin": {"disabled": true}, "apps": {
	"moat": {"audit": {}, "roles_file": "roles", "role": [{"name": "a", "permissions": ["a.read"], "place": "C:1"}]},
	"http": {"grace_period": 1, "servers": {"s": {"listen": ["127.0.0.1:80"], "routes": [{"handle": [
		{"handler": "moat_guard"}, {"handler": "moat_limit", "limits": [{"rate": "1/1m", "by": ["ip"]}]},
		{"handler": "moat_rbac", "rules_file": "rules"}]}]}}}}}`

func TestPolicyFilesCountLikeTheConfiguration(t *testing.T) {
	fromFile := lint.Options{
		RolesFile: func(path string) ([]rbac.RoleConfig, error) {
			return []rbac.RoleConfig{{Name: "b", Inherit: []string{"a"}}, {Name: "c", Place: path + ":2"}}, nil
		},
		RulesFile: func(path string) ([]rbac.RuleConfig, error) {
			return []rbac.RuleConfig{
				{Methods: []string{"GET"}, Pattern: "/a", Require: []string{"a:read"}},
				{Methods: []string{"GET"}, Pattern: "/b", Require: []string{"b.read"}, Place: path + ":3"},
				{Methods: []string{"GET"}, Pattern: "/c", Require: []string{"c.read"}},
			}, nil
		},
	}
	want := []string{
		"medium role-without-permissions roles:2", "medium permission-without-role rules:3", "medium permission-without-role rules[2]",
	}
	if got := found(t, files, fromFile); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	want = []string{"high policy-file-unreadable routes/0/handle/2/rules_file", "high policy-file-unreadable apps/moat/roles_file"}
	slices.Sort(want)
	if got := found(t, files, lint.Options{}); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("without readers: %q", got)
	}
	fromFile.RolesFile = func(string) ([]rbac.RoleConfig, error) { return nil, errors.New("torn") }
	// What is not known cannot be missing.
	if got := found(t, files, fromFile); !slices.Equal(got, []string{"high policy-file-unreadable apps/moat/roles_file"}) {
		t.Errorf("with torn roles: %q", got)
	}
}

func TestPlacesAreLinesWhereThatIsSure(t *testing.T) {
	lines := []lint.Line{
		{File: "C", Number: 9, Words: []string{"reverse_proxy", "http://app:1"}},
		{File: "C", Number: 10, Words: []string{"reverse_proxy", "app:2"}},
		{File: "C", Number: 11, Words: []string{"respond", "to app:1"}},
	}
	two := server(open, routes(route(`{"handler": "reverse_proxy", "upstreams": [{"dial": "app:2"}]}`), route(proxy)))
	json := []string{"high responder-without-gate routes/0/handle/0", "high responder-without-gate routes/1/handle/0"}
	imported := func(name string) []lint.Line {
		return append(slices.Clone(lines), lint.Line{File: "C", Number: 12, Words: []string{"import", name}})
	}
	for name, row := range map[string]struct {
		lines []lint.Line
		want  []string
	}{
		"known, in order":     {lines, []string{"high responder-without-gate C:9", "high responder-without-gate C:10"}},
		"nothing known":       {nil, json},
		"the same line twice": {append(slices.Clone(lines), lines[0], lines[1]), json},
		"another file":        {imported("sites/*"), json},
		"a snippet": {append(imported("snippet"), lint.Line{File: "C", Number: 1, Words: []string{"(snippet)", "{"}}),
			[]string{"high responder-without-gate C:9", "high responder-without-gate C:10"}},
	} {
		if got := found(t, two, lint.Options{Lines: row.lines}); !slices.Equal(got, row.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestAReportIsAlwaysTheSame(t *testing.T) {
	config := server(open, routes(matched(`"host": ["a", "b"]`, proxy, gate, proxy), route(gate, proxy)), `"trusted_proxies": {"source": "static"}`)
	first := run(t, config, lint.Options{})
	if len(first.Findings) < 4 {
		t.Fatalf("only %d findings", len(first.Findings))
	}
	for range 20 {
		if again := run(t, config, lint.Options{}); !reflect.DeepEqual(first, again) {
			t.Fatalf("%v\n%v", first, again)
		}
	}
	counted := map[lint.Severity]int{}
	for _, f := range first.Findings {
		counted[f.Severity]++
	}
	if s := first.Summary; s.High != counted[lint.High] || s.Medium != counted[lint.Medium] || s.Low != counted[lint.Low] {
		t.Errorf("summary %+v of %v", s, counted)
	}
}

func TestOnlyAnObjectIsAConfiguration(t *testing.T) {
	for _, text := range []string{"", "[]", "7", "{", `"x"`, "null"} {
		if _, err := lint.Run([]byte(text), lint.Options{}); err == nil {
			t.Errorf("%q has a report", text)
		}
	}
	if report := run(t, "{}", lint.Options{}); report.Findings == nil {
		t.Error("no list of findings")
	}
}

func TestAKeyInAnotherCaseIsNotOverlooked(t *testing.T) {
	for text, bad := range map[string]bool{
		`{"apps": {"http": {"servers": {"Routes": {"Routes": []}}}}}`: true,
		`{"Apps": {}}`: true,
		`{"apps": {"http": {"servers": {"s": {"routes": [{"Handle": []}]}}}}}`:                             true,
		`{"apps": {"moat": {"Audit": {}}}}`:                                                                true,
		`{"apps": {"http": {"servers": {"Routes": {"routes": []}}}}}`:                                      false,
		`{"apps": {"http": {"servers": {"s": {"routes": [{"match": [{"header": {"Handle": ["x"]}}]}]}}}}}`: false,
	} {
		if err := lint.CheckKeys([]byte(text)); (err != nil) != bad {
			t.Errorf("%s: %v", text, err)
		}
		if _, err := lint.Run([]byte(text), lint.Options{}); (err != nil) != bad {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestRoutesThatCallEachOtherWithoutEnd(t *testing.T) {
	var named []string
	for i := range 12 {
		calls := ""
		for n := range 12 {
			calls += fmt.Sprintf(`{"handler": "invoke", "name": "n%d"},`, n)
		}
		named = append(named, fmt.Sprintf(`"n%d": %s`, i, route(strings.TrimSuffix(calls, ","))))
	}
	config := server(quiet, routes(route(`{"handler": "invoke", "name": "n0"}`)), `"named_routes": {`+strings.Join(named, ",")+`}`)
	if _, err := lint.Run([]byte(config), lint.Options{}); err == nil || !strings.Contains(err.Error(), "call each other") {
		t.Errorf("%v", err)
	}
}

// TestEveryCodeIsExplained holds the codes, their sections in the manual and
// their fixtures together.
func TestEveryCodeIsExplained(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	page, err := os.ReadFile(filepath.Join(root, "docs", "lint.md"))
	if err != nil {
		t.Fatal(err)
	}
	var codes, sections []string
	for _, code := range lint.Codes() {
		codes = append(codes, string(code))
		for _, kind := range []string{"bad", "good"} {
			if files, err := filepath.Glob(filepath.Join(root, "integration", "lint", string(code)+"."+kind+"*")); err != nil || len(files) == 0 {
				t.Errorf("%s: no %s fixture", code, kind)
			}
		}
	}
	for _, section := range regexp.MustCompile("(?m)^## `(.*)`").FindAllStringSubmatch(string(page), -1) {
		sections = append(sections, section[1])
	}
	slices.Sort(sections)
	if !slices.Equal(codes, sections) {
		t.Errorf("codes\n%v\nsections of docs/lint.md\n%v", codes, sections)
	}
}
