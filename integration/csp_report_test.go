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
	if a.Status != 401 || !strings.HasSuffix(a.Header.Get("Content-Security-Policy-Report-Only"), "; report-uri /-/csp") ||
		a.Header.Get("Reporting-Endpoints") != "" || a.Header.Get("Content-Security-Policy") != "" {
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
	if got := s.metric(t, `moat_csp_reports_total{directive="script-src-elem",disposition="report",kind="other-origin"}`); got != "5" {
		t.Errorf("the metric says %s", got)
	}
	for _, reason := range []string{"size", "media-type", "malformed"} {
		if got := s.metric(t, `moat_csp_reports_refused_total{reason="`+reason+`"}`); got != "1" {
			t.Errorf("refused for %s: %s", reason, got)
		}
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
	for range 330 {
		if s.send(t, "POST", "/-/csp", reported(s.Addr, "img-src", "https://one.example/"), "Content-Type: application/csp-report").Status == 429 {
			refused++
		}
	}
	if refused < 20 || refused > 30 {
		t.Errorf("%d of 330 requests of one address refused, want those beyond 300", refused)
	}
	if got := s.metric(t, `moat_csp_reports_refused_total{reason="rate"}`); got != fmt.Sprint(refused) {
		t.Errorf("the metric says %s of %d", got, refused)
	}
}

// metric is the value of a metric, or what is there instead.
func (s *site) metric(t *testing.T, name string) string {
	t.Helper()
	metrics := newClient(t, fmt.Sprintf("http://127.0.0.1:%d", s.Config.Metrics)).send(t, "GET", "/metrics", "")
	_, after, found := strings.Cut(string(metrics.Body), "\n"+name+" ")
	if !found {
		return "nothing"
	}
	value, _, _ := strings.Cut(after, "\n")
	return value
}

// One sender can neither fill the trail nor keep others from being heard, and what is
// enforced passes the flood guard, which would not say what it is about.
func TestOneSenderOfManyKindsSilencesNobody(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Headers: "headers html {\n csp {\n report /-/csp\n }\n}", Rules: publicRules, Metrics: freePort(t)}, nil)
	send := func(batch int) int {
		var items []string
		for n := range 50 {
			items = append(items, fmt.Sprintf(`{"type":"csp-violation","body":{"documentURL":"http://%s/","blockedURL":"https://h%d.example/","effectiveDirective":"img-src","disposition":"enforce"}}`, s.Addr, batch*50+n))
		}
		return s.send(t, "POST", "/-/csp", "["+strings.Join(items, ",")+"]", "Content-Type: application/reports+json").Status
	}
	for batch := range 5 {
		if status := send(batch); status != 204 {
			t.Fatalf("status %d", status)
		}
	}
	await(t, 10*time.Second, "the events", func() bool { return len(violations(t, s)) >= 200 })
	if got := len(violations(t, s)); got != 200 {
		t.Errorf("%d events", got)
	}
	if got := s.metric(t, `moat_csp_reports_refused_total{reason="crowded"}`); got != "50" {
		t.Errorf("crowded %s", got)
	}
	for range 7 {
		send(0)
	}
	if status := send(0); status != 429 {
		t.Errorf("status %d for more than 600 reports", status)
	}
	e := string(violations(t, s)[0].Line)
	for _, want := range []string{`"ip":"127.0.0.1"`, `"site":"http://` + s.Addr + `"`, `"networks":1`} {
		if !strings.Contains(e, want) {
			t.Errorf("no %s in %s", want, e)
		}
	}
}

