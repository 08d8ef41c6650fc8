package webhook_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/webhook"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

const (
	planted = "planted-secret-of-enough-bytes"
	encoded = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
)

// receiver is an HTTPS server that checks signatures and keeps events.
type receiver struct {
	t   *testing.T
	srv *httptest.Server

	mu     sync.Mutex
	answer http.HandlerFunc // when set, answers instead
	late   bool
	events []string
	ids    []string
	bodies []string
}

func receive(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{t: t}
	r.srv = httptest.NewUnstartedServer(r)
	r.srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.srv.StartTLS()
	t.Cleanup(func() {
		r.set(nil)
		r.srv.CloseClientConnections()
		r.srv.Close()
	})
	return r
}

func (r *receiver) set(answer http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	answer, late := r.answer, r.late
	r.mu.Unlock()
	if late {
		<-time.After(20 * time.Millisecond)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	if answer != nil {
		answer(w, req)
		return
	}
	r.keep(req, body)
	w.WriteHeader(http.StatusAccepted)
}

func (r *receiver) keep(req *http.Request, body []byte) {
	var delivery struct {
		Type      string            `json:"type"`
		Timestamp time.Time         `json:"timestamp"`
		Data      []json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &delivery); err != nil || delivery.Type != "moat.audit" || delivery.Timestamp.IsZero() {
		r.t.Errorf("body %.100q: %v", body, err)
	}
	if req.Method != http.MethodPost || req.Header.Get("Content-Type") != "application/json" {
		r.t.Errorf("%s with %v", req.Method, req.Header)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, event := range delivery.Data {
		r.events = append(r.events, string(event))
	}
	r.ids = append(r.ids, req.Header.Get("webhook-id"))
	r.bodies = append(r.bodies, string(body))
}

func (r *receiver) received() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

func (r *receiver) fault(fault sinktest.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer, r.late = nil, fault == sinktest.Slow
	switch fault {
	case sinktest.Refuse:
		r.answer = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
	case sinktest.HalfOpen:
		// Returning would send an implicit 200, which a cancelled client sometimes still reads.
		r.answer = func(_ http.ResponseWriter, req *http.Request) {
			<-req.Context().Done()
			panic(http.ErrAbortHandler)
		}
	case sinktest.Malformed:
		r.answer = func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				r.t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "ICY 200 planted-answer\r\n\r\n")
			_ = conn.Close()
		}
	}
}

func (r *receiver) sink(t *testing.T, edit func(*webhook.Config)) *webhook.Sink {
	t.Helper()
	cfg := webhook.Config{URL: r.srv.URL + "/in?token=planted-token", Secrets: []string{planted}, Client: r.srv.Client()}
	if edit != nil {
		edit(&cfg)
	}
	s, err := webhook.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestSuite(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		r := receive(t)
		return sinktest.Harness{
			Open:     func(t *testing.T) follow.Sink { return r.sink(t, nil) },
			Received: func(*testing.T) []string { return r.received() },
			Fault:    r.fault,
		}
	})
}

func TestADeliveryIsSignedByEachSecret(t *testing.T) {
	r := receive(t)
	var header http.Header
	body := make(chan string, 1)
	s := r.sink(t, func(c *webhook.Config) {
		c.Secrets = []string{encoded, planted}
		c.Now = func() time.Time { return time.Unix(1614265330, 0) }
		c.Client = &http.Client{Transport: spy(func(req *http.Request) {
			header = req.Header.Clone()
			raw, err := io.ReadAll(req.Body)
			if err != nil {
				t.Error(err)
			}
			body <- string(raw)
		})}
	})
	lines := sinktest.Lines(1, 2)
	if err := s.Deliver(t.Context(), lines); err != nil {
		t.Fatal(err)
	}
	sent := <-body
	if want := `{"type":"moat.audit","timestamp":"2021-02-25T15:02:10.000000Z","data":[` + string(lines[0].Raw) + "," + string(lines[1].Raw) + "]}"; sent != want {
		t.Errorf("body = %s\nwant   %s", sent, want)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(encoded, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, k := range [][]byte{key, []byte(planted)} {
		mac := hmac.New(sha256.New, k)
		mac.Write([]byte(header.Get("webhook-id") + ".1614265330." + sent))
		want = append(want, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	if got := header.Get("webhook-signature"); got != strings.Join(want, " ") {
		t.Errorf("signature = %q, want %q", got, want)
	}
	if header.Get("webhook-timestamp") != "1614265330" || !strings.HasPrefix(header.Get("webhook-id"), "msg_") {
		t.Errorf("header = %v", header)
	}
}

type spy func(*http.Request)

func (s spy) RoundTrip(req *http.Request) (*http.Response, error) {
	s(req)
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: req}, nil
}

func TestARepeatedDeliveryHasTheSameIDAndAnotherHasNot(t *testing.T) {
	r := receive(t)
	s := r.sink(t, nil)
	boot, instance := sinktest.Lines(1, 3), sinktest.Lines(1, 3)
	for i := range boot {
		boot[i].Epoch, instance[i].Instance = "boot-2", "gw-b"
	}
	for _, lines := range [][]follow.Line{
		sinktest.Lines(1, 3), sinktest.Lines(1, 3), sinktest.Lines(1, 2), sinktest.Lines(2, 3), boot, instance,
	} {
		if err := s.Deliver(t.Context(), lines); err != nil {
			t.Fatal(err)
		}
	}
	if r.ids[0] != r.ids[1] {
		t.Errorf("ids of a repetition: %q", r.ids[:2])
	}
	if rest := slices.Compact(slices.Sorted(slices.Values(r.ids[1:]))); len(rest) != 5 {
		t.Errorf("ids of different deliveries: %q", r.ids)
	}
}

func TestOnlySuccessIsSuccess(t *testing.T) {
	for _, status := range []int{300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 410, 429, 500, 502, 503, 504} {
		r := receive(t)
		r.set(func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			if req.URL.Path == "/elsewhere" {
				t.Errorf("%d: the redirect was followed", status)
				w.WriteHeader(http.StatusOK)
				return
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "planted-answer")
		})
		err := r.sink(t, nil).Deliver(t.Context(), sinktest.Lines(1, 2))
		if err == nil || errors.Is(err, follow.ErrTooLarge) || strings.Contains(err.Error(), "planted") {
			t.Errorf("%d: %v", status, err)
		}
		var poison *follow.Poison
		if errors.As(err, &poison) {
			t.Errorf("%d: the line would be given up: %v", status, err)
		}
	}
	for _, status := range []int{200, 201, 202, 204} {
		r := receive(t)
		r.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		if err := r.sink(t, nil).Deliver(t.Context(), sinktest.Lines(1, 2)); err != nil {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestAnAnswerThatRefusesTheContentSaysSo(t *testing.T) {
	for status, refused := range map[int]bool{400: true, 422: true, 401: false, 404: false, 409: false, 500: false, 503: false} {
		r := receive(t)
		r.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		err := r.sink(t, nil).Deliver(t.Context(), sinktest.Lines(1, 2))
		if err == nil || errors.Is(err, follow.ErrRefused) != refused {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestTooLargeHalvesManyAndGivesUpOne(t *testing.T) {
	r := receive(t)
	r.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusRequestEntityTooLarge) })
	s := r.sink(t, nil)
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 2)); !errors.Is(err, follow.ErrTooLarge) {
		t.Errorf("two lines: %v", err)
	}
	var poison *follow.Poison
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); !errors.As(err, &poison) || poison.Index != 0 {
		t.Errorf("one line: %v", err)
	}
}

func TestRetryAfterIsPassedOn(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                              0,
		"soon":                          0,
		"-5":                            0,
		"1.5":                           0,
		"0":                             0,
		"Fri, 02 Jan 2026 03:00:00 GMT": 0,
		"7":                             7 * time.Second,
		"4294967295":                    24 * time.Hour,
		"99999999999999999999999":       0,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute,
		"Fri, 02 Jan 2099 03:05:05 GMT": 24 * time.Hour,
	} {
		for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
			r := receive(t)
			r.set(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", value)
				w.WriteHeader(status)
			})
			s := r.sink(t, func(c *webhook.Config) { c.Now = func() time.Time { return now } })
			err := s.Deliver(t.Context(), sinktest.Lines(1, 1))
			var later *follow.RetryAfter
			switch {
			case err == nil:
				t.Errorf("%q: success", value)
			case errors.As(err, &later) && later.After != want, later == nil && want != 0:
				t.Errorf("%q: %#v, want %s", value, err, want)
			}
		}
	}
}

func TestAnEndlessAnswerIsCutOff(t *testing.T) {
	r := receive(t)
	var written int
	done := make(chan struct{})
	r.set(func(w http.ResponseWriter, req *http.Request) {
		defer close(done)
		for req.Context().Err() == nil && written < 256<<20 {
			n, err := w.Write(make([]byte, 64<<10))
			if written += n; err != nil {
				return
			}
		}
	})
	if err := r.sink(t, nil).Deliver(t.Context(), sinktest.Lines(1, 1)); err != nil {
		t.Error(err)
	}
	<-done
	if written > 64<<20 {
		t.Errorf("the server could write %d bytes", written)
	}
}

func TestErrorsCarryNoSecretNoURLAndNoAnswer(t *testing.T) {
	r := receive(t)
	for _, fault := range []sinktest.Fault{sinktest.Refuse, sinktest.HalfOpen, sinktest.Malformed} {
		r.fault(fault)
		err := r.sink(t, func(c *webhook.Config) { c.Timeout = 100 * time.Millisecond }).Deliver(t.Context(), sinktest.Lines(1, 1))
		if err == nil || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v", fault, err)
		}
		if fault == sinktest.HalfOpen && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v is no timeout", fault, err)
		}
	}
	for name, row := range map[string]struct{ url, want string }{
		"a certificate nobody vouches for": {r.srv.URL + "/?planted-token", "the certificate was refused: its issuer is not trusted"},
		"no server":                        {"https://127.0.0.1:1/?planted-token", "connection refused"},
		"no such host":                     {"https://nowhere.invalid/?planted-token", "the host name was not found"},
	} {
		s, err := webhook.New(webhook.Config{URL: row.url, Secrets: []string{planted}, Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Deliver(t.Context(), sinktest.Lines(1, 1))
		if err == nil || strings.Contains(err.Error(), "planted") || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkDeliver(b *testing.B) {
	s, err := webhook.New(webhook.Config{
		URL: "https://siem.example.com", Secrets: []string{planted}, Client: &http.Client{Transport: spy(func(*http.Request) {})},
	})
	if err != nil {
		b.Fatal(err)
	}
	lines := sinktest.Lines(1, 256)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Deliver(b.Context(), lines); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(len(lines)*b.N), "ns/line")
}
