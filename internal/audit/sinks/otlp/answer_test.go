package otlp_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/otlp"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

const protobuf = "application/x-protobuf"

func deliver(t *testing.T, r *receiver) error {
	t.Helper()
	return r.sink(t, nil).Deliver(t.Context(), sinktest.Lines(1, 2))
}

func TestOnlyAnAnswerThatRejectsNothingIsSuccess(t *testing.T) {
	warning := partialSuccess(0, "planted: use the new endpoint")
	for name, row := range map[string]struct {
		status int
		kind   string
		body   string
		ok     bool
	}{
		"an empty 200":                  {200, protobuf, "", true},
		"an empty 200 without a type":   {200, "", "", true},
		"an empty page":                 {200, "text/html", "", true},
		"a 202":                         {202, protobuf, "", true},
		"a 204":                         {204, "", "", true},
		"a warning":                     {200, protobuf, string(warning), true},
		"a warning without a type":      {200, "", string(warning), true},
		"an answer of a later version":  {200, protobuf, "\x7a\x03new", true},
		"the other name of the type":    {200, "application/protobuf; x=y", string(warning), true},
		"JSON":                          {200, "application/json; charset=utf-8", `{"partialSuccess":{"errorMessage":"planted"},"more":1}`, true},
		"empty JSON":                    {200, "application/json", `{}`, true},
		"a login page":                  {200, "text/html; charset=utf-8", "<html>planted", false},
		"a word":                        {200, "text/plain", "OK planted", false},
		"an unreadable type":            {200, ";;", string(warning), true},
		"garbage":                       {200, protobuf, "\xffplanted", false},
		"garbage without a type":        {200, "", "<html>planted", false},
		"a cut answer":                  {200, protobuf, string(warning[:9]), false},
		"JSON that is none":             {200, "application/json", `{"partialSuccess":planted`, false},
		"JSON of the wrong kind":        {200, "application/json", `"planted"`, false},
		"protobuf that says it is JSON": {200, "application/json", string(warning), false},
		"a negative number":             {200, protobuf, string(partialSuccess(-1, "planted")), false},
		"an answer of just the size":    {200, protobuf, string(partialSuccess(0, strings.Repeat("w", 64<<10-10))), true},
		"an answer that is too long":    {200, protobuf, string(partialSuccess(0, strings.Repeat("w", 64<<10))), false},
		"a cut that can be read":        {200, "application/json", "{}" + strings.Repeat(" ", 64<<10), false},
		"a 206 with a page":             {206, "text/html", "planted", false},
	} {
		r := receive(t)
		r.says(row.status, row.kind, []byte(row.body))
		err := deliver(t, r)
		if (err == nil) != row.ok || errors.Is(err, follow.ErrRefused) || errors.Is(err, follow.ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: the error repeats the answer: %v", name, err)
		}
	}
}

func TestRejectedRecordsAreARefusalWithTheServersReason(t *testing.T) {
	for name, row := range map[string]struct {
		kind, body, want string
	}{
		"protobuf":                     {protobuf, string(partialSuccess(2, "too old")), `2 rejected, "too old"`},
		"JSON with a number as text":   {"application/json", `{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}`, `2 rejected, "too old"`},
		"JSON with a number":           {"application/json", `{"partialSuccess":{"rejectedLogRecords":2}}`, `2 rejected, ""`},
		"unprintable":                  {protobuf, string(partialSuccess(1, "a\nb\x1b[31m\u202ec\u2028d\x00")), `1 rejected, "a b[31mcd"`},
		"endless":                      {protobuf, string(partialSuccess(1, strings.Repeat("ä", 9000))), `1 rejected, "` + strings.Repeat("ä", 100) + `…"`},
		"the whole header value":       {protobuf, string(partialSuccess(1, "no Bearer "+planted+" here")), `1 rejected, "(withheld: it repeats a secret)"`},
		"the token alone":              {protobuf, string(partialSuccess(1, strings.Repeat("x", 190)+planted)), `1 rejected, "(withheld: it repeats a secret)"`},
		"the token in pieces":          {protobuf, string(partialSuccess(1, strings.ReplaceAll(planted, "-", "-\x00"))), `1 rejected, "(withheld: it repeats a secret)"`},
		"the query's token":            {protobuf, string(partialSuccess(1, "no planted-token here")), `1 rejected, "(withheld: it repeats a secret)"`},
		"a message with invalid UTF-8": {"application/json", "{\"partialSuccess\":{\"rejectedLogRecords\":2,\"errorMessage\":\"\xff\"}}", ""},
	} {
		r := receive(t)
		r.says(http.StatusOK, row.kind, []byte(row.body))
		err := deliver(t, r)
		if row.want == "" {
			if err == nil || errors.Is(err, follow.ErrRefused) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, follow.ErrRefused) || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v, want %s", name, err, row.want)
		}
	}
}

