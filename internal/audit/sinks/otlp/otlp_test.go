package otlp_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/otlp"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

func TestSuite(t *testing.T) {
	for _, compression := range []string{otlp.Gzip, otlp.None} {
		t.Run(compression, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Harness {
				r := receive(t)
				return sinktest.Harness{
					Open: func(t *testing.T) follow.Sink {
						return r.sink(t, func(c *otlp.Config) { c.Compression = compression })
					},
					Received: func(*testing.T) []string { return r.received() },
					Fault:    r.fault,
				}
			})
		})
	}
}

// TestALineThatAServerAlwaysRejectsIsSetAsideAndTheOthersArrive uses a real
// follower: the server's partial success names a number only, so it is the
// follower that finds the line.
func TestALineThatAServerAlwaysRejectsIsSetAsideAndTheOthersArrive(t *testing.T) {
	r := receive(t)
	r.rejects = func(rec record) bool { return rec.attributes["moat.seq"] == int64(17) }
	dir, cursor := t.TempDir(), filepath.Join(t.TempDir(), "cursor")
	var journal []byte
	for _, line := range sinktest.Lines(1, 40) {
		journal = append(append(journal, line.Raw...), '\n')
	}
	if err := os.WriteFile(filepath.Join(dir, "000000000001.jsonl"), journal, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := follow.New(follow.Config{
		Dir: dir, Cursor: cursor, Sink: r.sink(t, nil), Batch: 16, Poll: time.Millisecond, BackoffMin: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	until(t, "the end of the journal", func() bool { return f.Position() == 40 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s := f.State(); s.SetAside != 1 || s.Lost != 0 {
		t.Errorf("state = %+v", s)
	}
	got := r.received()
	slices.Sort(got)
	var want []string
	for _, line := range sinktest.Lines(1, 40) {
		if line.Seq != 17 {
			want = append(want, string(line.Raw))
		}
	}
	slices.Sort(want)
	if !slices.Equal(slices.Compact(got), want) {
		t.Errorf("received %d lines: %.300q", len(got), got)
	}
	raw, err := os.ReadFile(cursor + ".rejected")
	if err != nil || !strings.Contains(string(raw), `e-17`) || !strings.Contains(string(raw), "1 rejected") {
		t.Errorf("rejected file: %.500q, %v", raw, err)
	}
}

func TestTheEnvironmentChangesNothing(t *testing.T) {
	elsewhere := receive(t)
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"} {
		t.Setenv(name, elsewhere.srv.URL)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-planted=1")
	t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
	t.Setenv("OTEL_SERVICE_NAME", "planted")
	r := receive(t)
	if err := r.sink(t, nil).Deliver(t.Context(), sinktest.Lines(1, 2)); err != nil {
		t.Fatal(err)
	}
	if len(r.records()) != 2 || len(elsewhere.records()) != 0 || r.kept[0].service != "moat" {
		t.Errorf("received %d and elsewhere %d", len(r.records()), len(elsewhere.records()))
	}
	if h := r.headers[0]; h.Get("X-Planted") != "" || h.Get("Content-Encoding") != "gzip" {
		t.Errorf("header = %v", h)
	}
}

func TestHeadersAreSentAndTheURLIsKept(t *testing.T) {
	r := receive(t)
	var target string
	s := r.sink(t, func(c *otlp.Config) {
		c.URL = "https://siem.example.com/tenant%2Fa/v1/logs?k=v"
		c.Client = &http.Client{Transport: spy(func(req *http.Request, _ []byte) { target = req.URL.String() })}
	})
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); err != nil || target != "https://siem.example.com/tenant%2Fa/v1/logs?k=v" {
		t.Errorf("target %q, %v", target, err)
	}
	s = r.sink(t, func(c *otlp.Config) { c.Headers = map[string]string{"api-key": planted, "X-Scope-OrgID": "1"} })
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); err != nil {
		t.Fatal(err)
	}
	if h := r.headers[0]; h.Get("Api-Key") != planted || h.Get("X-Scope-Orgid") != "1" || h.Get("User-Agent") != "Moat" {
		t.Errorf("header = %v", h)
	}
}

// TestAnHTTP2ConnectionThatWentSilentIsReplaced: the next delivery would wait
// for the same connection again.
func TestAnHTTP2ConnectionThatWentSilentIsReplaced(t *testing.T) {
	r := receive(t, func(srv *httptest.Server) { srv.EnableHTTP2 = true })
	s := r.sink(t, func(c *otlp.Config) {
		c.Client, c.CAFile, c.Timeout = nil, r.caFile(t), 300*time.Millisecond
	})
	deliver := func() error { return s.Deliver(t.Context(), sinktest.Lines(1, 1)) }
	if err := deliver(); err != nil {
		t.Fatal(err)
	}
	r.fault(sinktest.HalfOpen)
	if err := deliver(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent server: %v", err)
	}
	r.fault(sinktest.Healthy)
	if err := deliver(); err != nil {
		t.Error(err)
	}
	if r.proto[0] != 2 || len(r.peers) != 2 || r.peers[0] == r.peers[1] {
		t.Errorf("HTTP %v from %q", r.proto, r.peers)
	}
}

func TestDeliveriesShareAConnectionAndCloseEndsIt(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1": false, "HTTP/2": true} {
		r := receive(t, func(srv *httptest.Server) { srv.EnableHTTP2 = http2 })
		s := r.sink(t, func(c *otlp.Config) { c.Client, c.CAFile = nil, r.caFile(t) })
		for _, body := range [][]byte{nil, partialSuccess(0, strings.Repeat("w", 60<<10))} {
			r.says(http.StatusOK, "application/x-protobuf", body)
			if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			r.says(http.StatusServiceUnavailable, "text/html", make([]byte, 10<<10))
			if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); err == nil {
				t.Errorf("%s: a 503 is success", name)
			}
		}
		if n := r.opened.Load(); n != 1 {
			t.Errorf("%s: %d connections for four deliveries", name, n)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		until(t, name+": the end of the connection", func() bool { return r.open.Load() == 0 })
		if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); !errors.Is(err, otlp.ErrClosed) {
			t.Errorf("%s: Deliver after Close = %v", name, err)
		}
	}
}

func TestADeliveryEndsWithItsContext(t *testing.T) {
	r := receive(t)
	ctx, cancel := context.WithCancel(t.Context())
	r.set(func(_ http.ResponseWriter, req *http.Request) {
		cancel()
		<-req.Context().Done()
		panic(http.ErrAbortHandler)
	})
	if err := r.sink(t, nil).Deliver(ctx, sinktest.Lines(1, 1)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func BenchmarkDeliver(b *testing.B) {
	for _, compression := range []string{otlp.None, otlp.Gzip} {
		b.Run(compression, func(b *testing.B) {
			wire := 0
			s, err := otlp.New(otlp.Config{
				URL: "https://siem.example.com", Compression: compression,
				Client: &http.Client{Transport: spy(func(_ *http.Request, body []byte) { wire = len(body) })},
			})
			if err != nil {
				b.Fatal(err)
			}
			lines := requests(256)
			raw := 0
			for _, line := range lines {
				raw += len(line.Raw)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Deliver(b.Context(), lines); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(len(lines)*b.N), "ns/line")
			b.ReportMetric(float64(raw), "journal-B")
			b.ReportMetric(float64(wire), "wire-B")
		})
	}
}
