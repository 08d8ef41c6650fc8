package jwks_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/internal/token"
	"github.com/moat-gateway/moat/internal/token/jwks"
)

// The tests of this file run in the time of a synctest bubble, with a real HTTP
// server whose connections are pipes.

// pipes is a listener for connections within the process.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	close sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.close.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "pipe"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// timed is a key server and a source in a bubble.
type timed struct {
	*jwks.Source
	began time.Time

	mu     sync.Mutex
	answer http.HandlerFunc
	at     []time.Duration // when each request came, since began
	events []jwks.Event
}

// inBubble runs f with a source that has fetched nothing yet.
func inBubble(t *testing.T, answer http.HandlerFunc, edit func(*jwks.Config), f func(*testing.T, *timed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &timed{began: time.Now(), answer: answer}
		l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		server := &http.Server{Handler: http.HandlerFunc(s.serve), ErrorLog: log.New(io.Discard, "", 0)}
		go func() { _ = server.Serve(l) }()
		transport := &http.Transport{DialContext: l.dial}
		cfg := jwks.Config{
			Name: "main", URL: "http://keys.test/keys", InsecureHTTP: true,
			Client:  &http.Client{Transport: transport},
			OnEvent: s.event,
		}
		if edit != nil {
			edit(&cfg)
		}
		source, err := jwks.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.Source = source
		defer func() {
			_ = source.Close()
			_ = server.Close()
			transport.CloseIdleConnections()
		}()
		f(t, s)
	})
}

func (s *timed) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.at = append(s.at, time.Since(s.began))
	answer := s.answer
	s.mu.Unlock()
	answer(w, r)
}

func (s *timed) event(e jwks.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

func (s *timed) now(answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// requests are the times at which the server was asked.
func (s *timed) requests() []time.Duration {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.at)
}

// told returns the events since it was called last.
func (s *timed) told() []jwks.Event {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	events := s.events
	s.events = nil
	return events
}

// until lets the time of the bubble pass until d after its beginning.
func (s *timed) until(d time.Duration) {
	time.Sleep(d - time.Since(s.began)) // The bubble's time: nobody waits.
	synctest.Wait()
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// cached is an answer with a Cache-Control header.
func cached(control string, answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", control)
		answer(w, r)
	}
}

func TestRandomKeysCauseOneFetchInThirtySeconds(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{"good": keySet(t, "a"), "failing": status(500)} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, keySet(t, "a"), nil, func(t *testing.T, s *timed) {
				_, _ = lookup(t, s.Source, "a")
				s.now(answer)
				for second := range 300 {
					var wg sync.WaitGroup
					for i := range 20 {
						wg.Go(func() {
							if found, err := lookup(t, s.Source, fmt.Sprintf("random-%d-%d", second, i)); found || err != nil {
								t.Errorf("found %v, %v", found, err)
							}
						})
					}
					wg.Wait()
					time.Sleep(time.Second)
				}
				got := s.requests()
				for i, at := range got {
					if want := time.Duration(i) * 30 * time.Second; at != want {
						t.Errorf("fetch %d came after %s, want %s", i, at, want)
					}
				}
				if len(got) != 10 {
					t.Errorf("%d fetches in five minutes, want 10", len(got))
				}
			})
		})
	}
}

