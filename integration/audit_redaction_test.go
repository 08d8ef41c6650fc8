//go:build linux

package integration

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// multipart is a form with the value in a field.
func multipart(value string) (body, header string) {
	return "--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n" + value + "\r\n--b--\r\n",
		"Content-Type: multipart/form-data; boundary=b"
}

// plantedValues stand in a request in every place where clients put credentials.
var plantedValues = map[string]string{
	"cookie": "planted-cookie-3f9a", "query value": "planted-query-77b1", "bare query": "planted-bare-9c2e",
	"body": "planted-body-c0de", "multipart field": "planted-field-1b1b", "api key": "planted-key-5d5d",
	"userinfo": "planted-userinfo-8e8e", "referer": "planted-referer-4a4a", "custom token": "planted-custom-6f6f",
	"padded query": base64.StdEncoding.EncodeToString([]byte("planted query 12")),
}

// TestPlantedSecretsAppearNowhere sends credentials in requests that end at every
// stage, with headers recorded and the log at its most talkative.
func TestPlantedSecretsAppearNowhere(t *testing.T) {
	t.Parallel()
	metrics, dead := freePort(t), deadAddress(t)
	s := startSite(t, siteConfig{
		NoAudit: true, Metrics: metrics,
		Gate: "max_body 4KB\nlimit once 1/24h by ip {\n on POST /open/limited\n}",
		JWT:  "from header X-Custom",
		Global: `
		audit {
			journal {$MOAT_JOURNAL} {
				fsync 10ms
			}
			sink stdout
			record_headers User-Agent Referer Accept Content-Type Origin X-User-Id
		}`,
		Site: "\thandle /open/dead {\n\t\treverse_proxy " + dead + " {\n\t\t\ttransport moat\n\t\t}\n\t}",
	}, nil)
	// What is refused or fails is to be logged with all that there is to tell.
	s.write(t, strings.Replace(s.Config.render(s.Issuer), "admin {$MOAT_ADMIN}", "debug\n"+logFilter(t)+"\tadmin {$MOAT_ADMIN}", 1))
	if out, exit := s.moat(t, "reload", "--config", s.File, "--adapter", "caddyfile", "--address", s.adminAddress); exit != 0 {
		t.Fatal(out)
	}
	s.web.CloseIdleConnections()
	s.Spy.respond(func(r recorded) []byte {
		if strings.HasPrefix(r.Target, "/open/dies") {
			return []byte("HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nonly this")
		}
		return []byte(plainOK)
	})
	p := &planted{values: map[string]string{}}
	for name, value := range plantedValues {
		p.values[name] = value
	}
	signature := func(token string) string { return token[strings.LastIndex(token, ".")+1:] }
	good, guest, bad := s.Issuer.as(t, "a-1", "admin"), s.Issuer.as(t, "u-1", "guest"), newIssuer(t).as(t, "u-9", "admin")
	old := s.Issuer.token(t, map[string]any{"iat": time.Now().Add(-2 * time.Hour).Unix(), "exp": time.Now().Add(-time.Hour).Unix()})
	for name, token := range map[string]string{"token": good, "guest's token": guest, "foreign token": bad, "expired token": old} {
		p.values[name] = signature(token)
	}
	for _, token := range []string{good, guest, bad, old} {
		p.askEverywhere(t, s, token)
	}
	p.search(t, s, metrics)
}

// askEverywhere sends all planted values to places that end at different stages.
func (p *planted) askEverywhere(t *testing.T, s *site, token string) {
	t.Helper()
	v := p.values
	query := "?password=" + v["query value"] + "&" + v["bare query"] + "&" + v["padded query"]
	form, formType := multipart(v["multipart field"])
	extra := []string{
		"Cookie: session=" + v["cookie"], "X-Api-Key: " + v["api key"],
		"Referer: https://u:" + v["userinfo"] + "@a.test/x?reset=" + v["referer"], "User-Agent: planter/1.0",
	}
	with := func(more ...string) []string { return append(more, extra...) }
	for _, path := range []string{"/me", "/documents/7", "/nowhere", "/internal/x", "/open//a", "/open/a", "/open/dead", "/open/%2e%2e/b"} {
		p.ask(t, s, "GET", path+query, "", with(bearer(token))...)
		p.ask(t, s, "GET", path+query, "", with("X-Custom: "+token)...)
		p.ask(t, s, "GET", path+query, "", with("X-Custom: "+v["custom token"])...)
		p.ask(t, s, "GET", path+query, "", "Cookie: access_token="+token+"; session="+v["cookie"])
	}
	for _, path := range []string{"/reports", "/open/limited", "/open//b"} {
		p.ask(t, s, "POST", path+query, v["body"], with(bearer(token))...)
		p.ask(t, s, "POST", path+query, strings.Repeat(v["body"], 400), with(bearer(token))...)
		p.ask(t, s, "POST", path+query, form, with(bearer(token), formType)...)
		p.ask(t, s, "POST", path, v["body"], "Cookie: access_token="+token, "Origin: https://evil.test")
	}
	for _, target := range []string{
		"http://u:" + v["userinfo"] + "@" + s.Addr + "/me" + query, "/me" + query + "#" + v["bare query"],
	} {
		e := s.raw(t, rawRequest("GET", target, s.Addr, with(bearer(token))...))
		p.bodies = append(p.bodies, string(e.Bytes))
	}
	s.raw(t, rawRequest("GET", "/open/dies"+query, s.Addr, with(bearer(token))...))
	e := s.raw(t, rawRequest("GET", "/me"+query, s.Addr, with(bearer(token), bearer(token))...))
	p.bodies = append(p.bodies, string(e.Bytes))
}

