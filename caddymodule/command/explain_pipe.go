package command

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// pipeTimeout ends what hangs. Fetching keys takes the longest.
const pipeTimeout = time.Minute

var errNoAnswer = errors.New("the connection was closed")

// overPipe sends the bytes of a request to an HTTP server in this process, over
// no network. It is the server that a gateway runs, so that a request which
// never reaches a handler there does not reach one here.
func overPipe(ctx context.Context, h http.Handler, maxHeader int, request []byte, method string) (status int, header http.Header, err error) {
	client, conn := net.Pipe()
	var running sync.Mutex
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			running.Lock()
			defer running.Unlock()
			h.ServeHTTP(w, r)
		}),
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: pipeTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	listener := &oneConn{conn: conn, closed: make(chan struct{})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(listener) // It ends by being closed.
	}()
	defer func() {
		_ = client.Close()
		_ = srv.Close()
		<-served
	}()
	if err := client.SetDeadline(time.Now().Add(pipeTimeout)); err != nil {
		return 0, nil, err
	}
	// The server may answer before it has read everything.
	go func() { _, _ = client.Write(request) }()
	reader := bufio.NewReader(client)
	res, err := http.ReadResponse(reader, &http.Request{Method: method})
	for err == nil && res.StatusCode < http.StatusOK && res.StatusCode != http.StatusSwitchingProtocols {
		_ = res.Body.Close() // It has none.
		res, err = http.ReadResponse(reader, &http.Request{Method: method})
	}
	if err != nil {
		return 0, nil, errors.Join(errNoAnswer, err)
	}
	// What the handler found out is read next.
	running.Lock()
	defer running.Unlock()
	return res.StatusCode, res.Header, res.Body.Close()
}

// oneConn is a listener that one connection comes in on.
type oneConn struct {
	conn   net.Conn
	once   sync.Once
	closed chan struct{}
}

// Accept returns the connection, and nothing after it.
func (l *oneConn) Accept() (conn net.Conn, err error) {
	l.once.Do(func() { conn = l.conn })
	if conn != nil {
		return conn, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

// Close ends Accept.
func (l *oneConn) Close() error {
	close(l.closed)
	return nil
}

// Addr is of no network.
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }
