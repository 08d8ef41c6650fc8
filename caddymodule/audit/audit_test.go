package audit

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/audit"
)

// kept is a trail that keeps what it gets.
type kept struct{ events []audit.Event }

func (k *kept) Record(e *audit.Event) error { k.events = append(k.events, *e); return nil }
func (k *kept) Down() error                 { return nil }

// serve runs a handler behind the audit handler and reports what it panicked with.
func serve(t *testing.T, next caddyhttp.HandlerFunc) (*httptest.ResponseRecorder, *kept, any) {
	t.Helper()
	trail := new(kept)
	h := &Handler{trail: trail, logger: zap.NewNop(), Site: "test"}
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/a", nil)
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
	var panicked any
	func() {
		defer func() { panicked = recover() }()
		if err := h.ServeHTTP(w, r, next); err != nil {
			t.Errorf("returned %v", err)
		}
	}()
	return w, trail, panicked
}

func TestEveryEndingIsExactlyOneEvent(t *testing.T) {
	boom := errors.New("boom")
	for name, row := range map[string]struct {
		next    caddyhttp.HandlerFunc
		outcome audit.Outcome
		status  int
		panics  any
	}{
		"an answer": {func(w http.ResponseWriter, _ *http.Request) error {
			_, err := w.Write([]byte("ok"))
			return err
		}, audit.Allow, 200, nil},
		"no answer at all": {func(http.ResponseWriter, *http.Request) error { return nil }, audit.Allow, 200, nil},
		"an error":         {func(http.ResponseWriter, *http.Request) error { return boom }, audit.Failure, 500, nil},
		"an error that is an answer": {func(http.ResponseWriter, *http.Request) error {
			return caddyhttp.Error(http.StatusNotFound, boom)
		}, audit.Allow, 404, nil},
		"an error after the header": {func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(http.StatusOK)
			return boom
		}, audit.Failure, 200, http.ErrAbortHandler},
		"an aborted answer": {func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(http.StatusOK)
			panic(http.ErrAbortHandler)
		}, audit.Aborted, 200, http.ErrAbortHandler},
		"a panic": {func(http.ResponseWriter, *http.Request) error { panic("x") }, audit.Aborted, 0, "x"},
		"a client that is gone": {func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(statusClientGone)
			return nil
		}, audit.Aborted, 499, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w, trail, panicked := serve(t, row.next)
			if panicked != row.panics {
				t.Errorf("panicked with %v, want %v", panicked, row.panics)
			}
			if len(trail.events) != 1 {
				t.Fatalf("%d events", len(trail.events))
			}
			if e := trail.events[0]; e.Outcome != row.outcome || e.Status != row.status {
				t.Errorf("outcome %s, status %d; want %s, %d", e.Outcome, e.Status, row.outcome, row.status)
			}
			if w.Header().Get("X-Request-Id") == "" {
				t.Error("no request ID")
			}
		})
	}
}

// durable is a trail that looks at the answer while it records.
type durable struct {
	kept
	strict bool
	fail   error
	look   func()
}

func (d *durable) Durable(audit.Class) (bool, bool) { return true, d.strict }
func (d *durable) Record(e *audit.Event) error {
	_ = d.kept.Record(e)
	d.look()
	return d.fail
}

func TestTheEndOfAnAnswerWaitsForItsEvent(t *testing.T) {
	for name, row := range map[string]struct {
		write  func(http.ResponseWriter)
		strict bool
		fail   error
		before int
		after  int
		panics any
	}{
		"one write":    {func(w http.ResponseWriter) { _, _ = w.Write([]byte("hello")) }, true, nil, 4, 5, nil},
		"two writes":   {func(w http.ResponseWriter) { _, _ = w.Write([]byte("he")); _, _ = w.Write([]byte("llo")) }, true, nil, 4, 5, nil},
		"a copy":       {func(w http.ResponseWriter) { _, _ = io.Copy(w, strings.NewReader("hello")) }, true, nil, 4, 5, nil},
		"not recorded": {func(w http.ResponseWriter) { _, _ = w.Write([]byte("hello")) }, true, audit.ErrFull, 4, 4, http.ErrAbortHandler},
		"on_full open": {func(w http.ResponseWriter) { _, _ = w.Write([]byte("hello")) }, false, audit.ErrFull, 4, 5, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			trail := &durable{strict: row.strict, fail: row.fail}
			trail.look = func() {
				if w.Body.Len() != row.before {
					t.Errorf("%d bytes left before the event", w.Body.Len())
				}
			}
			h := &Handler{trail: trail, logger: zap.NewNop(), Site: "test"}
			r := httptest.NewRequest("GET", "/a", nil)
			r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
			var panicked any
			func() {
				defer func() { panicked = recover() }()
				_ = h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
					w.Header().Set("Content-Length", "5")
					row.write(w)
					return nil
				}))
			}()
			if panicked != row.panics || w.Body.Len() != row.after {
				t.Errorf("panicked with %v, %d bytes; want %v, %d", panicked, w.Body.Len(), row.panics, row.after)
			}
			if e := trail.events[0]; e.BytesOut != 5 {
				t.Errorf("bytesOut %d", e.BytesOut)
			}
		})
	}
}

// classed is a trail that is durable for one class only.
type classed struct {
	durable
	class audit.Class
}

func (c *classed) Durable(class audit.Class) (bool, bool) { return class == c.class, true }

func TestARefusalWaitsAsItsClassSays(t *testing.T) {
	for _, class := range []audit.Class{audit.Access, audit.Security} {
		w := httptest.NewRecorder()
		trail := &classed{class: class}
		left := -1
		trail.look = func() { left = w.Body.Len() }
		h := &Handler{trail: trail, logger: zap.NewNop(), Site: "test"}
		r := httptest.NewRequest("GET", "/a", nil)
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
		_ = h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			exchange.From(r.Context()).Refusal = &exchange.Refusal{Code: "forbidden", Status: 403}
			w.Header().Set("Content-Length", "5")
			_, err := w.Write([]byte("hello"))
			return err
		}))
		want := 5
		if class == audit.Security {
			want = 4
		}
		if left != want || w.Body.Len() != 5 {
			t.Errorf("durable %s: %d bytes left before the event, want %d", class, left, want)
		}
	}
}