func TestAllWhoWaitShareOneFetch(t *testing.T) {
	set := keySet(t, "a")
	slow := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Second)
		set(w, r)
	}
	inBubble(t, slow, nil, func(t *testing.T, s *timed) {
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 5 * time.Millisecond)
				if found, err := lookup(t, s.Source, "a"); !found || err != nil {
					t.Errorf("found %v, %v", found, err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(s.began); took != time.Second {
			t.Errorf("the answer came after %s, want 1s", took)
		}
		if n := len(s.requests()); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
}

func TestNoRequestWaitsLongerThanItsBudget(t *testing.T) {
	set := keySet(t, "a")
	for _, row := range []struct {
		name          string
		warm          bool
		timeout, mine time.Duration // of a fetch, of the request
		want          time.Duration
	}{
		{"no set", false, 30 * time.Second, time.Minute, 2 * time.Second},
		{"an unknown key", true, 30 * time.Second, time.Minute, 2 * time.Second},
		{"a request that ends earlier", false, 30 * time.Second, 50 * time.Millisecond, 50 * time.Millisecond},
		{"a fetch that ends earlier", true, time.Second, time.Minute, time.Second},
		{"the default", false, 0, time.Minute, 2 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			inBubble(t, set, func(c *jwks.Config) { c.Timeout = row.timeout }, func(t *testing.T, s *timed) {
				if row.warm {
					_, _ = lookup(t, s.Source, "a")
					s.until(time.Minute)
				}
				s.now(hang)
				began := time.Now()
				var wg sync.WaitGroup
				for i := range 50 {
					wg.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), row.mine)
						defer cancel()
						keys, err := s.Lookup(ctx, fmt.Sprint("unknown ", i), "ES256")
						if row.warm != (err == nil) || len(keys) != 0 || err != nil && !errors.Is(err, token.ErrKeysUnavailable) {
							t.Errorf("%d keys, %v", len(keys), err)
						}
						if took := time.Since(began); took != row.want {
							t.Errorf("waited %s, want %s", took, row.want)
						}
					})
				}
				wg.Wait()
				if row.warm { // Who is known does not wait at all.
					began = time.Now()
					if found, err := lookup(t, s.Source, "a"); !found || err != nil || time.Since(began) != 0 {
						t.Errorf("a known key: %v, %v after %s", found, err, time.Since(began))
					}
				}
				s.until(2 * time.Minute)
			})
		})
	}
}

func TestAFetchOutlivesTheRequestThatAskedForIt(t *testing.T) {
	set := keySet(t, "a")
	slow := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Second)
		set(w, r)
	}
	inBubble(t, slow, nil, func(t *testing.T, s *timed) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := s.Lookup(ctx, "a", "ES256"); !errors.Is(err, token.ErrKeysUnavailable) {
			t.Errorf("error %v", err)
		}
		if found, err := lookup(t, s.Source, "a"); !found || err != nil {
			t.Errorf("the next request: %v, %v", found, err)
		}
		if n := len(s.requests()); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
}

func TestASetIsFetchedAheadOfItsEnd(t *testing.T) {
	set := keySet(t, "a")
	for _, row := range []struct {
		control        string
		maxStale, want time.Duration
	}{
		{"", 0, 5 * time.Minute},
		{"no-cache", 0, 5 * time.Minute},
		{"max-age=1", 0, 5 * time.Minute},
		{"max-age=-1", 0, 5 * time.Minute},
		{"max-age=much", 0, 5 * time.Minute},
		{"public, Max-Age=3600, must-revalidate", 0, time.Hour},
		{`max-age="3600"`, 0, time.Hour},
		{"max-age=99999999", 100 * time.Hour, 24 * time.Hour},
		{"max-age=99999999", 0, 12 * time.Hour},             // Half of max_stale.
		{"max-age=3600", time.Minute, 30 * time.Second},     // A set that nobody may use is no use.
		{"max-age=3600", time.Millisecond, 1 * time.Second}, // And no server is flooded.
	} {
		t.Run(fmt.Sprint(row.control, " ", row.maxStale), func(t *testing.T) {
			inBubble(t, cached(row.control, set), func(c *jwks.Config) { c.MaxStale = row.maxStale }, func(t *testing.T, s *timed) {
				s.Start()
				s.until(20 * row.want)
				at := s.requests()
				if len(at) < 20 {
					t.Fatalf("%d fetches, want at least 20", len(at))
				}
				var gaps []time.Duration
				for i := range at[1:] {
					gap := at[i+1] - at[i]
					if gap < row.want*9/10 || gap > row.want {
						t.Errorf("%s between two fetches, want %s or up to a tenth less", gap, row.want)
					}
					gaps = append(gaps, gap)
				}
				if slices.Min(gaps) == slices.Max(gaps) {
					t.Error("the fetches come in step")
				}
			})
		})
	}
}

