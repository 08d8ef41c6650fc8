package syslog_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/syslog"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

func suite(t *testing.T, start func(testing.TB) *receiver, edit func(*syslog.Config), lacks ...sinktest.Fault) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		r := start(t)
		return sinktest.Harness{
			Open: func(t *testing.T) follow.Sink {
				return r.claim(r.sink(t, func(c *syslog.Config) {
					c.MaxMessage = 512 << 10
					edit(c)
				}))
			},
			Received: func(*testing.T) []string { r.caughtUp(); return r.texts() },
			Fault:    func(f sinktest.Fault) { r.caughtUp(); r.set(f) },
		}
	}, lacks...)
}

func secure(t testing.TB) *receiver { return receive(t, nil) }

func upTo12(t testing.TB) *receiver {
	return receive(t, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
}

func confirmed(*syslog.Config) {}

func unconfirmed(c *syslog.Config) { c.Unconfirmed = true }

func byNotify(c *syslog.Config) { c.RequireCloseNotify = true }

func TestSuite(t *testing.T) { suite(t, secure, confirmed) }

func TestSuiteWithTLS12(t *testing.T) { suite(t, upTo12, confirmed) }

func TestSuiteByCloseNotifyOnly(t *testing.T) { suite(t, secure, byNotify) }

func TestSuiteWithoutTLS(t *testing.T) { suite(t, receivePlain, confirmed) }

// Without a confirmation nothing tells a receiver that never answers from one
// that does its work: HalfOpen cannot be noticed.
func TestSuiteUnconfirmed(t *testing.T) { suite(t, secure, unconfirmed, sinktest.HalfOpen) }

// fails expects an error that names want, repeats no server's words and sets no
// line aside.
func fails(t *testing.T, err error, want string) {
	t.Helper()
	var poison *follow.Poison
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "planted") || errors.As(err, &poison) {
		t.Errorf("Deliver = %v, want %q", err, want)
	}
}

func TestACloseThatIsNoAnswerConfirmsNothing(t *testing.T) {
	for name, row := range map[string]struct {
		start func(testing.TB) *receiver
		edit  func(*syslog.Config)
		serve func(r *receiver, raw net.Conn)
		want  string
	}{
		"a web server that refuses in words and closes": {secure, byNotify, func(r *receiver, raw net.Conn) {
			conn, err := r.session(raw)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, conn)
			_, _ = io.WriteString(conn, "HTTP/1.1 400 planted-answer\r\n\r\n")
			_ = conn.Close()
		}, "no syslog receiver does"},
		"the same without TLS": {receivePlain, confirmed, func(_ *receiver, raw net.Conn) {
			_, _ = io.Copy(io.Discard, raw)
			_, _ = io.WriteString(raw, "HTTP/1.1 400 planted-answer\r\n\r\n")
		}, "no syslog receiver does"},
		"an end in the middle of a record": {secure, confirmed, func(r *receiver, raw net.Conn) {
			conn, err := r.session(raw)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, conn)
			_, _ = raw.Write([]byte{23, 3, 3, 0, 99, 1})
		}, "the connection was closed"},
		"an end without close_notify, where one is required": {secure, byNotify, func(r *receiver, raw net.Conn) {
			conn, err := r.session(raw)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, conn)
		}, "without a close_notify"},
		"a close before the handshake": {secure, confirmed, func(*receiver, net.Conn) {}, ""},
		"a server that speaks no TLS": {secure, confirmed, func(_ *receiver, raw net.Conn) {
			_, _ = io.WriteString(raw, "220 planted-answer\r\n")
			_, _ = io.Copy(io.Discard, raw)
		}, "does not speak TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			r := row.start(t)
			r.instead(func(raw net.Conn) { row.serve(r, raw) })
			s := r.sink(t, func(c *syslog.Config) { c.Timeout = 5 * time.Second; row.edit(c) })
			fails(t, s.Deliver(t.Context(), sinktest.Lines(1, 100)), row.want)
			within(t, "the end of the connection", func() bool { return r.open() == 0 })
			r.instead(nil)
			if err := s.Deliver(t.Context(), sinktest.Lines(1, 100)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheEndWithoutCloseNotifyConfirmsByDefault(t *testing.T) {
	r := secure(t)
	r.instead(func(raw net.Conn) {
		conn, err := r.session(raw)
		if err != nil {
			t.Error(err)
			return
		}
		in := bufio.NewReader(conn)
		for frame, err := readFrame(in); err == nil; frame, err = readFrame(in) {
			r.keep(frame)
		}
	})
	if err := r.sink(t, nil).Deliver(t.Context(), sinktest.Lines(1, 100)); err != nil {
		t.Fatal(err)
	}
	if got := r.texts(); len(got) != 100 {
		t.Errorf("%d messages", len(got))
	}
}

// Some TLS libraries answer a close_notify and then wait for the other side to
// close first.
func TestAReceiverThatClosesLastConfirms(t *testing.T) {
	r := secure(t)
	r.instead(func(raw net.Conn) {
		conn, err := r.session(raw)
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.(*tls.Conn).CloseWrite()
		_, _ = io.Copy(io.Discard, raw)
	})
	s := r.sink(t, func(c *syslog.Config) { c.Timeout = 2 * time.Second; c.RequireCloseNotify = true })
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 10)); err != nil {
		t.Error(err)
	}
}

func TestAReceiverThatNeverClosesCostsTheBudgetAndNoMore(t *testing.T) {
	for name, fault := range map[string]func(r *receiver) func(net.Conn){
		"before the handshake": func(r *receiver) func(net.Conn) {
			return func(net.Conn) { _, changed := r.until(); <-changed }
		},
		"after it": func(r *receiver) func(net.Conn) {
			return func(raw net.Conn) {
				_, changed := r.until()
				if conn, err := r.session(raw); err == nil {
					_, _ = io.Copy(io.Discard, conn)
				}
				<-changed
			}
		},
		"after its own close_notify": func(r *receiver) func(net.Conn) {
			return func(raw net.Conn) {
				_, changed := r.until()
				if conn, err := r.session(raw); err == nil {
					_, _ = io.Copy(io.Discard, conn)
					_ = conn.(*tls.Conn).CloseWrite()
				}
				<-changed
			}
		},
	} {
		r := secure(t)
		r.instead(fault(r))
		start := time.Now()
		err := r.sink(t, func(c *syslog.Config) { c.Timeout = 100 * time.Millisecond }).Deliver(t.Context(), sinktest.Lines(1, 2))
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 2*time.Second {
			t.Errorf("%s: %v after %s", name, err, time.Since(start))
		}
		r.set(sinktest.Healthy)
	}
}

func TestACancelledDeliveryReturnsAtOnce(t *testing.T) {
	for _, edit := range []func(*syslog.Config){confirmed, unconfirmed} {
		r := secure(t)
		ctx, cancel := context.WithCancel(t.Context())
		r.instead(func(net.Conn) { cancel(); _, changed := r.until(); <-changed })
		start := time.Now()
		if err := r.sink(t, edit).Deliver(ctx, sinktest.Lines(1, 2)); !errors.Is(err, context.Canceled) || time.Since(start) > 2*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		r.set(sinktest.Healthy)
	}
}

func TestOnlyTheFirstDeliveryNeedsAFullHandshake(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *receiver{"TLS 1.3": secure, "TLS 1.2": upTo12} {
		r := start(t)
		s := r.sink(t, nil)
		for range 20 {
			if err := s.Deliver(t.Context(), sinktest.Lines(1, 2)); err != nil {
				t.Fatal(err)
			}
		}
		if _, full, resumed := r.count(); full != 1 || resumed != 19 {
			t.Errorf("%s: %d full and %d resumed handshakes", name, full, resumed)
		}
	}
}

func TestTheReceiversCertificateIsVerified(t *testing.T) {
	r := secure(t)
	stranger := newAuthority(t)
	for name, row := range map[string]struct {
		edit func(*syslog.Config)
		want string
	}{
		"another authority":   {func(c *syslog.Config) { c.CAFile = stranger.file }, "its issuer is not trusted"},
		"the system's only":   {func(c *syslog.Config) { c.CAFile = "" }, "its issuer is not trusted"},
		"another server name": {func(c *syslog.Config) { c.ServerName = "other.test" }, "it is for another host"},
	} {
		t.Run(name, func(t *testing.T) {
			fails(t, r.sink(t, row.edit).Deliver(t.Context(), sinktest.Lines(1, 1)), row.want)
		})
	}
	if err := r.sink(t, func(c *syslog.Config) { c.ServerName = "syslog.test" }).Deliver(t.Context(), sinktest.Lines(1, 1)); err != nil {
		t.Error(err)
	}
}

func TestTLSBelow12IsRefused(t *testing.T) {
	r := receive(t, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 })
	fails(t, r.sink(t, nil).Deliver(t.Context(), sinktest.Lines(1, 1)), "the receiver refused: tls: protocol version not supported")
}

// In TLS 1.3 a client is done with the handshake before the server has looked at
// its certificate, so nothing must count as delivered by then.
func TestAReceiverThatWantsACertificateGetsOneOrNothingCounts(t *testing.T) {
	r := receive(t, func(c *tls.Config) { c.ClientAuth = tls.RequireAndVerifyClientCert })
	_, certFile, keyFile := r.ca.issue(t)
	_, strangeCert, strangeKey := newAuthority(t).issue(t)
	for _, edit := range []func(*syslog.Config){confirmed, unconfirmed} {
		for range 2 {
			fails(t, r.sink(t, edit).Deliver(t.Context(), sinktest.Lines(1, 1)), "the receiver refused: tls: ")
			s := r.sink(t, func(c *syslog.Config) { edit(c); c.CertFile, c.KeyFile = strangeCert, strangeKey })
			fails(t, s.Deliver(t.Context(), sinktest.Lines(1, 1)), "the receiver refused: tls: ")
		}
		s := r.claim(r.sink(t, func(c *syslog.Config) { edit(c); c.CertFile, c.KeyFile = certFile, keyFile }))
		if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); err != nil {
			t.Error(err)
		}
	}
	r.caughtUp()
}

