package sinktest

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// garbage is no answer in any protocol, and enough of it to end any wait for
// a longer message.
var garbage = func() []byte {
	b := make([]byte, 8<<10)
	for i := range b {
		b[i] = "~}|{zyx"[i%7]
	}
	return append(b, '\r', '\n')
}()

// Proxy stands between a client and a server's socket and misbehaves on
// request.
type Proxy struct {
	listener net.Listener
	network  string
	target   string
	done     sync.WaitGroup

	mu     sync.Mutex
	fault  Fault
	closed bool
	conns  map[net.Conn]bool
}

// StartProxy listens on the unix socket address and passes connections on to
// the unix socket target. It ends with the test.
func StartProxy(t testing.TB, address, target string) *Proxy {
	t.Helper()
	listener, err := net.Listen("unix", address)
	if err != nil {
		t.Fatalf("sinktest: proxy: %v", err)
	}
	p := &Proxy{listener: listener, network: "unix", target: target, conns: map[net.Conn]bool{}}
	p.done.Go(p.accept)
	t.Cleanup(p.stop)
	return p
}

// Set changes the behaviour for open and new connections alike. Connections
// that were broken by a fault do not come back.
func (p *Proxy) Set(fault Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.fault
	p.fault = fault
	if fault == Refuse || before == Refuse || before == HalfOpen || before == Malformed {
		for conn := range p.conns {
			_ = conn.Close()
		}
	}
}

func (p *Proxy) now() Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}

// Connections returns how many connections to either side are open.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

func (p *Proxy) stop() {
	p.mu.Lock()
	p.closed = true
	_ = p.listener.Close()
	for conn := range p.conns {
		_ = conn.Close()
	}
	p.mu.Unlock()
	p.done.Wait()
}

// keep registers a connection, unless the proxy is closed or refuses.
func (p *Proxy) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.fault == Refuse {
		_ = conn.Close()
		return false
	}
	p.conns[conn] = true
	return true
}

func (p *Proxy) drop(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
	_ = conn.Close()
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		if p.keep(conn) {
			p.done.Go(func() { p.serve(conn) })
		}
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer p.drop(client)
	server, err := net.Dial(p.network, p.target)
	if err != nil || !p.keep(server) {
		return
	}
	defer p.drop(server)
	p.done.Go(func() {
		defer func() { _ = client.Close() }()
		p.pass(client, server, nil)
	})
	p.pass(server, client, client)
}

// pass copies from one side to the other under the present fault. Malformed
// answers go to reply, where there is one.
func (p *Proxy) pass(to io.Writer, from io.Reader, reply io.Writer) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !p.forward(to, buf[:n], reply) {
			return
		}
		if err != nil {
			if c, ok := to.(interface{ CloseWrite() error }); ok {
				_ = c.CloseWrite()
			}
			return
		}
	}
}

func (p *Proxy) forward(to io.Writer, chunk []byte, reply io.Writer) bool {
	switch p.now() {
	case HalfOpen:
		return true
	case Malformed:
		if reply == nil {
			return true
		}
		_, err := reply.Write(garbage)
		return err == nil
	case Slow:
		<-time.After(5 * time.Millisecond)
	}
	_, err := to.Write(chunk)
	return err == nil
}
