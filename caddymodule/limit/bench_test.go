package limit

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/canon"
	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/memory"
)

// BenchmarkCharge is the whole handler with the store of this instance, headers
// included.
func BenchmarkCharge(b *testing.B) {
	for name, limits := range map[string][]*Limit{
		"default":       {{Name: "default", Rate: "1000000/1s", By: []string{"ip"}}},
		"default-quiet": {{Name: "default", Rate: "1000000/1s", By: []string{"ip"}, Quiet: true}},
		"four":          {{Rate: "1000000/1s 1000000/1m", By: []string{"ip"}}, {Rate: "1000000/1s", By: []string{"path"}}, {Concurrent: 10, By: []string{"ip"}}},
	} {
		b.Run(name, func(b *testing.B) {
			store, err := memory.New(memory.Config{})
			if err != nil {
				b.Fatal(err)
			}
			h := &Handler{Limits: limits, store: store}
			h.pool.New = func() any { return new(charge) }
			if err := h.compile(nil, ratelimit.Fallback{}); err != nil {
				b.Fatal(err)
			}
			r := httptest.NewRequest("GET", "/a", nil)
			w := httptest.NewRecorder()
			ex := &exchange.Exchange{Canonical: true, Client: netip.MustParseAddr("192.0.2.1"), Target: canon.Target{Path: "/a"}}
			seen := &statusWriter{status: http.StatusOK}
			b.ReportAllocs()
			for b.Loop() {
				ex.Limits = ex.Limits[:0]
				pending, refusal := h.charge(w, r, ex)
				if refusal != nil {
					b.Fatal(refusal.Reason)
				}
				h.putRight(pending, seen, false, 0)
			}
		})
	}
}
