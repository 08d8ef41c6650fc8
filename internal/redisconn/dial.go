package redisconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/redis/go-redis/v9"
)

type dialer = func(ctx context.Context, network, addr string) (net.Conn, error)

// unrepeated is the library's dialer, with connections whose time-outs count as
// the end of the call. The cluster client has no setting for that: MaxRetries
// does not concern it, and MaxRedirects would also keep it from following a
// slot that moved. Left alone it sends a command or a pipeline up to four times
// when the answers are late, and every one of them is run.
func unrepeated(o *redis.Options) dialer {
	dial := redis.NewDialer(o)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		final := finalConn{conn}
		// The pool looks at the socket of a plain connection for signs that the
		// other side has closed it.
		if raw, ok := conn.(syscall.Conn); ok {
			return struct {
				finalConn
				syscall.Conn
			}{final, raw}, nil
		}
		return final, nil
	}
}

// finalConn makes a context's error of a time-out, which the library repeats
// nothing after.
type finalConn struct{ net.Conn }

func (c finalConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, endOfCall(err)
}

func (c finalConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, endOfCall(err)
}

func endOfCall(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return err
}
