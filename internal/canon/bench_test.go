package canon_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/canon"
)

// canonicalTargets pass as they are, so that judging and applying them must not
// allocate.
var canonicalTargets = map[string]string{
	"plain":           "/api/v1/orders/4711/lines",
	"plain query":     "/api/v1/orders/4711/lines?page=2&size=50",
	"empty query":     "/api/v1/orders?",
	"escaped":         "/caf%C3%A9/a%20b/%E6%97%A5",
	"escaped query":   "/caf%C3%A9/a%20b?x=%20",
	"kept raw":        "/orders(1)/[a]!",
	"kept escaped":    "/users/a%40b.example",
	"with parameters": "/a;v=1/b",
}

func TestCanonicalTargetsCostNoAllocation(t *testing.T) {
	p := policy(t, canon.Config{})
	for name, sent := range canonicalTargets {
		r, err := overHTTP1("GET", sent, host)
		if err != nil {
			t.Fatal(err)
		}
		allocs := testing.AllocsPerRun(100, func() {
			target, err := p.Target(r)
			if err != nil {
				t.Fatal(err)
			}
			target.Apply(r)
		})
		if allocs != 0 || r.RequestURI != sent {
			t.Errorf("%s: %v allocations, request URI %q", name, allocs, r.RequestURI)
		}
	}
}

func TestHostsCostNoAllocation(t *testing.T) {
	p := policy(t, canon.Config{})
	for _, sent := range []string{host, host + ":8443", "192.0.2.7:80", "[2001:db8::1]:8443"} {
		r, err := overHTTP1("GET", "/", sent)
		if err != nil {
			t.Fatal(err)
		}
		if allocs := testing.AllocsPerRun(100, func() {
			if _, err := p.Target(r); err != nil {
				t.Fatal(err)
			}
		}); allocs != 0 {
			t.Errorf("%s: %v allocations", sent, allocs)
		}
	}
}

func TestHeaderNamesCostNoAllocation(t *testing.T) {
	s := canon.NewHeaderSet("x-user-id", "x-tenant-id", "x-forwarded-*")
	names := []string{"X-User-Id", "x_tenant.ID", "X_FORWARDED_URI", "Accept", "X-" + strings.Repeat("Long-", 99)}
	if allocs := testing.AllocsPerRun(100, func() {
		for _, name := range names {
			s.Has(name)
		}
		canon.FoldHeader("x-user-id")
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestQueryCostsNoAllocation(t *testing.T) {
	if allocs := testing.AllocsPerRun(100, func() {
		if err := canon.Query("a=b&c=%C3%A9&d=%20"); err != nil {
			t.Fatal(err)
		}
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkTarget(b *testing.B) {
	for _, c := range []struct{ name, sent string }{
		{"plain", canonicalTargets["plain query"]},
		{"escaped", canonicalTargets["escaped query"]},
		{"rewritten", "/%61pi/caf%c3%a9"},
		{"refused", "/api/v1/../admin"},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := policy(b, canon.Config{})
			r, err := overHTTP1("GET", c.sent, host)
			if err != nil {
				b.Fatal(err)
			}
			sent, uri := *r.URL, r.RequestURI
			b.ReportAllocs()
			for b.Loop() {
				*r.URL, r.RequestURI = sent, uri
				if target, err := p.Target(r); err == nil {
					target.Apply(r)
				}
			}
		})
	}
}

func BenchmarkStripFrom(b *testing.B) {
	s := canon.NewHeaderSet("x-user-id", "x-tenant-id", "x-roles", "x-original-url", "forwarded", "x-forwarded-*")
	h := http.Header{
		"Accept": {"*/*"}, "Accept-Encoding": {"gzip"}, "Accept-Language": {"en"}, "Cookie": {"a=b"},
		"User-Agent": {"x"}, "Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Referer": {"/"},
		"X-Requested-With": {"x"}, "Authorization": {"x"},
	}
	b.ReportAllocs()
	for b.Loop() {
		s.StripFrom(h)
	}
}
