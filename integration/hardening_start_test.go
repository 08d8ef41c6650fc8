//go:build linux

package integration

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// startEdited is startSite with a last word on the Caddyfile.
func startEdited(t *testing.T, c siteConfig, edit func(string) string) *site {
	t.Helper()
	s := &site{Issuer: newIssuer(t), Spy: startSpy(t)}
	c.Upstream = s.Spy.Addr
	s.Config, s.Addr = c, "127.0.0.1:"+portOf(c.Port)
	text := c.render(s.Issuer)
	edited := edit(text)
	if edited == text {
		t.Fatal("the edit changed nothing")
	}
	s.gateway = startMoat(t, edited, options{Ready: []string{s.Addr}})
	if c.TLS {
		awaitCertificate(t, s.Addr, clientTLS(t, s.gateway))
		return s
	}
	s.web = newClient(t, "http://"+s.Addr)
	return s
}

// closed is the catch-all site that leaves no TLS 1.2 policy behind.
func closed(port int) string {
	return fmt.Sprintf("\nhttps://:%d {\n\tbind 127.0.0.1\n\ttls internal {\n\t\tprotocols tls1.3\n\t}\n\tabort\n}\n", port)
}

const (
	tlsWarning    = "allows versions below 1.3"
	plainWarning  = "served without TLS"
	unsealWarning = "has no `transport moat`"
)

// TestHardeningOldTLSIsWarnedAboutAndMisdirected has a site whose TLS policy is
// weaker than the gateway's floor, by forgetting or by intent. The gateway says so
// at its start, and the floor holds all the same.
func TestHardeningOldTLSIsWarnedAboutAndMisdirected(t *testing.T) {
	t.Parallel()
	const kept = "tls internal {\n\t\tprotocols tls1.3\n\t}"
	for name, edit := range map[string]func(text string, port int) string{
		"forgotten": func(text string, _ int) string { return strings.Replace(text, kept, "tls internal", 1) },
		"by intent": func(text string, port int) string {
			return strings.Replace(text, kept, strings.Replace(kept, "tls1.3", "tls1.2 tls1.3", 1), 1) + closed(port)
		},
	} {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			s := startEdited(t, siteConfig{TLS: true, Port: port}, func(text string) string { return edit(text, port) })
			if !strings.Contains(s.Log(), tlsWarning) {
				t.Errorf("no warning that a policy %s", tlsWarning)
			}
			wantFloor(t, s)
		})
	}
}

// wantFloor checks that requests over TLS 1.2 are refused and over 1.3 pass.
func wantFloor(t *testing.T, s *site) {
	t.Helper()
	config := clientTLS(t, s.gateway)
	host := fmt.Sprintf("localhost:%d", s.Config.Port)
	old := config.Clone()
	old.MaxVersion = tls.VersionTLS12
	for _, target := range []string{"/open/a", "/me", "/healthz"} {
		e := rawHTTP(t, s.Addr, []byte(rawRequest("GET", target, host, bearer(s.Issuer.as(t, "u-1", "user")))), old)
		if e.Err != nil {
			t.Fatalf("%s: %v; the connection was to succeed", target, e.Err)
		}
		wantProblem(t, e.answer, 421, "misdirected")
		if ev := awaitEvent(t, s.journal(), e.Header.Get("X-Request-Id")); ev.Reason != "guard.tls-version" || ev.Outcome != "deny" {
			t.Errorf("event %s; want deny, guard.tls-version", ev.Line)
		}
	}
	if n := len(s.Spy.requests()); n != 0 {
		t.Errorf("%d requests over TLS 1.2 reached the upstream", n)
	}
	if e := rawHTTP(t, s.Addr, []byte(rawRequest("GET", "/open/a", host)), config); e.Status != 200 || len(s.Spy.requests()) != 1 {
		t.Errorf("TLS 1.3: status %d (%v), want 200", e.Status, e.Err)
	}
}

// TestHardeningTheFloorIsQuietWhereItIsKept has nothing to warn about; a warning
// that always comes is read by nobody.
func TestHardeningTheFloorIsQuietWhereItIsKept(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	s := startEdited(t, siteConfig{TLS: true, Port: port}, func(text string) string { return text + closed(port) })
	for _, warning := range []string{tlsWarning, plainWarning, unsealWarning} {
		if strings.Contains(s.Log(), warning) {
			t.Errorf("a needless warning: %s", warning)
		}
	}
}

