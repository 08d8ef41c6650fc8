//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// reported is what a browser posts to report-uri.
func reported(host, directive, blocked string) string {
	return fmt.Sprintf(`{"csp-report":{"document-uri":"http://%s/open/page?token=planted","effective-directive":%q,"blocked-uri":%q,"disposition":"report","script-sample":"planted()"}}`,
		host, directive, blocked)
}

// cspSite is a site that collects reports.
func cspSite(t *testing.T) *site {
	t.Helper()
	return startSite(t, siteConfig{
		Headers: "headers html {\n csp {\n report_only\n report /-/csp\n }\n}",
		Rules:   "\n* /** authenticated", Metrics: freePort(t),
	}, nil)
}

func TestBrowsersReportWithoutATokenAndEachKindIsToldOnce(t *testing.T) {
	t.Parallel()
	s := cspSite(t)
	post := func(kind, body string) int {
		return s.send(t, "POST", "/-/csp", body, "Content-Type: "+kind).Status
	}
	a := s.get(t, "/open/a")
	if a.Status != 401 || !strings.Contains(a.Header.Get("Content-Security-Policy-Report-Only"), "; report-uri /-/csp; report-to moat-csp") ||
		a.Header.Get("Reporting-Endpoints") != `moat-csp="/-/csp"` || a.Header.Get("Content-Security-Policy") != "" {
		t.Errorf("status %d, headers %v", a.Status, a.Header)
	}
	for range 5 {
		if status := post("application/csp-report", reported(s.Addr, "script-src-elem", "https://cdn.example/a.js?x=planted")); status != 204 {
			t.Fatalf("status %d", status)
		}
	}
	queue := fmt.Sprintf(`[{"type":"csp-violation","url":"http://%[1]s/open/other","body":{"documentURL":"http://%[1]s/open/other","blockedURL":"inline","effectiveDirective":"style-src-attr","disposition":"report"}},{"type":"deprecation","body":{}}]`, s.Addr)
	if status := post("application/reports+json", queue); status != 204 {
		t.Fatalf("status %d", status)
	}
	for body, want := range map[string]int{"{": 400, strings.Repeat(" ", 70<<10): 413} {
		if status := post("application/csp-report", body); status != want {
			t.Errorf("%.10q: status %d, want %d", body, status, want)
		}
	}
	if status := post("text/plain", "{}"); status != 415 {
		t.Errorf("text: status %d", status)
	}
	for _, path := range []string{"/-/csp", "/-/csp/", "/-/CSP", "/-/%63sp"} {
		method := "POST"
		if path == "/-/csp" {
			method = "GET"
		}
		if a := s.send(t, method, path, ""); a.Status != 401 && a.Status != 403 {
			t.Errorf("%s %s: status %d, want the rules to decide", method, path, a.Status)
		}
	}
	await(t, 10*time.Second, "the events", func() bool { return len(violations(t, s)) == 2 })
	for _, e := range violations(t, s) {
		if strings.Contains(string(e.Line), "planted") {
			t.Errorf("an event keeps what it should not: %s", e.Line)
		}
		if !strings.Contains(string(e.Line), `"directive":"script-src-elem","blocked":"https://cdn.example"`) && !strings.Contains(string(e.Line), `"directive":"style-src-attr","blocked":"inline"`) {
			t.Errorf("event %s", e.Line)
		}
	}
	if n := len(filterEvents(readJournal(t, s.journal()), func(e event) bool { return e.Path == "/-/csp" && e.Status == 204 })); n != 0 {
		t.Errorf("%d events of requests with reports", n)
	}
	metrics := newClient(t, fmt.Sprintf("http://127.0.0.1:%d", s.Config.Metrics)).send(t, "GET", "/metrics", "")
	if want := `moat_csp_reports_total{directive="script-src-elem",disposition="report",kind="other-origin"} 5`; !strings.Contains(string(metrics.Body), want) {
		t.Errorf("no %s", want)
	}
}

func violations(t *testing.T, s *site) []event {
	t.Helper()
	return filterEvents(readJournal(t, s.journal()), func(e event) bool { return e.Action == "csp.violation" })
}

func TestReportsAreLimited(t *testing.T) {
	t.Parallel()
	s := cspSite(t)
	refused := 0
	for n := range 100 {
		if s.send(t, "POST", "/-/csp", reported(s.Addr, "img-src", fmt.Sprintf("https://h%d.example/", n)), "Content-Type: application/csp-report").Status == 429 {
			refused++
		}
	}
	if refused < 30 || refused > 40 {
		t.Errorf("%d of 100 reports of one address refused, want those beyond 60", refused)
	}
}

func TestAPolicyIsProposedFromWhatWasReported(t *testing.T) {
	t.Parallel()
	s := cspSite(t)
	for range 4 {
		for _, r := range []string{
			reported(s.Addr, "script-src-elem", "https://cdn.example/a.js"), reported(s.Addr, "img-src", "https://img.example/x.png"),
			reported(s.Addr, "script-src-elem", "inline"), reported(s.Addr, "font-src", "data"), reported(s.Addr, "script-src", "chrome-extension://abc"),
		} {
			s.send(t, "POST", "/-/csp", r, "Content-Type: application/csp-report")
		}
	}
	s.send(t, "POST", "/-/csp", reported(s.Addr, "img-src", "https://rare.example/"), "Content-Type: application/csp-report")
	await(t, 10*time.Second, "the events", func() bool { return len(violations(t, s)) >= 6 })
	s.Stop(t) // tells what is held back
	out, exit := s.moat(t, "csp", "propose", s.journal(), "--config", s.File, "--adapter", "caddyfile", "--origin", "http://"+s.Addr)
	if exit != 0 {
		t.Fatalf("exit %d\n%s", exit, out)
	}
	for _, want := range []string{
		"script-src-elem 'self' https://cdn.example", "img-src 'self' data: https://img.example", "font-src 'self' data:", "# https://cdn.example: 4 reports",
		"nonce", "rare.example", "report_only",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	block, _, _ := strings.Cut(out, "\n}\n")
	if strings.Contains(block, "unsafe-inline") || strings.Contains(block, "rare.example") {
		t.Errorf("proposes\n%s", out)
	}
	// Ready to paste.
	s.Config.Headers = "headers html {\n" + block + "\n}\n}"
	s.write(t, s.Config.render(s.Issuer))
	if out, exit := s.validate(t); exit != 0 {
		t.Errorf("what is proposed does not load: %s", out)
	}
	if out, exit := s.moat(t, "csp", "propose", t.TempDir()); exit != 2 && exit != 1 {
		t.Errorf("an empty trail: exit %d\n%s", exit, out)
	}
	if out, exit := s.moat(t, "csp", "propose", s.journal(), "--config", s.File, "--adapter", "caddyfile", "--site", "nowhere"); exit != 2 || !strings.Contains(out, "the sites with one are: ") {
		t.Errorf("exit %d\n%s", exit, out)
	}
}
