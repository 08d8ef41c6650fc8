//go:build linux

package integration

import (
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// agreementRules are what the gateway and explain are asked about.
const agreementRules = siteRules + `
			GET /office authenticated {
				when identity.id == "u-1" && method == "GET"
			}
			GET /mfa authenticated {
				when "mfa" in identity.claims.amr
			}
			GET /trial documents.delete {
				shadow
			}
			* /private/{id}/x authenticated owner={id}`

// question is one request to both.
type agreementQuestion struct {
	name, method, target string
	header               []string
}

// agreementQuestions are targets in every spelling, and callers of every kind.
func agreementQuestions(t *testing.T, s *site) []agreementQuestion {
	var list []agreementQuestion
	for _, c := range refusedTargets {
		list = append(list, agreementQuestion{"refused " + c.name, c.method, c.target, nil})
	}
	for _, c := range allowedTargets {
		list = append(list, agreementQuestion{"allowed " + c.name, "GET", c.target, nil})
	}
	for _, caller := range agreementCallers(t, s) {
		for _, route := range []struct{ method, target string }{
			{"GET", "/me"}, {"GET", "/documents/7"}, {"PUT", "/users/u-1/files/a"}, {"POST", "/orgs/t-1/x"},
			{"POST", "/orgs/t-2/x"}, {"POST", "/reports"}, {"GET", "/internal/x"}, {"GET", "/healthz"}, {"HEAD", "/documents/7"},
			{"GET", "/office"}, {"GET", "/mfa"}, {"GET", "/trial"}, {"GET", "/private/u-1/x"}, {"GET", "/internal;x/y"},
		} {
			name := caller.name + ": " + route.method + " " + route.target
			list = append(list, agreementQuestion{name, route.method, route.target, caller.header})
		}
	}
	var asked []agreementQuestion
	for _, q := range list {
		if strings.HasPrefix(q.target, "/") { // A URL has no other form.
			asked = append(asked, q)
		}
	}
	return asked
}

func agreementCallers(t *testing.T, s *site) []struct {
	name   string
	header []string
} {
	now := time.Now()
	user := s.Issuer.as(t, "u-1", "user")
	expired := s.Issuer.token(t, map[string]any{"iat": now.Add(-2 * time.Hour).Unix(), "exp": now.Add(-time.Hour).Unix()})
	return []struct {
		name   string
		header []string
	}{
		{"nobody", nil},
		{"user", []string{bearer(user)}},
		{"admin", []string{bearer(s.Issuer.as(t, "a-1", "admin"))}},
		{"superadmin with mfa", []string{bearer(s.Issuer.token(t, map[string]any{
			"sub": "root", "roles": []string{"superadmin"}, "amr": []string{"mfa"}}))}},
		{"expired", []string{bearer(expired)}},
		{"another key", []string{bearer(newIssuer(t).as(t, "u-1", "admin"))}},
		{"no token at all", []string{bearer("nonsense")}},
		{"two tokens", []string{bearer(user), bearer(user)}},
		{"cookie", []string{"Cookie: access_token=" + user}},
		{"cookie of our own page", []string{"Cookie: access_token=" + user, "Sec-Fetch-Site: same-origin"}},
		{"many headers", manyHeaders(200)},
	}
}

func manyHeaders(n int) []string {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("X-H%d: 1", i))
	}
	return lines
}

// TestExplainAgreesWithTheGateway asks a running gateway and explain the same,
// and compares status and reason.
func TestExplainAgreesWithTheGateway(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Rules: agreementRules}, nil)
	questions := agreementQuestions(t, s)
	if len(questions) < 150 {
		t.Fatalf("only %d questions", len(questions))
	}
	verdicts := explainAll(t, s, questions)
	answers := make([]exchange, len(questions))
	for n, q := range questions {
		answers[n] = s.raw(t, rawRequest(q.method, q.target, s.Addr, q.header...))
	}
	events := map[string]event{}
	last := answers[len(answers)-1].Header.Get("X-Request-Id")
	awaitEvent(t, s.journal(), last)
	for _, e := range readJournal(t, s.journal()) {
		events[e.RequestID] = e
	}
	allowed, refused := 0, 0
	for n, q := range questions {
		got, v := answers[n], verdicts[n]
		if got.Status == http.StatusOK {
			allowed++
		} else {
			refused++
		}
		if !agrees(got.Status, v) {
			t.Errorf("%s: the gateway answers %d, explain %+v", q.name, got.Status, v)
		}
		id := got.Header.Get("X-Request-Id")
		if id == "" && v.Reason != "server" {
			t.Errorf("%s: no gate saw it, explain's reason is %s", q.name, v.Reason)
		}
		// What floods is summed up and has no event of its own.
		if e, ok := events[id]; ok && id != "" && e.Reason != v.Reason {
			t.Errorf("%s: the event's reason is %s, explain's %s", q.name, e.Reason, v.Reason)
		}
	}
	if allowed < 20 || refused < 60 || len(events) < 100 {
		t.Errorf("%d allowed, %d refused, %d events: the questions are too much alike", allowed, refused, len(events))
	}
}

