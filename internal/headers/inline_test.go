package headers_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/headers"
)

func TestAnAnswersOwnCodeIsAllowedByItsOwnPolicy(t *testing.T) {
	nonce := &headers.Code{Scripts: []string{"'nonce-abc'"}, Styles: []string{"'nonce-abc'"}}
	hashes := &headers.Code{Scripts: []string{"'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='", "'sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0='"}}
	const base = "default-src 'self'; base-uri 'self'; object-src 'none'; frame-ancestors 'self'; form-action 'self'; img-src 'self' data:"
	for name, row := range map[string]struct {
		cfg  headers.Config
		conn headers.Conn
		want string
	}{
		"nothing allowed": {headers.Config{}, plain, base + "; script-src 'self'; style-src 'self'"},
		"a nonce":         {headers.Config{}, headers.Conn{Code: nonce}, base + "; script-src 'self' 'nonce-abc'; style-src 'self' 'nonce-abc'"},
		"over TLS":        {headers.Config{}, headers.Conn{Code: nonce, TLS: true}, base + "; script-src 'self' 'nonce-abc'; style-src 'self' 'nonce-abc'; upgrade-insecure-requests"},
		"hashes":          {headers.Config{}, headers.Conn{Code: hashes}, base + "; script-src 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0='; style-src 'self'"},
		"api":             {headers.Config{Preset: "api"}, headers.Conn{Code: nonce}, "default-src 'none'; frame-ancestors 'none'; script-src 'nonce-abc'; style-src 'nonce-abc'"},
		"api, nothing":    {headers.Config{Preset: "api"}, headers.Conn{Code: &headers.Code{}}, "default-src 'none'; frame-ancestors 'none'; script-src 'none'; style-src 'none'"},
		"own lists":       {headers.Config{Preset: "api", CSP: csp("script-src 'self'", "style-src 'self' 'unsafe-inline'", "script-src-elem 'none'")}, headers.Conn{Code: nonce}, "default-src 'none'; frame-ancestors 'none'; script-src 'self' 'nonce-abc'; style-src 'self' 'unsafe-inline'; script-src-elem 'nonce-abc'"},
		"a whole policy":  {headers.Config{Set: set("Content-Security-Policy", "script-src 'self'; default-src 'none'")}, headers.Conn{Code: nonce, TLS: true}, "script-src 'self' 'nonce-abc'; default-src 'none'; style-src 'nonce-abc'"},
		"no fallback":     {headers.Config{Set: set("Content-Security-Policy", "script-src 'self'")}, headers.Conn{Code: nonce}, "script-src 'self' 'nonce-abc'"},
	} {
		t.Run(name, func(t *testing.T) {
			row.cfg.InlineCode = true
			p := policy(t, row.cfg)
			if !p.Inline() {
				t.Error("the policy says that it is none for inline code")
			}
			h := make(http.Header)
			p.Apply(h, headers.Conn{TLS: row.conn.TLS})
			p.Settle(h, 200, row.conn)
			if got := h["Content-Security-Policy"]; !slices.Equal(got, []string{row.want}) {
				t.Errorf("got %q\nwant %q", got, row.want)
			}
			if _, err := headers.ParseCSP(row.want); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnAnswerThatWasNotModifiedLeavesTheStoredPolicyAlone(t *testing.T) {
	p := policy(t, headers.Config{InlineCode: true})
	for status, want := range map[int]int{304: 0, 200: 1, 206: 1} {
		h := make(http.Header)
		p.Apply(h, plain)
		p.Settle(h, status, plain)
		if got := len(h["Content-Security-Policy"]); got != want {
			t.Errorf("%d: %d policies, want %d", status, got, want)
		}
	}
}

// On a plain page Chromium would take the new way and send nothing.
func TestReportsAreAskedForInBothWaysOverTLSAndInOneWithout(t *testing.T) {
	for name, row := range map[string]struct {
		cfg    headers.Config
		header string
	}{
		"enforced": {headers.Config{Report: "/-/csp"}, "Content-Security-Policy"},
		"a trial":  {headers.Config{Report: "/-/csp", CSPReportOnly: true}, "Content-Security-Policy-Report-Only"},
		"inline":   {headers.Config{Report: "/-/csp", InlineCode: true}, "Content-Security-Policy"},
	} {
		h := answer(policy(t, row.cfg), 200, overTLS, silent)
		if got := h.Get(row.header); !strings.Contains(got, "; report-uri /-/csp;") || !strings.HasSuffix(got, "; report-to moat-csp") {
			t.Errorf("%s: %q", name, got)
		}
		if got := h["Reporting-Endpoints"]; !slices.Equal(got, []string{`moat-csp="/-/csp"`}) {
			t.Errorf("%s: Reporting-Endpoints %q", name, got)
		}
		h = answer(policy(t, row.cfg), 200, plain, silent)
		if got := h.Get(row.header); !strings.Contains(got, "; report-uri /-/csp") || strings.Contains(got, "report-to") || h["Reporting-Endpoints"] != nil {
			t.Errorf("%s over a plain connection: %q, %q", name, got, h["Reporting-Endpoints"])
		}
	}
}

func TestInlineCodeThatCouldNotRunIsRefused(t *testing.T) {
	const name = "Content-Security-Policy"
	for want, cfg := range map[string]headers.Config{
		"is kept or merged, so the":          {InlineCode: true, Keep: []string{name}},
		"Policy is kept or merged":           {InlineCode: true, Merge: []string{name}},
		"every list for scripts":             {InlineCode: true, Set: set(name, "frame-ancestors 'self'"), InsecureCSP: true},
		"there is none; a nonce beside it":   {InlineCode: true, InsecureCSP: true, CSP: csp("script-src 'unsafe-inline'", "style-src 'unsafe-inline'")},
		`report "csp": must be a path`:       {Report: "csp"},
		`report "//x.test/a": must be`:       {Report: "//x.test/a"},
		`report "/a b": must be a path`:      {Report: "/a b"},
		"report-uri: stands beside report":   {Report: "/-/csp", CSP: csp("report-uri https://x.test/r")},
		`keep "Reporting-Endpoints": stands`: {Report: "/-/csp", Keep: []string{"Reporting-Endpoints"}},
		"set Reporting-Endpoints: stands be": {Report: "/-/csp", Set: set("Reporting-Endpoints", `a="/b"`)},
	} {
		if p, err := headers.New(cfg); err == nil || p != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
}

func BenchmarkAnswerWithANonce(b *testing.B) {
	p := policy(b, headers.Config{InlineCode: true})
	b.ReportAllocs()
	h := make(http.Header, 64)
	for b.Loop() {
		clear(h)
		p.Apply(h, plain)
		p.Settle(h, 200, headers.Conn{Code: &headers.Code{Scripts: []string{"'nonce-abc'"}, Styles: []string{"'nonce-abc'"}}})
	}
}
