//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// planted are values that may appear nowhere but upstream.
type planted struct {
	values map[string]string
	bodies []string // what clients got
}

func (p *planted) ask(t *testing.T, s *site, method, path, body string, header ...string) {
	t.Helper()
	a := s.send(t, method, path, body, header...)
	if a.Status >= 400 {
		p.bodies = append(p.bodies, fmt.Sprintf("%s: %v %s", method, a.Header, a.Body))
	}
}

func TestSecretsAppearNowhere(t *testing.T) {
	t.Parallel()
	metrics := freePort(t)
	s := startSite(t, siteConfig{Metrics: metrics, Gate: "limit once 1/24h by ip {\n on POST /open/limited\n}"}, nil)
	signature := func(token string) string { return token[strings.LastIndex(token, ".")+1:] }
	good, bad := s.Issuer.as(t, "a-1", "admin"), newIssuer(t).as(t, "u-9", "admin")
	now := time.Now()
	old := s.Issuer.token(t, map[string]any{"iat": now.Add(-2 * time.Hour).Unix(), "exp": now.Add(-time.Hour).Unix()})
	p := &planted{values: map[string]string{
		"token": signature(good), "foreign token": signature(bad), "expired token": signature(old),
		"cookie": "planted-cookie-3f9a", "query value": "planted-query-77b1", "body": "planted-body-c0de",
		"basic": "cGxhbnRlZC1iYXNpYw", "api key": "planted-key-5d5d",
	}}
	query := "?token=" + p.values["query value"]
	extra := []string{"Cookie: session=" + p.values["cookie"], "X-Api-Key: " + p.values["api key"]}
	with := func(more ...string) []string { return append(more, extra...) }
	for _, token := range []string{good, bad, old, "malformed-" + signature(bad)} {
		p.ask(t, s, "GET", "/me"+query, "", with(bearer(token))...)
		p.ask(t, s, "POST", "/reports"+query, p.values["body"], with(bearer(token))...)
		p.ask(t, s, "GET", "/nowhere"+query, "", with(bearer(token))...)
		p.ask(t, s, "GET", "/open//a"+query, "", with(bearer(token))...)
		p.ask(t, s, "GET", "/me"+query, "", "Cookie: session="+p.values["cookie"]+"; access_token="+token)
		p.ask(t, s, "POST", "/reports", p.values["body"], "Cookie: access_token="+token, "Origin: https://evil.test")
		p.ask(t, s, "POST", "/open/limited"+query, p.values["body"], with(bearer(token))...)
	}
	p.ask(t, s, "GET", "/me"+query, "", with("Authorization: Basic "+p.values["basic"])...)
	p.ask(t, s, "GET", "/me"+query, "", "Accept: text/html", "Sec-Fetch-Mode: navigate")
	if len(p.bodies) < 20 {
		t.Fatalf("only %d refusals; the test asks for nothing", len(p.bodies))
	}
	seen := newClient(t, fmt.Sprintf("http://127.0.0.1:%d", metrics)).send(t, "GET", "/metrics", "")
	for _, label := range []string{"a-1", "/me", "/documents", `="127.0.0.1"`} {
		if strings.Contains(metricsOfMoat(string(seen.Body)), label) {
			t.Errorf("a metric label holds %q", label)
		}
	}
	s.Stop(t)
	places := map[string]string{"log": s.Log(), "metrics": string(seen.Body), "refusals": strings.Join(p.bodies, "\n")}
	readAll(t, s.journal(), places)
	for place, text := range places {
		for name, value := range p.values {
			if at := strings.Index(text, value); at >= 0 {
				t.Errorf("the %s is in the %s: …%s…", name, place, text[max(0, at-150):min(len(text), at+150)])
			}
		}
	}
	if len(p.bodies) > 0 && len(readJournal(t, s.journal())) < len(p.bodies) {
		t.Error("the journal is shorter than the refusals; the search proves nothing")
	}
}

// TestSecretsStayOutOfTheLogOfAnError has Caddy's own error log write about a
// request that carries credentials.
func TestSecretsStayOutOfTheLogOfAnError(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Upstream: deadAddress(t)}, nil)
	token := s.Issuer.as(t, "u-1", "user")
	for _, header := range []string{bearer(token), "Cookie: access_token=" + token} {
		if a := s.get(t, "/me", header); a.Status != 502 {
			t.Fatalf("status %d, want 502", a.Status)
		}
	}
	s.Stop(t)
	if strings.Contains(s.Log(), token[strings.LastIndex(token, ".")+1:]) {
		t.Errorf("the token is in the log:\n%s", lastLines(s.Log(), 20))
	}
}

// metricsOfMoat returns the lines of the gateway's own metrics.
func metricsOfMoat(all string) string {
	var b strings.Builder
	for line := range strings.Lines(all) {
		if strings.HasPrefix(line, "moat_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// readAll adds every file below dir to places.
func readAll(t *testing.T, dir string, places map[string]string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		places["file "+entry.Name()] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
