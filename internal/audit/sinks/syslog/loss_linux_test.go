package syslog_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/syslog"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

func TestAReceiverThatDiesWithUnreadMessagesLosesNothing(t *testing.T) {
	lines := sinktest.Lines(1, 256)
	for name, start := range map[string]func(testing.TB) *receiver{"TLS 1.3": secure, "TLS 1.2": upTo12, "plain": receivePlain} {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			r.instead(func(raw net.Conn) {
				conn, err := r.session(raw)
				if err != nil {
					t.Error(err)
					return
				}
				frame, err := readFrame(bufio.NewReaderSize(conn, 16))
				if err != nil {
					t.Error(err)
				}
				r.keep(frame)
				awaitUnread(t, raw)
			})
			s := r.sink(t, nil)
			fails(t, s.Deliver(t.Context(), lines), "")
			r.instead(nil)
			if err := s.Deliver(t.Context(), lines); err != nil {
				t.Fatal(err)
			}
			if got := r.texts(); len(got) != 257 || got[256] != string(lines[255].Raw) {
				t.Errorf("%d messages", len(got))
			}
		})
	}
}

// awaitUnread waits until bytes are in the socket that nobody has read.
func awaitUnread(t *testing.T, raw net.Conn) {
	t.Helper()
	conn, err := raw.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Read(func(fd uintptr) bool {
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return n > 0 || !errors.Is(err, syscall.EAGAIN)
	}); err != nil && !errors.Is(err, net.ErrClosed) { // as at the end of a test
		t.Error(err)
	}
}

func TestACloseNotifyThatIsNoAnswerConfirmsNothing(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *receiver{"TLS 1.3": secure, "TLS 1.2": upTo12} {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			r.instead(func(raw net.Conn) {
				conn, err := r.session(raw)
				if err != nil {
					t.Error(err)
					return
				}
				_ = conn.(*tls.Conn).CloseWrite()
				awaitUnread(t, raw)
			})
			// More than a TLS library reads ahead with a handshake.
			fails(t, r.sink(t, byNotify).Deliver(t.Context(), sinktest.Lines(1, 100)), "")
		})
	}
}

// A close_notify says what the receiver's TLS library did, a reset what became of
// the bytes.
func TestAResetAfterACloseNotifyConfirmsNothing(t *testing.T) {
	r := secure(t)
	r.instead(func(raw net.Conn) {
		conn, err := r.session(raw)
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.(*tls.Conn).CloseWrite()
		_ = raw.(*net.TCPConn).SetLinger(0)
	})
	fails(t, r.sink(t, nil).Deliver(t.Context(), sinktest.Lines(1, 100)), "")
}

// A receiver that restarts closes whether or not a delivery is on the way. Here
// its end comes while it has room for a part of the delivery only.
func TestACloseBeforeEverythingArrivedConfirmsNothing(t *testing.T) {
	small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			if err := syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096); err != nil {
				t.Error(err)
			}
		})
	}}
	listener, err := small.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.(*net.TCPConn).CloseWrite()
		<-release
		_ = conn.Close()
	}()
	s, err := syslog.New(syslog.Config{Address: listener.Addr().String(), Plaintext: true})
	if err != nil {
		t.Fatal(err)
	}
	fails(t, s.Deliver(t.Context(), sinktest.Lines(1, 120)), "before it had everything")
	close(release)
	<-done
	_ = listener.Close()
}

func TestAKeptConnectionThatBrokeIsReportedOnce(t *testing.T) {
	r := receivePlain(t)
	done := make(chan struct{})
	r.instead(func(raw net.Conn) {
		defer close(done)
		awaitUnread(t, raw)
		_ = raw.Close()
	})
	s := r.claim(r.sink(t, unconfirmed))
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 5)); err != nil {
		t.Fatal(err)
	}
	<-done
	r.instead(nil)
	fails(t, s.Deliver(t.Context(), sinktest.Lines(6, 10)), "what was sent last may be lost: connection reset by peer")
	if err := s.Deliver(t.Context(), sinktest.Lines(6, 10)); err != nil {
		t.Fatal(err)
	}
	within(t, "the arrival of the second delivery", func() bool { return len(r.texts()) == 5 })
}

// A connection that breaks under a write says less than what the receiver said.
func TestWhatTheReceiverSaidGoesBeforeAFailedWrite(t *testing.T) {
	r := receivePlain(t)
	r.instead(func(raw net.Conn) {
		awaitUnread(t, raw)
		_, _ = io.WriteString(raw, "planted-answer")
	})
	s := r.sink(t, func(c *syslog.Config) { c.MaxMessage = 2 << 20 })
	var lines []follow.Line
	for seq := range uint64(24) { // more than the buffers of both sockets hold
		lines = append(lines, sinktest.Line(seq+1, 1<<20))
	}
	fails(t, s.Deliver(t.Context(), lines), "no syslog receiver does")
}

func TestNoSocketIsLeftOpen(t *testing.T) {
	r := secure(t)
	s := r.sink(t, nil)
	count := func() int {
		within(t, "the end of the receiver's connections", func() bool { return r.open() == 0 })
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(open)
	}
	var before int
	for i := range 21 {
		if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			before = count()
		}
	}
	if after := count(); after >= before+20 {
		t.Errorf("%d descriptors became %d", before, after)
	}
}