func TestUnconfirmedDeliveriesShareAConnection(t *testing.T) {
	for _, start := range []func(testing.TB) *receiver{secure, receivePlain} {
		r := start(t)
		s := r.claim(r.sink(t, unconfirmed))
		for i := range uint64(20) {
			if err := s.Deliver(t.Context(), sinktest.Lines(i*5+1, i*5+5)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		r.caughtUp()
		if accepted, _, _ := r.count(); accepted != 1 || len(r.texts()) != 100 {
			t.Errorf("%d messages over %d connections", len(r.texts()), accepted)
		}
	}
}

// The first write after the other side has closed succeeds.
func TestAConnectionThatEndedMeanwhileIsNotWrittenTo(t *testing.T) {
	for name, row := range map[string]struct {
		start func(testing.TB) *receiver
		end   func(conn net.Conn)
	}{
		"plain":               {receivePlain, func(conn net.Conn) { _ = conn.Close() }},
		"TLS, politely":       {secure, func(conn net.Conn) { _ = conn.Close() }},
		"TLS, without a word": {secure, func(conn net.Conn) { _ = conn.(*tls.Conn).NetConn().Close() }},
	} {
		t.Run(name, func(t *testing.T) {
			r := row.start(t)
			first, done := sinktest.Line(1, 0), make(chan struct{})
			r.instead(func(raw net.Conn) {
				defer close(done)
				conn, err := r.session(raw)
				if err != nil {
					t.Error(err)
					return
				}
				frame, err := readFrame(bufio.NewReader(conn))
				if err != nil {
					t.Error(err)
				}
				r.keep(frame)
				row.end(conn)
			})
			s := r.claim(r.sink(t, unconfirmed))
			if err := s.Deliver(t.Context(), []follow.Line{first}); err != nil {
				t.Fatal(err)
			}
			<-done
			r.instead(nil)
			if err := s.Deliver(t.Context(), sinktest.Lines(2, 5)); err != nil {
				t.Fatal(err)
			}
			r.caughtUp()
			if accepted, _, _ := r.count(); accepted != 2 {
				t.Errorf("%d connections", accepted)
			}
		})
	}
}

func TestAMessageBeyondTheLimitIsSetAsideAndNothingIsSent(t *testing.T) {
	r := secure(t)
	s := r.sink(t, func(c *syslog.Config) { c.MaxMessage = 4096 })
	lines := []follow.Line{sinktest.Line(1, 0), sinktest.Line(2, 4096), sinktest.Line(3, 0)}
	var poison *follow.Poison
	if err := s.Deliver(t.Context(), lines); !errors.As(err, &poison) || poison.Index != 1 {
		t.Fatalf("Deliver = %v", err)
	}
	if accepted, _, _ := r.count(); accepted != 0 {
		t.Error("connected for a delivery that cannot be made")
	}
	header, err := s.Frame(sinktest.Line(2, 1000))
	if err != nil {
		t.Fatal(err)
	}
	head := len(header) - len("1234 ") - 1000
	for size, fits := range map[int]bool{4096 - head: true, 4097 - head: false} {
		if err := s.Deliver(t.Context(), []follow.Line{sinktest.Line(2, size)}); (err == nil) != fits {
			t.Errorf("a message of %d bytes: %v", size+head, err)
		}
	}
}

func TestNothingIsLeftRunningAndClosedIsClosed(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("sinks", func(t *testing.T) {
		for _, edit := range []func(*syslog.Config){confirmed, unconfirmed} {
			r := secure(t)
			s := r.sink(t, edit)
			if err := s.Deliver(t.Context(), nil); err != nil {
				t.Errorf("nothing to deliver: %v", err)
			}
			if accepted, _, _ := r.count(); accepted != 0 {
				t.Error("connected to deliver nothing")
			}
			if err := s.Deliver(t.Context(), sinktest.Lines(1, 5)); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.Close(), s.Close()); err != nil {
				t.Error(err)
			}
			within(t, "the end of all connections", func() bool { return r.open() == 0 })
			if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); !errors.Is(err, syslog.ErrClosed) {
				t.Errorf("Deliver after Close = %v", err)
			}
			if got := r.texts(); len(got) != 5 {
				t.Errorf("%d messages", len(got))
			}
		}
	})
	within(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
}

func TestUnreachableReceiversAreNamedByTheirFault(t *testing.T) {
	for address, want := range map[string]string{"127.0.0.1:1": "connection refused", "nowhere.invalid": "the host name was not found"} {
		s, err := syslog.New(syslog.Config{Address: address, Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		fails(t, s.Deliver(t.Context(), sinktest.Lines(1, 1)), want)
	}
}

func TestLinesArriveInTheirOrder(t *testing.T) {
	r := secure(t)
	if err := r.sink(t, nil).Deliver(t.Context(), sinktest.Lines(1, 256)); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, line := range sinktest.Lines(1, 256) {
		want = append(want, string(line.Raw))
	}
	if !slices.Equal(r.texts(), want) {
		t.Error("the messages differ from the lines")
	}
}

func benchmark(b *testing.B, start func(testing.TB) *receiver, edit func(*syslog.Config)) {
	r := start(b)
	r.instead(func(raw net.Conn) {
		if conn, err := r.session(raw); err == nil {
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	})
	s := r.sink(b, edit)
	lines := sinktest.Lines(1, 256)
	for i := range lines {
		lines[i] = sinktest.Line(uint64(i)+1, 900)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Deliver(b.Context(), lines); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(len(lines)*b.N), "ns/line")
}

func BenchmarkDeliverConfirmed(b *testing.B) { benchmark(b, secure, confirmed) }

func BenchmarkDeliverConfirmedWithoutTLS(b *testing.B) { benchmark(b, receivePlain, confirmed) }

func BenchmarkDeliverUnconfirmed(b *testing.B) { benchmark(b, secure, unconfirmed) }