// TestHardeningSitesWithoutTLSAreWarnedAboutOnce has two of them on one server:
// TLS may end elsewhere, so they are served, and said once.
func TestHardeningSitesWithoutTLSAreWarnedAboutOnce(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	s := startEdited(t, siteConfig{Port: port}, func(text string) string {
		return text + fmt.Sprintf("\nhttp://localhost:%d {\n\tbind 127.0.0.1\n\tmoat {\n\t\trbac {\n* /** public\n\t\t}\n\t}\n\trespond ok\n}\n", port)
	})
	await(t, 5*time.Second, "the warning", func() bool { return strings.Contains(s.Log(), plainWarning) })
	if a := s.get(t, "/open/a"); a.Status != 200 {
		t.Errorf("status %d, want 200", a.Status)
	}
	if n := strings.Count(s.Log(), plainWarning); n != 1 {
		t.Errorf("%d warnings, want one", n)
	}
	if strings.Contains(s.Log(), unsealWarning) {
		t.Error("a needless warning about the seal")
	}
}

// TestHardeningProxiesWithoutTheSealAreWarnedAbout has a proxy beside the gate
// that sends whatever it is given, in each place where one can stand.
func TestHardeningProxiesWithoutTheSealAreWarnedAbout(t *testing.T) {
	t.Parallel()
	spy := startSpy(t)
	bare := "reverse_proxy " + spy.Addr
	for name, site := range map[string]string{
		"top level":       "\treverse_proxy /x/* " + spy.Addr,
		"handle":          "\thandle /x/* {\n\t\t" + bare + "\n\t}",
		"route in handle": "\thandle /x/* {\n\t\troute {\n\t\t\t" + bare + "\n\t\t}\n\t}",
		"http transport":  "\thandle /x/* {\n\t\t" + bare + " {\n\t\t\ttransport http\n\t\t}\n\t}",
		"handle_errors":   "\thandle_errors {\n\t\t" + bare + "\n\t}",
	} {
		t.Run(name, func(t *testing.T) {
			s := startSite(t, siteConfig{Site: site}, nil)
			if !strings.Contains(s.Log(), unsealWarning) {
				t.Error("no warning about the proxy without the seal")
			}
		})
	}
}

// failedReload gives the gateway a configuration whose last site binds a port
// that is taken. Which part of a configuration starts first is left to chance,
// so it is tried until every order has most likely come.
func failedReload(t *testing.T, s *site) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	taken := fmt.Sprintf("\nhttp://%s {\n\tbind 127.0.0.1\n\trespond taken\n}\n", l.Addr())
	for n := range 8 {
		broken := s.Config
		broken.Gate += fmt.Sprintf("\nrealm attempt-%d", n)
		if out, exit := s.Reload(t, broken.render(s.Issuer)+taken); exit == 0 {
			t.Fatalf("the configuration was accepted\n%s", out)
		}
	}
}

// TestHardeningFailedReloadLeavesTheTrail reloads a configuration that loads and
// cannot start. The old one must not only go on serving, it must go on writing
// down: a failed reload would otherwise be the moment to attack.
func TestHardeningFailedReloadLeavesTheTrail(t *testing.T) {
	t.Parallel()
	for _, journal := range []bool{true, false} {
		t.Run(fmt.Sprintf("journal %v", journal), func(t *testing.T) {
			s := startSite(t, siteConfig{NoAudit: !journal}, nil)
			failedReload(t, s)
			if a := s.get(t, "/me", bearer(s.Issuer.as(t, "u-1", "user"))); a.Status != 200 {
				t.Fatalf("the old configuration answers %d, want 200\n%s", a.Status, a.Body)
			}
			refused := s.get(t, "/me")
			wantProblem(t, refused, 401, "token-missing")
			id := refused.Header.Get("X-Request-Id")
			if journal {
				if e := awaitEvent(t, s.journal(), id); e.Outcome != "deny" || e.Status != 401 {
					t.Errorf("event %s, want a refusal", e.Line)
				}
				s.Stop(t)
				checkTrail(t, readJournal(t, s.journal()))
				return
			}
			await(t, 5*time.Second, "the event in the log moat.audit", func() bool {
				for line := range strings.Lines(s.Log()) {
					if strings.Contains(line, `"moat.audit"`) && strings.Contains(line, id) {
						return true
					}
				}
				return false
			})
		})
	}
}
