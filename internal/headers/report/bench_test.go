package report_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/headers"
	"github.com/moat-gateway/moat/internal/headers/report"
)

func BenchmarkParse(b *testing.B) {
	legacy := fmt.Sprintf(`{"csp-report":{"document-uri":%q,"effective-directive":"img-src","blocked-uri":"https://cdn.example.net/a"}}`, page)
	fifty := "[" + strings.TrimSuffix(strings.Repeat(strings.Trim(queue("img-src", "https://cdn.example.net/a"), "[]")+",", 50), ",") + "]"
	for name, row := range map[string]struct{ contentType, body string }{
		"legacy": {legacyType, legacy},
		"queue":  {queueType, queue("img-src", "https://cdn.example.net/a")},
		"fifty":  {queueType, fifty},
		"nested": {queueType, strings.Repeat("[", report.MaxBody)},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			body := []byte(row.body)
			for b.Loop() {
				_, _ = site.Parse(row.contentType, body)
			}
		})
	}
}

func BenchmarkCollector(b *testing.B) {
	col := report.NewCollector(report.CollectorConfig{})
	known := image("https://cdn.example.net")
	for i := range 2000 {
		col.Add(image(fmt.Sprint(i)), here)
	}
	known.Blocked = "0"
	for name, v := range map[string]report.Violation{"repeated": known, "overflow": image("https://new.example.net")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				col.Add(v, here)
			}
		})
	}
}

func BenchmarkPropose(b *testing.B) {
	for _, n := range []int{10, 2000} {
		var evidence []report.Evidence
		for i := range n {
			evidence = append(evidence, seen(directives[i%len(directives)], fmt.Sprintf("https://h%d.example.net", i)))
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			policy := headers.CSP{{Name: "default-src", Sources: []string{"'self'"}}}
			for b.Loop() {
				if _, err := report.Propose(evidence, policy, report.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
