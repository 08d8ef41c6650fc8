package postgres

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// goodbye is how long a healthy connection may take to end.
const goodbye = time.Second

// link is a database connection with the sockets under it. The client library
// closes a connection that timed out in the background, trying for some seconds
// to cancel the statement over another one; link ends all of that at once.
type link struct {
	conn *pgx.Conn

	mu      sync.Mutex
	cut     bool
	ctx     context.Context
	cancel  context.CancelFunc
	sockets []net.Conn
}

// connect opens a connection within ctx. The link lives on after ctx.
func connect(ctx context.Context, config *pgx.ConnConfig) (*link, error) {
	l := &link{}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	config = config.Copy()
	config.DialFunc = l.dial
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		l.sever()
		return nil, err
	}
	l.conn = conn
	return l, nil
}

func (l *link) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	dialer := net.Dialer{KeepAlive: 15 * time.Second}
	socket, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		_ = socket.Close()
		return nil, net.ErrClosed
	}
	l.sockets = append(l.sockets, socket)
	return socket, nil
}

// sever ends the link without a word.
func (l *link) sever() {
	l.mu.Lock()
	l.cut = true
	l.cancel()
	for _, socket := range l.sockets {
		_ = socket.Close()
	}
	l.mu.Unlock()
	if l.conn != nil {
		l.close()
	}
}

// close says goodbye, ends the link and waits until nothing of it runs.
func (l *link) close() {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	_ = l.conn.Close(ctx) // there is nothing left that could fail to arrive
	<-l.conn.PgConn().CleanupDone()
	l.cancel()
}
