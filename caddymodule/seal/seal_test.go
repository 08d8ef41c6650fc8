package seal

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/rbac"
)

func decided(t *testing.T, rule rbac.RuleConfig) *exchange.Exchange {
	t.Helper()
	rule.Methods, rule.Pattern, rule.Require = []string{"*"}, "/**", []string{"public"}
	policy, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: []rbac.RuleConfig{rule}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &exchange.Exchange{
		Policy: policy, Match: policy.Lookup("GET", "/p/a"), Decided: true,
		Method: "GET", Path: "/p/a", Host: "site.example",
	}
}

func TestNothingThatChangedAfterTheDecisionIsSent(t *testing.T) {
	var none rbac.RuleConfig
	rewrite, strip, root := rbac.RuleConfig{RewriteOK: true}, rbac.RuleConfig{StripPrefix: "/p"}, rbac.RuleConfig{StripPrefix: "/p/a"}
	for name, row := range map[string]struct {
		rule                      rbac.RuleConfig
		method, target, host, url string
		want                      string
	}{
		"as decided":                   {none, "GET", "/p/a", "site.example", "", ""},
		"the host in another case":     {none, "GET", "/p/a", "SITE.example", "", ""},
		"the dialed host":              {none, "GET", "/p/a", "10.0.0.1:80", "10.0.0.1:80", ""},
		"another path":                 {none, "GET", "/admin", "site.example", "", "seal.path-changed"},
		"another spelling":             {none, "GET", "/p/%61", "site.example", "", "seal.path-changed"},
		"another method":               {none, "POST", "/p/a", "site.example", "", "seal.method-changed"},
		"another host":                 {none, "GET", "/p/a", "other.example", "10.0.0.1:80", "seal.host-changed"},
		"a declared rewrite":           {rewrite, "POST", "/x", "other.example", "10.0.0.1:80", ""},
		"a declared prefix":            {strip, "GET", "/a", "site.example", "", ""},
		"a prefix that was not cut":    {strip, "GET", "/p/a", "site.example", "", ""},
		"the whole path as the prefix": {root, "GET", "/", "site.example", "", ""},
		"a prefix and more":            {strip, "GET", "/admin", "site.example", "", "seal.path-changed"},
		"a prefix, another method":     {strip, "PUT", "/a", "site.example", "", "seal.method-changed"},
	} {
		req := httptest.NewRequest(row.method, "http://upstream"+row.target, nil)
		req.Host = row.host
		if row.url != "" {
			req.URL.Host = row.url
		}
		if got := drift(req, decided(t, row.rule)); got != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}

func TestARequestWithoutADecisionIsNotSent(t *testing.T) {
	req := httptest.NewRequest("GET", "http://upstream/p/a", nil)
	refused := decided(t, rbac.RuleConfig{})
	refused.Refusal = &exchange.Refusal{Code: "forbidden", Status: 403}
	opaque := httptest.NewRequest("GET", "http://upstream/p/a", nil)
	opaque.URL.Opaque = "admin/secret"
	for name, got := range map[string]string{
		"no exchange":     drift(req, nil),
		"nothing decided": drift(req, &exchange.Exchange{}),
		"a refusal":       drift(req, refused),
		"opaque":          drift(opaque, decided(t, rbac.RuleConfig{})),
	} {
		if got == "" {
			t.Errorf("%s: sent", name)
		}
	}
}

func TestHealthChecksPassAndRequestsWithoutADecisionDoNot(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}))
	defer upstream.Close()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	transport := &Transport{new(reverseproxy.HTTPTransport)}
	if err := transport.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	server := context.WithValue(t.Context(), caddyhttp.ServerCtxKey, &caddyhttp.Server{})
	request := context.WithValue(server, caddyhttp.VarsCtxKey, map[string]any{})
	for name, row := range map[string]struct {
		ctx  context.Context
		want int
	}{
		"a health check":     {server, http.StatusNoContent},
		"a request":          {request, http.StatusForbidden},
		"an error's request": {context.WithValue(request, caddyhttp.ErrorCtxKey, errors.New("x")), http.StatusNoContent},
	} {
		req := httptest.NewRequestWithContext(row.ctx, "GET", upstream.URL+"/health", nil)
		req.RequestURI = ""
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != row.want {
			t.Errorf("%s: %d, want %d", name, resp.StatusCode, row.want)
		}
	}
}

func TestAPageIsFetchedWithNothingThatACallerMayPretend(t *testing.T) {
	req := httptest.NewRequest("DELETE", "http://upstream/p", strings.NewReader("body"))
	req.Header = http.Header{
		"Accept": {"text/html"}, "X-User-Id": {"root"}, "X-Original-Url": {"/admin"}, "Authorization": {"Bearer t"},
		"X-Access-Token": {"t"}, "Upgrade": {"h2c"}, "Connection": {"Upgrade"}, "X-Http-Method-Override": {"DELETE"},
	}
	for name, ex := range map[string]*exchange.Exchange{"before the gate": nil, "behind it": {RequestID: "id"}} {
		got := page(req, ex)
		if got.Method != "GET" || got.Body != nil || got.ContentLength != 0 {
			t.Errorf("%s: %s with a body of %d", name, got.Method, got.ContentLength)
		}
		delete(got.Header, exchange.RequestIDHeader)
		if len(got.Header) != 1 || got.Header.Get("Accept") != "text/html" {
			t.Errorf("%s: headers %v", name, got.Header)
		}
	}
}
