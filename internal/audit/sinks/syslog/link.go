package syslog

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
)

var (
	errSpoke    = errors.New("the receiver answered, which no syslog receiver does")
	errTooEarly = errors.New("the receiver closed before it had everything")
	errNoNotify = errors.New("the receiver closed without a close_notify")
)

// brokenOff says that a kept connection did not end in order.
type brokenOff struct{ err error }

func (b *brokenOff) Error() string {
	return "the connection broke, and what was sent last may be lost: " + reason(b.err)
}

// socket is a TCP connection that knows whether the other side ended it.
// Go's TLS reports such an end and a close_notify alike.
type socket struct {
	*net.TCPConn
	ended bool
}

// Read notes the end.
func (s *socket) Read(b []byte) (int, error) {
	n, err := s.TCPConn.Read(b)
	if errors.Is(err, io.EOF) {
		s.ended = true
	}
	return n, err
}

// stream is a connection whose sending half closes first.
type stream interface {
	io.ReadWriter
	CloseWrite() error
}

// link is one connection to the receiver.
type link struct {
	socket *socket
	stream stream // TLS on the socket, or the socket itself
}

func newLink(conn net.Conn) (*link, error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	s := &socket{TCPConn: tcp}
	return &link{socket: s, stream: s}, nil
}

// secure puts TLS on the socket.
func (l *link) secure(ctx context.Context, config *tls.Config) error {
	session := tls.Client(l.socket, config)
	l.stream = session
	return session.HandshakeContext(ctx)
}

// write sends content.
func (l *link) write(content []byte) error {
	_, err := l.stream.Write(content)
	return l.explain(err)
}

// confirm says that no more comes and waits for the receiver to close in turn.
func (l *link) confirm(strict bool) error {
	if err := l.stream.CloseWrite(); err != nil {
		return l.explain(err)
	}
	return l.end(strict)
}

// explain returns what the receiver had to say when the connection could not be
// written to: a refusal in TLS, for example, which tells more.
func (l *link) explain(err error) error {
	if err == nil {
		return nil
	}
	if told := l.end(false); told != nil {
		return told
	}
	return err
}

// end waits until the receiver has closed, and returns nil when it did so in
// order and after it had been sent everything.
//
// A receiver that closes for reasons of its own (a restart, an idle timeout)
// just when a delivery is on the way must not pass for one that has read it.
// If it leaves bytes unread its system resets the connection, which is an error
// here. If it closes before they arrive, they are not acknowledged by then.
func (l *link) end(strict bool) error {
	n, err := l.stream.Read(make([]byte, 1))
	switch {
	case n > 0:
		// Whoever answers does not speak syslog: a web server would refuse the
		// messages in words and then close like a receiver.
		return errSpoke
	case !errors.Is(err, io.EOF):
		return err
	case unacknowledged(l.socket.TCPConn):
		return errTooEarly
	case !l.socket.ended:
		return l.endSocket()
	case strict:
		return errNoNotify
	}
	return nil
}

// endSocket waits for the end of the connection below a close_notify: a reset
// may still come. What else comes is not read (RFC 8446, section 6.1). In TLS
// our own half of the socket closes here only, so that no proxy on the way can
// answer in the receiver's place.
func (l *link) endSocket() error {
	if err := l.socket.CloseWrite(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, l.socket); err != nil {
		return err
	}
	return nil
}

// sever ends the connection without a word.
func (l *link) sever() { _ = l.socket.Close() }
