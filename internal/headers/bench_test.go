package headers_test

import (
	"net/http"
	"testing"

	"github.com/moat-gateway/moat/internal/headers"
)

// proxied is what a proxy adds to an answer's header, from slices of its own.
var proxied = map[string]map[string][]string{
	"silent": {
		"Content-Type": {"text/html"}, "Date": {"now"}, "Content-Length": {"1"}, "Via": {"1.1 Caddy"},
	},
	"doubled": {
		"Content-Type": {"text/html"}, "X-Frame-Options": {"DENY"}, "Referrer-Policy": {"origin"},
		"Strict-Transport-Security": {"max-age=1"}, "Content-Security-Policy": {"default-src 'none'"},
	},
}

// One allocation for an answer is the gate, for every preset and whether or not
// a header is filled in. A header that a handler sets anew costs a second; a
// proxy adds, so that is not the path measured here.
func TestAnAnswerCostsOneAllocation(t *testing.T) {
	configs := map[string]headers.Config{
		"html": {}, "api": {Preset: "api"}, "keep": {Keep: []string{"X-Frame-Options"}},
		"set": {Preset: "api", Set: set("X-A", "1"), CSPReportOnly: true},
	}
	for name, cfg := range configs {
		p := policy(t, cfg)
		for what, got := range map[string]float64{
			"refused":           allocations(p, true, false, false),
			"silent upstream":   allocations(p, true, false, true),
			"doubled":           allocations(p, true, true, true),
			"set by nobody yet": allocations(p, false, false, true),
		} {
			if got > 1 {
				t.Errorf("%s, %s: %.0f allocations, want at most 1", name, what, got)
			}
		}
	}
}

// allocations counts those of one answer.
func allocations(p *headers.Policy, apply, upstream, settle bool) float64 {
	h := make(http.Header, 64)
	return testing.AllocsPerRun(200, func() {
		clear(h)
		h["Server"] = proxied["silent"]["Via"]
		if apply {
			p.Apply(h, overTLS)
		}
		if upstream {
			h["Via"] = proxied["silent"]["Via"]
			h["X-Content-Type-Options"] = twice
		}
		if settle {
			p.Settle(h, 200, caller)
		}
	})
}

var twice = []string{"nosniff", "nosniff"}

func BenchmarkAnswer(b *testing.B) {
	for name, sent := range proxied {
		for _, preset := range []string{"html", "api"} {
			p := policy(b, headers.Config{Preset: preset})
			b.Run(preset+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				h := make(http.Header, 64)
				for b.Loop() {
					clear(h)
					p.Apply(h, caller)
					for k, v := range sent {
						if ours, ok := h[k]; ok {
							h[k] = append(ours, v...) // the proxy's allocation
						} else {
							h[k] = v
						}
					}
					p.Settle(h, 200, caller)
				}
			})
		}
	}
}

func BenchmarkNew(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := headers.New(headers.Config{}); err != nil {
			b.Fatal(err)
		}
	}
}