func TestAWithdrawnKeyIsGoneWithoutAnyRequest(t *testing.T) {
	inBubble(t, keySet(t, "a", "b"), nil, func(t *testing.T, s *timed) {
		s.Start()
		s.until(time.Second)
		s.now(keySet(t, "b"))
		s.until(5*time.Minute + time.Second)
		if found, err := lookup(t, s.Source, "a"); found || err != nil {
			t.Errorf("found %v, %v", found, err)
		}
		if found, err := lookup(t, s.Source, "b"); !found || err != nil {
			t.Errorf("found %v, %v", found, err)
		}
	})
}

func TestFailedFetchesAreRepeatedLessAndLessOften(t *testing.T) {
	set := keySet(t, "a")
	inBubble(t, status(500), nil, func(t *testing.T, s *timed) {
		s.Start()
		s.until(20 * time.Minute)
		at := s.requests()
		want := time.Second
		for i := range at[1:] {
			if gap := at[i+1] - at[i]; gap < want*9/10 || gap > want {
				t.Errorf("wait %d is %s, want %s or up to a tenth less", i, gap, want)
			}
			want = min(2*want, 2*time.Minute)
		}
		s.now(set)
		s.until(22*time.Minute + time.Second)
		if !s.Ready() {
			t.Fatal("the set was not fetched when the server was back")
		}
		good := s.requests()
		s.now(status(500))
		s.until(28 * time.Minute)
		at = s.requests()[len(good):]
		if len(at) < 2 || at[1]-at[0] > time.Second {
			t.Errorf("after a good fetch the first wait is not the shortest: %v", at)
		}
	})
}

func TestTheLastGoodSetLapses(t *testing.T) {
	set := keySet(t, "a")
	inBubble(t, set, func(c *jwks.Config) { c.MaxStale = time.Hour }, func(t *testing.T, s *timed) {
		s.Start()
		s.until(time.Second)
		if e := s.told(); len(e) != 1 || e[0].Err != nil || e[0].Keys != 1 {
			t.Errorf("told %+v", e)
		}
		s.now(status(503))
		s.until(time.Hour - time.Second)
		if found, err := lookup(t, s.Source, "a"); !found || err != nil || !s.Ready() {
			t.Errorf("within max_stale: %v, %v", found, err)
		}
		if e := s.told(); len(e) != 1 || e[0].Err == nil || e[0].Keys != 1 {
			t.Errorf("told %+v, want that fetching fails and one key serves", e)
		}
		s.until(time.Hour + time.Second)
		if found, err := lookup(t, s.Source, "a"); found || !errors.Is(err, token.ErrKeysUnavailable) || s.Ready() {
			t.Errorf("after max_stale: %v, %v; want unavailable", found, err)
		}
		s.until(2 * time.Hour)
		if e := s.told(); len(e) != 1 || e[0].Err == nil || e[0].Keys != 0 {
			t.Errorf("told %+v, want once that no key is left", e)
		}
		if age, ok := s.Age(); !ok || age < 2*time.Hour-time.Second {
			t.Errorf("age %s, %v", age, ok)
		}
		s.now(set)
		s.until(2*time.Hour + 2*time.Minute)
		if e := s.told(); len(e) != 1 || e[0].Err != nil || e[0].Keys != 1 || len(e[0].Added) != 0 {
			t.Errorf("told %+v, want that it works again", e)
		}
		if age, ok := s.Age(); !ok || age > 2*time.Minute {
			t.Errorf("age %s, %v", age, ok)
		}
		s.now(status(503))
		s.until(2*time.Hour + 30*time.Minute)
		if e := s.told(); len(e) != 1 || e[0].Err == nil {
			t.Errorf("told %+v, want that it fails again", e)
		}
	})
}