// Two sites write into one trail, and a part of the first has a policy of its own.
func TestAProposalIsAboutOnePolicy(t *testing.T) {
	t.Parallel()
	second := siteConfig{Port: freePort(t), Rules: publicRules, Headers: "headers html {\n csp {\n report /-/csp\n }\n}", Upstream: "127.0.0.1:1"}
	first := siteConfig{Port: freePort(t), Rules: publicRules, Upstream: "127.0.0.1:1", Headers: `headers html {
	csp {
		report /-/csp
		nonce
		img-src 'self' https://first.example
	}
}
headers /admin/** {
	csp {
		connect-src 'none'
	}
}`}
	home := newHome(t, first.render(newIssuer(t))+"\n"+second.site(), nil)
	addr := func(c siteConfig) string { return fmt.Sprintf("127.0.0.1:%d", c.Port) }
	g := startIn(t, home, []string{addr(first), addr(second)}, "--config", home.File, "--adapter", "caddyfile")
	post := func(c siteConfig, path, directive, blocked string) {
		body := fmt.Sprintf(`{"csp-report":{"document-uri":"http://%s%s","effective-directive":%q,"blocked-uri":%q,"disposition":"enforce"}}`, addr(c), path, directive, blocked)
		if a := newClient(t, "http://"+addr(c)).send(t, "POST", "/-/csp", body, "Content-Type: application/csp-report"); a.Status != 204 {
			t.Fatalf("status %d", a.Status)
		}
	}
	for range 3 {
		post(first, "/", "font-src", "https://of-first.example/x")
		post(first, "/admin/users", "connect-src", "https://of-admin.example/x")
		post(second, "/", "font-src", "https://of-second.example/x")
	}
	g.Stop(t)
	propose := func(want int, args ...string) string {
		t.Helper()
		out, exit := g.moat(t, append([]string{"csp", "propose", g.journal(), "--config", home.File, "--adapter", "caddyfile"}, args...)...)
		if exit != want {
			t.Fatalf("%v: exit %d\n%s", args, exit, out)
		}
		return out
	}
	label := func(c siteConfig) string { return "http://" + addr(c) }
	for name, row := range map[string]struct {
		args       []string
		has, hasNo []string
	}{
		"first": {[]string{"--site", label(first)}, []string{"of-first", "\tnonce\n", "\treport /-/csp\n", "img-src 'self' https://first.example", fmt.Sprintf("3 about %q", label(second))},
			[]string{"of-second", "of-admin", "report_only", "upgrade-insecure-requests"}},
		"part":   {[]string{"--site", label(first), "--part", "/admin/**"}, []string{"of-admin", "connect-src https://of-admin.example"}, []string{"of-second", "of-first"}},
		"second": {[]string{"--site", label(second)}, []string{"of-second"}, []string{"of-first", "of-admin", "nonce"}},
	} {
		out := propose(0, row.args...)
		for _, want := range row.has {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", name, want, out)
			}
		}
		for _, bad := range row.hasNo {
			if strings.Contains(out, bad) {
				t.Errorf("%s: has %q:\n%s", name, bad, out)
			}
		}
	}
	if out := propose(2); !strings.Contains(out, "there must be one policy, and there are 2") {
		t.Errorf("without a site: %s", out)
	}
	if out, exit := g.moat(t, "csp", "propose", g.journal()); exit != 2 || !strings.Contains(out, "several sites") {
		t.Errorf("without a configuration: exit %d, %s", exit, out)
	}
}

func TestExplainKnowsTheCollector(t *testing.T) {
	t.Parallel()
	c := siteConfig{Port: freePort(t), Upstream: "127.0.0.1:1", Headers: "headers html {\n csp {\n report /-/csp\n }\n}"}
	h := newHome(t, c.render(newIssuer(t)), nil)
	address := fmt.Sprintf("http://127.0.0.1:%d/-/csp", c.Port)
	for method, row := range map[string]explainRow{
		"POST": {exit: 0, want: []string{"allowed", "csp.collected", "without a token"}},
		"GET":  {exit: 1, want: []string{"refused: 401"}},
	} {
		got := explainIn(t, h, "", "--config", h.File, "--adapter", "caddyfile", method, address)
		if got.exit != row.exit {
			t.Errorf("%s: exit %d\n%s%s", method, got.exit, got.stdout, got.stderr)
		}
		for _, want := range row.want {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("%s: no %q in\n%s", method, want, got.stdout)
			}
		}
	}
}

func TestACollectorTakesNothingThatARuleNames(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		guard, rule string
		refused     bool
	}{
		"the same path":       {"", "POST /login public", true},
		"every method":        {"", "* /login public", true},
		"another method":      {"", "GET /login public", false},
		"another case":        {"", "POST /Login public", false},
		"the same by folding": {"case_insensitive", "POST /Login public", true},
	} {
		home := newHome(t, siteConfig{Port: freePort(t), Upstream: "127.0.0.1:1", Rules: "\n" + row.rule, Gate: row.guard,
			Headers: "headers html {\n csp {\n report /login\n }\n}"}.render(newIssuer(t)), nil)
		if out, exit := home.validate(t); (exit != 0) != row.refused || row.refused && !strings.Contains(out, "report /login: the rule at") {
			t.Errorf("%s: exit %d\n%s", name, exit, lastLines(out, 3))
		}
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
		"nonce", "rare.example", "\treport_only\n\treport /-/csp\n", "from 1 network", "one network reported all of it",
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
	if out, exit := s.moat(t, "csp", "propose", s.journal(), "--config", s.File, "--adapter", "caddyfile", "--site", "nowhere"); exit != 2 || !strings.Contains(out, "the sites and parts with one are: ") {
		t.Errorf("exit %d\n%s", exit, out)
	}
}