func agrees(status int, v explainVerdict) bool {
	if v.Result == "allowed" {
		return status == http.StatusOK
	}
	return v.Result == "refused" && v.Status == status
}

// explainAll asks explain all questions in one run.
func explainAll(t *testing.T, s *site, questions []agreementQuestion) []explainVerdict {
	t.Helper()
	cases := make([]map[string]any, len(questions))
	for n, q := range questions {
		headers := map[string][]string{}
		for _, line := range q.header {
			name, value, _ := strings.Cut(line, ": ")
			headers[name] = append(headers[name], value)
		}
		cases[n] = map[string]any{
			"name": q.name, "method": q.method, "url": "http://" + s.Addr + q.target, "headers": headers,
			"address": "127.0.0.1", "expect": "allow",
		}
	}
	data, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	got := explainIn(t, s.home, string(data), "-c", s.File, "--cases", "-", "--json")
	var r caseReport
	if err := json.Unmarshal([]byte(got.stdout), &r); err != nil || len(r.Cases) != len(questions) {
		t.Fatalf("exit %d, %v, %d cases\n%s", got.exit, err, len(r.Cases), got.stderr)
	}
	verdicts := make([]explainVerdict, len(questions))
	for n := range r.Cases {
		verdicts[n] = r.Cases[n].Verdict
	}
	return verdicts
}

// TestExplainAgreesAboutToldCallers compares callers that are told with tokens
// that say the same, over TLS.
func TestExplainAgreesAboutToldCallers(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{TLS: true, Rules: agreementRules}, nil)
	for _, c := range []struct {
		id, tenant, role string
		method, path     string
	}{
		{"u-1", "t-1", "user", "GET", "/me"},
		{"u-1", "t-1", "user", "GET", "/documents/7"},
		{"u-1", "t-1", "user", "PUT", "/users/u-1/files/a"},
		{"u-1", "t-1", "user", "PUT", "/users/u-2/files/a"},
		{"a-1", "t-1", "admin", "POST", "/orgs/t-1/x"},
		{"a-1", "t-1", "admin", "POST", "/orgs/t-2/x"},
		{"r-1", "t-1", "superadmin", "POST", "/orgs/t-2/x"},
		{"r-1", "t-1", "superadmin", "GET", "/internal/x"},
		{"u-1", "t-1", "user", "GET", "/office"},
		{"u-2", "t-1", "user", "GET", "/office"},
		{"u-1", "t-1", "user", "GET", "/mfa"},
		{"u-1", "t-1", "user", "GET", "/open//a"},
		{"u-1", "t-1", "user", "DELETE", "/open/a"},
	} {
		token := s.Issuer.token(t, map[string]any{"sub": c.id, "tenant_id": c.tenant, "roles": []string{c.role}})
		a := s.send(t, c.method, c.path, "", bearer(token))
		got := explainIn(t, s.home, "", "-c", s.File, c.method, s.web.Base+c.path,
			"--user", c.id, "--tenant", c.tenant, "--role", c.role, "--address", "127.0.0.1", "--json")
		var d explainDocument
		if err := json.Unmarshal([]byte(got.stdout), &d); err != nil {
			t.Fatalf("%v\n%s%s", err, got.stdout, got.stderr)
		}
		e := awaitEvent(t, s.journal(), a.Header.Get("X-Request-Id"))
		if !agrees(a.Status, d.Verdict) || e.Reason != d.Verdict.Reason {
			t.Errorf("%+v: the gateway answers %d %s, explain %+v", c, a.Status, e.Reason, d.Verdict)
		}
	}
}

// serveKeys serves an issuer's public key as a key set, slowly.
func serveKeys(t *testing.T, i *issuer, delay time.Duration) (url string, stop func()) {
	t.Helper()
	public := i.key.Public().(*ecdsa.PublicKey)
	point, err := public.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString
	set, err := json.Marshal(map[string]any{"keys": []map[string]string{{
		"kty": "EC", "crv": "P-256", "use": "sig", "x": text(point[1:33]), "y": text(point[33:]),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(delay)
		_, _ = w.Write(set)
	}))
	t.Cleanup(srv.Close)
	return srv.URL + "/keys", srv.Close
}