func TestASetThatDidNotChangeIsNotSentAgain(t *testing.T) {
	set := keySet(t, "a")
	var sent, unchanged atomic.Int64
	tagged := func(tag string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", tag)
			w.Header().Set("Cache-Control", "max-age=600")
			if r.Header.Get("If-None-Match") == tag {
				unchanged.Add(1)
				w.WriteHeader(http.StatusNotModified)
				return
			}
			sent.Add(1)
			set(w, r)
		}
	}
	inBubble(t, tagged(`"one"`), func(c *jwks.Config) { c.MaxStale = time.Hour }, func(t *testing.T, s *timed) {
		s.Start()
		s.until(3*time.Hour + time.Minute)
		if found, err := lookup(t, s.Source, "a"); !found || err != nil {
			t.Errorf("found %v, %v; the server said that the set is the present one", found, err)
		}
		if n := int64(len(s.requests())); sent.Load() != 1 || unchanged.Load() != n-1 || n < 18 || n > 22 {
			t.Errorf("%d requests, %d sets sent, %d times unchanged", n, sent.Load(), unchanged.Load())
		}
		if e := s.told(); len(e) != 1 {
			t.Errorf("told %+v", e)
		}
		s.now(tagged(`"two"`))
		s.until(4 * time.Hour)
		if sent.Load() != 2 {
			t.Errorf("%d sets sent, want 2", sent.Load())
		}
		// A tag of any length is not kept.
		s.now(tagged(`"` + strings.Repeat("x", 300) + `"`))
		before, asked := sent.Load(), len(s.requests())
		s.until(7 * time.Hour)
		if n := int64(len(s.requests()) - asked); sent.Load()-before != n || !s.Ready() {
			t.Errorf("%d sets sent to %d requests, ready %v", sent.Load()-before, n, s.Ready())
		}
	})
}

func TestATagHoldsAtItsOwnURLOnly(t *testing.T) {
	old, moved := keySet(t, "old"), keySet(t, "new")
	var path atomic.Value
	path.Store("/old")
	answer := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		switch {
		case strings.HasPrefix(r.URL.Path, "/.well-known"):
			text(`{"issuer":"http://keys.test","jwks_uri":"http://keys.test`+path.Load().(string)+`"}`)(w, r)
		case r.Header.Get("If-None-Match") != "":
			w.WriteHeader(http.StatusNotModified)
		case r.URL.Path == "/old":
			old(w, r)
		default:
			moved(w, r)
		}
	}
	inBubble(t, answer, func(c *jwks.Config) { c.URL, c.Issuer = "", "http://keys.test" }, func(t *testing.T, s *timed) {
		_, _ = lookup(t, s.Source, "old")
		path.Store("/new")
		s.until(time.Minute)
		if found, err := lookup(t, s.Source, "new"); !found || err != nil {
			t.Errorf("found %v, %v", found, err)
		}
	})
}

func TestUnchangedIsNoAnswerToWhoHasNothing(t *testing.T) {
	inBubble(t, status(http.StatusNotModified), nil, func(t *testing.T, s *timed) {
		if _, err := lookup(t, s.Source, "a"); !errors.Is(err, token.ErrKeysUnavailable) || s.Ready() {
			t.Errorf("error %v, ready %v", err, s.Ready())
		}
		if e := s.told(); len(e) != 1 || e[0].Err.Error() != "key set: status 304" {
			t.Errorf("told %+v", e)
		}
	})
}

type panicking struct{}

func (panicking) RoundTrip(*http.Request) (*http.Response, error) { panic("cannot cope") }

func TestNoAnswerEndsTheProcess(t *testing.T) {
	inBubble(t, nil, func(c *jwks.Config) { c.Client = &http.Client{Transport: panicking{}} }, func(t *testing.T, s *timed) {
		if _, err := lookup(t, s.Source, "a"); !errors.Is(err, token.ErrKeysUnavailable) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(s.began); took != 0 {
			t.Errorf("waited %s", took)
		}
	})
}
