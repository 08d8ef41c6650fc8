package otlp_test

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/sinks/otlp"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

const planted = "planted-secret-of-enough-bytes"

// receiver is an HTTPS server that reads OTLP and keeps what it accepts.
type receiver struct {
	t   *testing.T
	srv *httptest.Server

	mu      sync.Mutex
	answer  http.HandlerFunc  // when set, answers instead
	rejects func(record) bool // when set, which records it does not take
	late    bool              // answers after a while
	garbage int               // malformed answers so far
	kept    []record          // accepted, in order
	headers []http.Header     // of each request
	proto   []int             // HTTP version of each request
	peers   []string          // address of each request
	opened  atomic.Int64      // connections so far
	open    atomic.Int64      // connections now
}

func receive(t *testing.T, edit ...func(*httptest.Server)) *receiver {
	t.Helper()
	r := &receiver{t: t}
	r.srv = httptest.NewUnstartedServer(r)
	r.srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.srv.Config.ConnState = r.count
	for _, e := range edit {
		e(r.srv)
	}
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

// says sets the whole answer to each request.
func (r *receiver) says(status int, kind string, body []byte) {
	r.set(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil // none is guessed
		if kind != "" {
			w.Header().Set("Content-Type", kind)
		}
		w.WriteHeader(status)
		_, _ = w.Write(body)
	})
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
	w.Header().Set("Content-Type", "application/x-protobuf")
	if rejected := r.keep(req, body); rejected > 0 {
		_, _ = w.Write(partialSuccess(rejected, "planted-reason"))
	}
}

// keep reads a request and returns how many of its records it does not take.
func (r *receiver) keep(req *http.Request, body []byte) (rejected int64) {
	if req.Method != http.MethodPost || req.URL.Path != "/v1/logs" || req.Header.Get("Content-Type") != "application/x-protobuf" {
		r.t.Errorf("%s %s with %v", req.Method, req.URL, req.Header)
	}
	body, err := unpacked(req.Header.Get("Content-Encoding"), body)
	if err != nil {
		r.t.Error(err)
	}
	records, err := recordsOf(body)
	if err != nil {
		r.t.Errorf("%v in %.100q", err, body)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range records {
		if r.rejects != nil && r.rejects(rec) {
			rejected++
			continue
		}
		r.kept = append(r.kept, rec)
	}
	r.headers = append(r.headers, req.Header)
	r.proto, r.peers = append(r.proto, req.ProtoMajor), append(r.peers, req.RemoteAddr)
	return rejected
}

func (r *receiver) records() []record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.kept)
}

func (r *receiver) received() []string {
	var out []string
	for _, rec := range r.records() {
		out = append(out, rec.body)
	}
	return out
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
		r.answer = r.malformed
	}
}

// malformed answers in turn with no HTTP and with a 200 that is no OTLP.
func (r *receiver) malformed(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.garbage++; r.garbage%2 == 0 {
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = io.WriteString(w, "\xffplanted-answer")
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		r.t.Error(err)
		return
	}
	_, _ = io.WriteString(conn, "ICY 200 planted-answer\r\n\r\n")
	_ = conn.Close()
}

func (r *receiver) sink(t *testing.T, edit func(*otlp.Config)) *otlp.Sink {
	t.Helper()
	cfg := otlp.Config{
		URL: r.srv.URL + "?token=planted-token", Headers: map[string]string{"Authorization": "Bearer " + planted},
		Client: r.srv.Client(),
	}
	if edit != nil {
		edit(&cfg)
	}
	s, err := otlp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (r *receiver) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		r.opened.Add(1)
		r.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		r.open.Add(-1)
	}
}

func until(t *testing.T, what string, met func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not in time", what)
		case <-tick.C:
		}
	}
}

// spy is a transport that shows requests and answers that all went well.
type spy func(req *http.Request, body []byte)

func (s spy) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	s(req, body)
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: req}, nil
}
