package post

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// TestAConnectionThatComesIntoBeingAfterCloseIsEnded: a transport goes on
// dialing after the request that asked for it has timed out.
func TestAConnectionThatComesIntoBeingAfterCloseIsEnded(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	c := New(time.Second, nil, nil)
	c.Close()
	if _, err := c.link.dial(t.Context(), "tcp", listener.Addr().String()); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("dial = %v", err)
	}
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the other end reads %v", err)
	}
	_ = conn.Close()
}
