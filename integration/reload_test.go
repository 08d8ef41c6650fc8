//go:build linux

package integration

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

func TestReloadUnderLoadFailsNoRequest(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	var stop atomic.Bool
	var wg sync.WaitGroup
	var got tally
	token := bearer(s.Issuer.as(t, "u-1", "user"))
	for range 6 {
		wg.Go(func() {
			for !stop.Load() {
				got.add(s.web.try("GET", "/me", "", token))
			}
		})
	}
	for n := range 4 {
		s.reload(t, func(c *siteConfig) {
			c.Headers = []string{"headers api", "headers html"}[n%2]
		})
	}
	stop.Store(true)
	wg.Wait()
	// Caddy opens a socket of its own for each configuration (SO_REUSEPORT), and the
	// kernel resets what still waits to be accepted on the old one when that closes:
	// such a connection never was a request.
	lost := slices.DeleteFunc(slices.Clone(got.errs), func(err error) bool { return errors.Is(err, syscall.ECONNRESET) })
	if len(lost) != 0 || len(got.errs) > 2 || len(got.counts) != 1 || got.counts[200] < 20 {
		t.Errorf("answers %v, errors %v; want nothing but 200", got.counts, got.errs)
	}
	s.Stop(t)
	events := readJournal(t, s.journal())
	checkTrail(t, events)
	if n := len(filterEvents(events, func(e event) bool { return e.Path == "/me" })); n != got.counts[200] {
		t.Errorf("%d events for %d requests", n, got.counts[200])
	}
}

func TestReloadForgetsNoCount(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "limit 5/24h by ip"}, nil)
	for range 3 {
		if a := s.get(t, "/open/a"); a.Status != 200 {
			t.Fatalf("status %d, want 200", a.Status)
		}
	}
	s.reload(t, func(c *siteConfig) { c.Headers = "headers api" })
	passed := 0
	for range 6 {
		if s.get(t, "/open/a").Status == 200 {
			passed++
		}
	}
	if passed != 2 {
		t.Errorf("%d requests passed after the reload, want the 2 that were left", passed)
	}
}

func TestBrokenReloadLeavesTheOldServing(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "limit 50/24h by ip"}, nil)
	good := s.Config
	for name, change := range map[string]func(*siteConfig){
		"does not parse":     func(c *siteConfig) { c.Gate = "frobnicate" },
		"does not provision": func(c *siteConfig) { c.Rules = "\nGET /a/{x}/c public\nGET /a/b/{y} public" },
		"unset variable":     func(c *siteConfig) { c.Global = "\n\t\tredis redis://127.0.0.1:1 {\n password {env.MOAT_UNSET}\n}" },
		"no such key file": func(c *siteConfig) {
			c.Global = "\n\t\tissuer two {\niss https://b.test\naudience b\nkey /nowhere.pem\n}"
		},
		"address of no one's": func(c *siteConfig) { c.Site = "\tbind 203.0.113.1" },
	} {
		t.Run(name, func(t *testing.T) {
			broken := good
			change(&broken)
			if out, exit := s.Reload(t, broken.render(s.Issuer)); exit == 0 {
				t.Fatalf("the broken configuration was accepted\n%s", out)
			}
			if a := s.get(t, "/me", bearer(s.Issuer.as(t, "u-1", "user"))); a.Status != 200 {
				t.Errorf("the old configuration answers %d, want 200", a.Status)
			}
			if a := s.get(t, "/me"); a.Status != 401 {
				t.Errorf("the old configuration answers %d without a token, want 401", a.Status)
			}
		})
	}
	s.reload(t, func(c *siteConfig) { *c = good; c.Headers = "headers api" })
	s.Stop(t)
	checkTrail(t, readJournal(t, s.journal()))
	if strings.Contains(s.Log(), "panic") {
		t.Error("something panicked")
	}
}

func TestReloadKeepsMetrics(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Metrics: freePort(t)}, nil)
	for range 7 {
		s.get(t, "/me")
	}
	s.reload(t, func(c *siteConfig) { c.Headers = "headers api" })
	c := newClient(t, "http://127.0.0.1:"+portOf(s.Config.Metrics))
	all := metricsOfMoat(string(c.send(t, "GET", "/metrics", "").Body))
	for line := range strings.Lines(all) {
		if strings.HasPrefix(line, "moat_requests_total{") && strings.Contains(line, `"token-missing"`) {
			if !strings.HasSuffix(strings.TrimSpace(line), " 7") {
				t.Errorf("%s want 7", line)
			}
			return
		}
	}
	t.Errorf("no moat_requests_total with token-missing in\n%s", all)
}