func TestAStatusSaysWhatToDoNext(t *testing.T) {
	for status, want := range map[int]error{
		400: follow.ErrRefused, 413: follow.ErrTooLarge, 422: follow.ErrRefused,
		300: nil, 301: nil, 302: nil, 303: nil, 304: nil, 307: nil, 308: nil,
		401: nil, 403: nil, 404: nil, 405: nil, 415: nil, 429: nil, 500: nil, 501: nil, 502: nil, 503: nil, 504: nil,
	} {
		r := receive(t)
		r.set(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/elsewhere" {
				t.Errorf("%d: the redirect was followed", status)
				return
			}
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "planted-answer")
		})
		err := deliver(t, r)
		if err == nil || strings.Contains(err.Error(), "planted") {
			t.Errorf("%d: %v", status, err)
		}
		for _, class := range []error{follow.ErrRefused, follow.ErrTooLarge} {
			if errors.Is(err, class) != (want == class) { //nolint:errorlint // which class it is
				t.Errorf("%d: %v", status, err)
			}
		}
		var poison *follow.Poison
		if errors.As(err, &poison) {
			t.Errorf("%d: the line would be given up: %v", status, err)
		}
	}
}

func TestRetryAfterIsPassedOn(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := receive(t)
	s := r.sink(t, func(c *otlp.Config) { c.Now = func() time.Time { return now } })
	for value, want := range map[string]time.Duration{
		"": 0, "soon": 0, "-5": 0, "1.5": 0, "0": 0, "99999999999999999999999": 0, "Fri, 02 Jan 2026 03:00:00 GMT": 0,
		"7":                             7 * time.Second,
		"4294967295":                    24 * time.Hour,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute,
		"Fri, 02 Jan 2099 03:05:05 GMT": 24 * time.Hour,
	} {
		for _, status := range []int{429, 502, 503, 504} {
			r.set(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", value)
				w.WriteHeader(status)
			})
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

func TestAnEndlessAnswerIsCutOffAndNoSuccess(t *testing.T) {
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
	if err := deliver(t, r); err == nil {
		t.Error("success")
	}
	<-done
	if written > 64<<20 {
		t.Errorf("the server could write %d bytes", written)
	}
}

func TestAnAnswerThatBreaksOffIsNone(t *testing.T) {
	r := receive(t)
	r.set(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", protobuf)
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	if err := deliver(t, r); err == nil {
		t.Error("success")
	}
}

func TestErrorsCarryNoSecretNoURLAndNoAnswer(t *testing.T) {
	r := receive(t)
	for _, fault := range []sinktest.Fault{sinktest.Refuse, sinktest.HalfOpen, sinktest.Malformed, sinktest.Malformed} {
		r.fault(fault)
		err := r.sink(t, func(c *otlp.Config) { c.Timeout = 100 * time.Millisecond }).Deliver(t.Context(), sinktest.Lines(1, 1))
		if err == nil || strings.Contains(err.Error(), "planted") || strings.Contains(err.Error(), "127.0.0.1") {
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
		s, err := otlp.New(otlp.Config{URL: row.url, Headers: map[string]string{"Api-Key": planted}, Timeout: 5 * time.Second})
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
