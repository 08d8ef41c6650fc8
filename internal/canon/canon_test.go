package canon_test

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/canon"
)

const host = "app.example"

// overHTTP1 is the request a server makes of a request line.
func overHTTP1(method, target, host string) (*http.Request, error) {
	return http.ReadRequest(bufio.NewReader(strings.NewReader(
		method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")))
}

// overHTTP2 is the request a server makes of the fields :path and :authority.
func overHTTP2(method, target, host string) (*http.Request, error) {
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, err
	}
	return &http.Request{
		Method: method, URL: u, RequestURI: target, Host: host,
		Proto: "HTTP/2.0", ProtoMajor: 2, Header: http.Header{},
	}, nil
}

type transport struct {
	name string
	read func(method, target, host string) (*http.Request, error)
}

var transports = []transport{{"h1", overHTTP1}, {"h2", overHTTP2}}

func policy(t testing.TB, c canon.Config) *canon.Policy {
	t.Helper()
	p, err := canon.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// refusal returns the reason of err, which has to be a *Refusal or nil.
func refusal(t testing.TB, err error) (canon.Class, string) {
	t.Helper()
	if err == nil {
		return 0, ""
	}
	var r *canon.Refusal
	if !errors.As(err, &r) {
		t.Fatalf("error %T is no *Refusal", err)
	}
	return r.Class, r.Reason
}

// requestLine is what net/http sends an upstream for r.
func requestLine(t testing.TB, r *http.Request) string {
	t.Helper()
	var wire bytes.Buffer
	if err := r.Write(&wire); err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(wire.String(), "\r\n")
	return line
}

// checkForwarded applies target and holds what goes upstream against it.
func checkForwarded(t testing.TB, p *canon.Policy, r *http.Request, target canon.Target) {
	t.Helper()
	wantHost := r.Host
	target.Apply(r)
	if got := r.URL.RequestURI(); got != target.URI() || r.RequestURI != got {
		t.Errorf("upstream would receive %q, request URI %q, judged %q", got, r.RequestURI, target.URI())
	}
	if got, want := requestLine(t, r), target.Method+" "+target.URI()+" HTTP/1.1"; got != want {
		t.Errorf("request line %q, want %q", got, want)
	}
	if u := r.URL; u.EscapedPath() != target.Path || u.RawQuery != target.Query || u.Host != "" ||
		u.Scheme != "" || u.Opaque != "" || u.User != nil || u.Fragment != "" || u.RawFragment != "" {
		t.Errorf("URL is %#v, want nothing but %q", *u, target.URI())
	}
	if def := (&url.URL{Path: r.URL.Path}).EscapedPath(); (r.URL.RawPath == "") != (def == target.Path) {
		t.Errorf("RawPath %q, net/url's own spelling %q", r.URL.RawPath, def)
	}
	if r.Host != wantHost {
		t.Errorf("Host changed from %q to %q", wantHost, r.Host)
	}
	again, err := p.Target(r)
	if err != nil || again != target {
		t.Errorf("second pass gave %+v, %v; want the fixed point %+v", again, err, target)
	}
}

func TestOnlyListedMethodsPass(t *testing.T) {
	custom := []string{"GET", "PROPFIND"}
	for name, c := range map[string]struct {
		methods []string
		method  string
		allowed bool
	}{
		"get":                        {nil, "GET", true},
		"head":                       {nil, "HEAD", true},
		"post":                       {nil, "POST", true},
		"put":                        {nil, "PUT", true},
		"patch":                      {nil, "PATCH", true},
		"delete":                     {nil, "DELETE", true},
		"options":                    {nil, "OPTIONS", true},
		"own list":                   {custom, "PROPFIND", true},
		"own list replaces defaults": {custom, "POST", false},
		"no method":                  {nil, "", false},
		"lower case":                 {nil, "get", false},
		"mixed case":                 {nil, "Get", false},
		"trace":                      {nil, "TRACE", false},
		"connect":                    {nil, "CONNECT", false},
		"webdav":                     {nil, "PROPFIND", false},
		"cache purge":                {nil, "PURGE", false},
		"invented":                   {nil, "GETX", false},
		"a list":                     {nil, "GET, HEAD", false},
		"not a token":                {nil, "GET /", false},
	} {
		p := policy(t, canon.Config{Methods: c.methods})
		r := &http.Request{Method: c.method, URL: &url.URL{Path: "/a"}, Host: host}
		target, err := p.Target(r)
		class, reason := refusal(t, err)
		switch {
		case c.allowed && (err != nil || target.Method != c.method):
			t.Errorf("%s: %+v, %v", name, target, err)
		case !c.allowed && (reason != "canon.method" || class != canon.MethodNotAllowed):
			t.Errorf("%s: class %d, reason %q", name, class, reason)
		}
	}
}

func TestConnectIsRefusedInEveryForm(t *testing.T) {
	p := policy(t, canon.Config{})
	for _, target := range []string{"app.example:443", "/", "http://app.example/"} {
		r, err := overHTTP1("CONNECT", target, host)
		if err != nil {
			t.Fatal(err)
		}
		if _, reason := refusal(t, second(p.Target(r))); reason != "canon.method" {
			t.Errorf("CONNECT %s: reason %q", target, reason)
		}
	}
}

func second(_ canon.Target, err error) error { return err }

func TestNobodyPassesAPolicyThatWasNotMade(t *testing.T) {
	var zero canon.Policy
	var none *canon.Policy
	for name, p := range map[string]*canon.Policy{"zero": &zero, "nil": none} {
		r := &http.Request{Method: "GET", URL: &url.URL{Path: "/"}, Host: host}
		if class, reason := refusal(t, second(p.Target(r))); reason != "canon.method" || class != canon.MethodNotAllowed {
			t.Errorf("%s policy: class %d, reason %q", name, class, reason)
		}
		r.Method = ""
		if _, reason := refusal(t, second(p.Target(r))); reason != "canon.method" {
			t.Errorf("%s policy, no method: reason %q", name, reason)
		}
		if got := p.Allow(); got != "" {
			t.Errorf("%s policy: Allow = %q", name, got)
		}
	}
}

func TestAllowNamesTheMethodsInOrder(t *testing.T) {
	if got, want := policy(t, canon.Config{}).Allow(), "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"; got != want {
		t.Errorf("Allow = %q, want %q", got, want)
	}
	if got := policy(t, canon.Config{Methods: []string{"GET", "REPORT"}}).Allow(); got != "GET, REPORT" {
		t.Errorf("Allow = %q", got)
	}
}

func TestPolicyKeepsItsMethodsWhenTheConfigChanges(t *testing.T) {
	methods := []string{"GET"}
	p := policy(t, canon.Config{Methods: methods})
	methods[0] = "DELETE"
	r := &http.Request{Method: "DELETE", URL: &url.URL{Path: "/"}, Host: host}
	if err := second(p.Target(r)); err == nil {
		t.Error("a method slipped in after New")
	}
	canon.DefaultMethods()[0] = "DELETE"
	if canon.DefaultMethods()[0] != "GET" {
		t.Error("DefaultMethods shares its list")
	}
}

func TestMistakesInAConfigAreAllNamed(t *testing.T) {
	_, err := canon.New(canon.Config{
		Methods: []string{"get", "", "CONNECT", "TRACE", "PUT", "PUT", "GE T", strings.Repeat("A", 33)},
		MaxPath: -1, MaxQuery: 1<<20 + 1,
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`methods: "get"`, `methods: ""`, `"CONNECT": asks`, `"TRACE": echoes`, `"PUT": listed twice`,
		`"GE T"`, `"AAAA`, "max_path -1", "max_query 1048577",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error misses %q:\n%v", want, err)
		}
	}
	if p, err := canon.New(canon.Config{Methods: []string{}}); err == nil || p != nil {
		t.Errorf("an empty list gave %v, %v", p, err)
	}
	if _, err := canon.New(canon.Config{Methods: make([]string, 65)}); err == nil || !strings.Contains(err.Error(), "at most 64") {
		t.Errorf("65 methods: %v", err)
	}
	if _, err := canon.New(canon.Config{Methods: []string{"M-SEARCH", "X_1"}, MaxPath: 1 << 20, MaxQuery: 1}); err != nil {
		t.Errorf("a good config: %v", err)
	}
}

func TestLongTargetsAreRefused(t *testing.T) {
	short := canon.Config{MaxPath: 8, MaxQuery: 4}
	for name, c := range map[string]struct {
		config canon.Config
		url    url.URL
		reason string
	}{
		"path at the limit":           {short, url.URL{Path: "/1234567"}, ""},
		"path over the limit":         {short, url.URL{Path: "/12345678"}, "canon.path-too-long"},
		"escapes count as sent":       {short, url.URL{Path: "/é123", RawPath: "/%C3%A9123"}, "canon.path-too-long"},
		"escapes count when implied":  {short, url.URL{Path: "/é123"}, "canon.path-too-long"},
		"length goes before content":  {short, url.URL{Path: "/../../../.."}, "canon.path-too-long"},
		"query at the limit":          {short, url.URL{Path: "/", RawQuery: "a=12"}, ""},
		"query over the limit":        {short, url.URL{Path: "/", RawQuery: "a=123"}, "canon.query-too-long"},
		"query length before content": {short, url.URL{Path: "/", RawQuery: "a b c"}, "canon.query-too-long"},
		"default path":                {canon.Config{}, url.URL{Path: "/" + strings.Repeat("a", 8191)}, ""},
		"over default path":           {canon.Config{}, url.URL{Path: "/" + strings.Repeat("a", 8192)}, "canon.path-too-long"},
		"default query":               {canon.Config{}, url.URL{Path: "/", RawQuery: strings.Repeat("a", 8192)}, ""},
		"over default query":          {canon.Config{}, url.URL{Path: "/", RawQuery: strings.Repeat("a", 8193)}, "canon.query-too-long"},
	} {
		r := &http.Request{Method: "GET", URL: &c.url, Host: host}
		class, reason := refusal(t, second(policy(t, c.config).Target(r)))
		if reason != c.reason || c.reason != "" && class != canon.URITooLong {
			t.Errorf("%s: class %d, reason %q, want %q", name, class, reason, c.reason)
		}
	}
}

func TestHostIsCanonicalOrRefused(t *testing.T) {
	long := strings.Repeat("a.", 140)
	for _, c := range []struct{ sent, want string }{
		{"app.example", "app.example"},
		{"APP.Example", "app.example"},
		{"app.example.", "app.example"},
		{"app.example:8443", "app.example"},
		{"app.example.:8443", "app.example"},
		{"app.example:", "app.example"},
		{"my_service-1:80", "my_service-1"},
		{"192.0.2.7:80", "192.0.2.7"},
		{"[2001:db8::1]", "2001:db8::1"},
		{"[2001:DB8:0:0::1]:8443", "2001:db8::1"},
		{"[::ffff:192.0.2.7]", "::ffff:192.0.2.7"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"", ""},
		{".", ""},
		{":80", ""},
		{".example", ""},
		{"app..example", ""},
		{"app.example..", ""},
		{"user@app.example", ""},
		{"app.example@evil.example", ""},
		{"app.example/admin", ""},
		{"app.example?x", ""},
		{"app.example#x", ""},
		{"app example", ""},
		{"app.example ", ""},
		{"app\x00.example", ""},
		{"app\t.example", ""},
		{"app%2eexample", ""},
		{"bücher.example", ""},
		{"a,b", ""},
		{"*.example", ""},
		{"app.example:http", ""},
		{"app.example:65536", ""},
		{"app.example:99999999999999999999", ""},
		{"app.example:-1", ""},
		{"app.example:+80", ""},
		{"app.example:80:81", ""},
		{"2001:db8::1", ""},
		{"[2001:db8::1", ""},
		{"[2001:db8::1]x", ""},
		{"[2001:db8::1]:x", ""},
		{"[2001:db8::g]", ""},
		{"[fe80::1%25eth0]", ""},
		{"[fe80::1%eth0]", ""},
		{"[192.0.2.7]", ""},
		{"[]", ""},
		{"x[::1]", ""},
		{long, ""},
	} {
		r := &http.Request{Method: "GET", URL: &url.URL{Path: "/"}, Host: c.sent}
		target, err := policy(t, canon.Config{}).Target(r)
		_, reason := refusal(t, err)
		if target.Host != c.want || (reason == "canon.bad-host") != (c.want == "") {
			t.Errorf("host %q: %q, reason %q, want %q", c.sent, target.Host, reason, c.want)
		}
	}
}

func TestRefusalNamesItsReasonAndNothingOfTheRequest(t *testing.T) {
	r := &http.Request{Method: "GET", URL: &url.URL{Path: "/secret/../x"}, Host: host}
	err := second(policy(t, canon.Config{}).Target(r))
	if got, want := err.Error(), "request target refused: canon.dot-segment"; got != want {
		t.Errorf("Error = %q, want %q", got, want)
	}
	if class, _ := refusal(t, err); class != canon.BadRequest {
		t.Errorf("class %d", class)
	}
}
