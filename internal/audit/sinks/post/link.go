package post

import (
	"context"
	"net"
	"sync"
	"time"
)

// link holds the sockets of a transport, so that all of them can be ended at
// once. A transport does not do that for HTTP/2: a request that timed out leaves
// its stream to a goroutine, and as long as that runs the connection counts as
// busy, is not closed as idle, and is used again.
type link struct {
	dialer net.Dialer

	mu      sync.Mutex
	closed  bool
	sockets map[*socket]bool
}

// socket is a connection that its link knows of.
type socket struct {
	net.Conn
	link *link
}

func newLink(timeout time.Duration) *link {
	return &link{dialer: net.Dialer{Timeout: timeout, KeepAlive: 15 * time.Second}, sockets: map[*socket]bool{}}
}

func (l *link) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := l.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	s := &socket{conn, l}
	l.sockets[s] = true
	return s, nil
}

// Close ends the socket.
func (s *socket) Close() error {
	s.link.mu.Lock()
	delete(s.link.sockets, s)
	s.link.mu.Unlock()
	return s.Conn.Close()
}

// sever ends all sockets; the next request dials anew.
func (l *link) sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.sockets {
		_ = s.Conn.Close()
	}
	clear(l.sockets)
}

// close ends all sockets, also those that are only coming into being.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.sever()
}
