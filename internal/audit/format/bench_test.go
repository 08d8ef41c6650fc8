package format_test

import (
	"testing"

	"github.com/moat-gateway/moat/internal/audit/format"
)

func BenchmarkAppend(b *testing.B) {
	line := lineOf(fullRequest())
	for _, name := range format.Names() {
		b.Run(name, func(b *testing.B) {
			f := mustFormat(b, name)
			var buf []byte
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if buf, err = f.Append(buf[:0], line); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(len(line)))
			b.ReportMetric(float64(len(buf)), "bytes/event")
		})
	}
}