// search looks for the planted values in all that the gateway wrote.
func (p *planted) search(t *testing.T, s *site, metrics int) {
	t.Helper()
	seen := newClient(t, fmt.Sprintf("http://127.0.0.1:%d", metrics)).send(t, "GET", "/metrics", "")
	s.Stop(t)
	places := map[string]string{
		"sink": s.stdout.String(), "log": (s.stderr.String()), "metrics": string(seen.Body), "refusals": strings.Join(p.bodies, "\n"),
	}
	readAll(t, s.journal(), places)
	if !strings.Contains(places["log"], `"level":"debug"`) || !strings.Contains(places["sink"], `"seq":`) {
		t.Error("the log is not at DEBUG or the sink got nothing; the search proves nothing")
	}
	for place, text := range places {
		for name, value := range p.values {
			if at := strings.Index(text, value); at >= 0 {
				t.Errorf("the %s is in the %s: …%s…", name, place, text[max(0, at-150):min(len(text), at+150)])
			}
		}
	}
	events := readJournal(t, s.journal())
	checkTrail(t, events)
	codes, headers, names := map[any]bool{}, 0, 0
	for _, e := range events {
		codes[e.Details["code"]] = true
		if got, _ := e.Details["headers"].(map[string]any); got["user-agent"] == "planter/1.0" && got["referer"] == "https://a.test/x" {
			headers++
		}
		if fmt.Sprint(e.Details["query"]) == "[password …]" {
			names++
		}
	}
	for _, code := range []string{"bad-request", "content-too-large", "token-invalid", "token-expired", "forbidden", "rate-limited"} {
		if !codes[code] {
			t.Errorf("nothing was refused as %s: %v", code, codes)
		}
	}
	if headers < 20 || names < 20 {
		t.Errorf("%d events with recorded headers, %d with names of the query; the search proves nothing", headers, names)
	}
}

// logFilter is what docs/operations.md says keeps requests out of Caddy's own log:
// its proxy tells of them with their query and all headers but those that Caddy
// knows to carry credentials.
func logFilter(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "## Logs")
	_, after, _ = strings.Cut(after, "```caddyfile\n")
	filter, _, found := strings.Cut(after, "```")
	if !found {
		t.Fatal("docs/operations.md has no filter")
	}
	return filter
}

// TestRecordedHeadersAreNotTheGates has a client pretend an identity.
func TestRecordedHeadersAreNotTheGates(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{NoAudit: true, Global: `
		audit {
			journal {$MOAT_JOURNAL} {
				fsync 10ms
			}
			record_headers X-User-Id X-Forwarded-Host X-Client Accept
		}`}, nil)
	token := bearer(s.Issuer.as(t, "u-1", "user"))
	a := s.get(t, "/me", token, "X-User-Id: forged", "X-Forwarded-Host: pretended", "X-Client: "+strings.Repeat("x", 300), "Accept: a/a", "Accept: b/b")
	s.Stop(t)
	events := ofRequest(readJournal(t, s.journal()), a.Header.Get("X-Request-Id"))
	if len(events) != 1 {
		t.Fatalf("%d events", len(events))
	}
	got, _ := events[0].Details["headers"].(map[string]any)
	if len(got) != 2 || got["x-client"] != strings.Repeat("x", 256)+"…" || got["accept"] != 2.0 {
		t.Errorf("headers %v", got)
	}
}

// TestAHeaderWithTokensCannotBeRecorded is found when the site's jwt is known.
func TestAHeaderWithTokensCannotBeRecorded(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{JWT: "from header X-Custom"}, nil)
	bad := s.Config
	bad.NoAudit, bad.Global = true, "audit {\njournal {$MOAT_JOURNAL}\nrecord_headers x_custom\n}"
	if out, exit := s.Reload(t, bad.render(s.Issuer)); exit == 0 || !strings.Contains(out+s.Log(), "jwt reads tokens from it") {
		t.Errorf("exit %d\n%s", exit, lastLines(out, 3))
	}
}
