// Package syslog is the audit sink that sends each line as a syslog message
// (RFC 5424) over TLS (RFC 5425) or, where an operator insists, over plain TCP
// (RFC 6587). It knows follow's lines, the outer fields of an audit event and
// the ways in which a connection ends; it does not know what a receiver does
// with a message.
//
// Syslog has no acknowledgement. What it has is the end of a connection: who is
// told that no more comes closes in turn, and cannot know that before having
// read everything. So a delivery is a connection of its own, and done when the
// receiver has closed it in answer to the sink's own close. That proves that
// the receiver has read all of it, not that it has stored it.
package syslog

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

// goodbye is how long a kept connection may take to end.
const goodbye = time.Second

// ErrClosed is returned by Deliver after Close.
var ErrClosed = errors.New("syslog: the sink is closed")

// Sink sends lines to one receiver.
type Sink struct {
	address string
	tls     *tls.Config // nil without TLS
	timeout time.Duration
	keep    bool // deliveries are not confirmed
	strict  bool // by close_notify only

	mu     sync.Mutex
	closed bool
	format format
	buf    []byte // reused
	link   *link  // nil while no connection is kept
}

// New checks cfg and returns a sink that has not connected to anything yet.
func New(cfg Config) (*Sink, error) {
	cfg = cfg.withDefaults()
	host, address, addressErr := cfg.splitAddress()
	facility, facilityErr := cfg.facility()
	config, tlsErr := cfg.tlsConfig(host)
	if err := errors.Join(addressErr, facilityErr, tlsErr, cfg.validate()); err != nil {
		return nil, err
	}
	return &Sink{
		address: address, tls: config, timeout: cfg.Timeout, keep: cfg.Unconfirmed, strict: cfg.RequireCloseNotify,
		format: format{facility: facility, appName: cfg.AppName, enterprise: cfg.Enterprise, limit: cfg.MaxMessage},
	}, nil
}

// Name returns "syslog".
func (s *Sink) Name() string { return "syslog" }

// Close ends the sink and the connection it keeps, if any. It gives what is on
// the way a moment to arrive.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.link != nil {
		defer s.link.sever()
		_ = s.link.socket.SetDeadline(time.Now().Add(goodbye))
		_ = s.link.confirm(false) // the lines were reported as delivered already
		s.link = nil
	}
	return nil
}

// Deliver sends the lines, one message each, and waits until the receiver has
// closed the connection, unless deliveries are not confirmed.
func (s *Sink) Deliver(ctx context.Context, lines []follow.Line) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if len(lines) == 0 {
		return nil
	}
	s.buf = s.buf[:0]
	for i, line := range lines {
		var err error
		if s.buf, err = s.format.append(s.buf, line); err != nil {
			return &follow.Poison{Index: i, Err: err}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return clean(ctx, s.send(ctx))
}

// send hands over what is in the buffer.
func (s *Sink) send(ctx context.Context) error {
	l, err := s.take(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, l.sever)
	if err = l.write(s.buf); err == nil && !s.keep {
		err = l.confirm(s.strict)
	}
	if !stop() || err != nil || !s.keep {
		l.sever()
		return err
	}
	s.link = l
	return nil
}

// take returns the connection that was kept if it is still good, else a new one.
func (s *Sink) take(ctx context.Context) (*link, error) {
	l := s.link
	s.link = nil
	if l == nil {
		return s.open(ctx)
	}
	// The first write after the receiver has closed would succeed.
	quiet, err := silent(l)
	if quiet {
		return l, nil
	}
	defer l.sever()
	defer context.AfterFunc(ctx, l.sever)()
	if err == nil {
		err = l.end(false)
	}
	if err != nil {
		return nil, &brokenOff{err}
	}
	return s.open(ctx)
}

// open connects within ctx.
func (s *Sink) open(ctx context.Context) (*link, error) {
	dialer := net.Dialer{KeepAlive: 15 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	l, err := newLink(conn)
	if err == nil && s.tls != nil {
		err = l.secure(ctx, s.tls)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return l, nil
}
