package report_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/headers"
	"github.com/moat-gateway/moat/internal/headers/report"
)

var kinds = []report.Kind{
	report.KindInline, report.KindEval, report.KindData, report.KindBlob, report.KindSelf, report.KindOrigin,
	report.KindExtension, report.KindUnknown,
}

// checkViolation holds what every violation promises, whatever was posted.
func checkViolation(t *testing.T, v report.Violation) {
	t.Helper()
	for _, s := range []string{v.Directive, v.Blocked, v.Document, v.Disposition, v.Source} {
		if len(s) > 600 || strings.ContainsAny(s, "?#\"\\{}`<> \n\r\t\x00") {
			t.Fatalf("%q was kept in %+v", s, v)
		}
		for i := range len(s) {
			if s[i] < ' ' || s[i] > '~' {
				t.Fatalf("%q was kept in %+v", s, v)
			}
		}
	}
	if len(v.Directive) > 32 || len(v.Document) > 256 || v.Line < 0 || v.Line > 1<<24 || !slices.Contains(kinds, v.Kind) {
		t.Fatalf("out of bounds: %+v", v)
	}
	if v.Document != "" && v.Document[0] != '/' {
		t.Fatalf("no path: %+v", v)
	}
	switch v.Blocked {
	case "", "inline", "eval", "wasm-eval", "trusted-types-sink", "trusted-types-policy":
		return
	}
	c, err := headers.ParseCSP("img-src " + v.Blocked)
	if err != nil || len(c) != 1 || len(c[0].Sources) != 1 || c[0].Sources[0] != v.Blocked {
		t.Fatalf("%q is no source in normal form: %v", v.Blocked, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(true, queue("img-src", "https://cdn.example.net/a?b#c"))
	f.Add(true, "["+strings.Repeat("[", 2000))
	f.Add(false, `{"csp-report":{"document-uri":"https://app.example.com/a?b","violated-directive":"img-src x","blocked-uri":"self"}}`)
	f.Add(false, `{"csp-report":{"document-uri":"https://app.example.com/%2e%2E/a","effective-directive":"","line-number":-1}}`)
	f.Fuzz(func(t *testing.T, queued bool, body string) {
		contentType := legacyType
		if queued {
			contentType = queueType
		}
		for _, s := range []report.Site{{Host: host}, {Host: host, Paths: true}} {
			b, err := s.Parse(contentType, []byte(body))
			if err != nil && fmt.Sprintf("%+v", b) != fmt.Sprintf("%+v", report.Batch{}) {
				t.Fatalf("an error came with %+v", b)
			}
			if len(b.Violations)+b.Foreign+b.Malformed+b.OtherTypes > report.MaxReports {
				t.Fatalf("read too many: %+v", b)
			}
			for _, v := range b.Violations {
				checkViolation(t, v)
			}
		}
	})
}

// Whatever the addresses look like, nothing of a query, a fragment, a user's
// name, a sample, a referrer or a user agent is kept.
func FuzzSecretsAreNotKept(f *testing.F) {
	for _, blocked := range []string{"https://cdn.example.net/a", "data", "data:", "inline", "chrome-extension://x/", "wss://h", "//", "x:"} {
		f.Add("/shop", blocked, "https://app.example.com/a.js", "script-src")
	}
	f.Add("/a;b", "https://cdn.example.net:443/%3f", "moz-extension://y/z.js", "img-src")
	f.Fuzz(func(t *testing.T, path, blocked, source, directive string) {
		const secret = "S3cr3t-T0ken"
		if strings.Contains(strings.ToLower(path+blocked+source+directive), "s3cr3t") || !strings.HasPrefix(path, "/") {
			return
		}
		for _, mark := range []string{"?", "#", "?a=b&c=", ";jsessionid="} {
			body := map[string]any{
				"documentURL": "https://app.example.com" + path + mark + secret, "blockedURL": blocked + "?" + secret,
				"sourceFile": source + "#" + secret, "sample": secret, "referrer": "https://x.example/" + secret,
				"effectiveDirective": directive, "originalPolicy": secret, "disposition": secret, "statusCode": secret,
			}
			raw, err := json.Marshal([]any{map[string]any{"type": "csp-violation", "url": secret, "user_agent": secret, "body": body}})
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range []report.Site{{Host: host}, {Host: host, Paths: true}} {
				b, err := s.Parse(queueType, raw)
				if text := strings.ToLower(fmt.Sprintf("%+v %v", b, err)); strings.Contains(text, "s3cr3t") {
					t.Fatalf("kept: %s", text)
				}
			}
		}
	})
}

// Whatever the evidence says, the proposal is a policy that keeps all that the
// current one has, and its block says that policy and nothing else.
func FuzzPropose(f *testing.F) {
	f.Add("default-src 'self'; img-src data:", "img-src", "https://cdn.example.net", "/shop", true)
	f.Add("default-src 'none'", "script-src-elem", "'self'", "/a\n}", false)
	f.Add("script-src 'strict-dynamic' *", "worker-src", "blob:", "", false)
	f.Add("child-src 'none'; frame-src x.example", "frame-src", "inline", "/{$X}", true)
	f.Fuzz(func(t *testing.T, policy, directive, blocked, document string, paths bool) {
		current, err := headers.ParseCSP(policy)
		if err != nil {
			return
		}
		e := report.Evidence{Violation: report.Violation{Directive: directive, Blocked: blocked, Document: document}, Count: 3}
		p, err := report.Propose([]report.Evidence{e}, current, report.Options{Paths: paths})
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Added)+len(p.Apart) != 1 {
			t.Fatalf("the evidence is lost: %+v", p)
		}
		checkParses(t, p)
		for i, d := range current {
			for _, s := range d.Sources {
				if s != "'none'" && !slices.Contains(p.CSP[i].Sources, s) {
					t.Fatalf("%s lost %s", p.CSP, s)
				}
			}
		}
		if n := strings.Count(p.Block, "\n"); n > len(p.CSP)+8 || strings.Count(p.Block, "\n}\n") != 1 {
			t.Fatalf("the block has %d lines:\n%s", n, p.Block)
		}
	})
}
