package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// maxText bounds what is passed on of the server's words.
const maxText = 200

// clean reduces an error to what an operator needs: the server's code and
// message, or why there is no connection. Values of rows, the connection string
// and answers that were not understood never pass.
func (s *Sink) clean(ctx context.Context, err error) error {
	if ctx.Err() != nil || pgconn.Timeout(err) {
		if errors.Is(ctx.Err(), context.Canceled) {
			return fmt.Errorf("postgres: %w", context.Canceled)
		}
		return fmt.Errorf("postgres: %w", context.DeadlineExceeded)
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return fmt.Errorf("postgres: SQLSTATE %.5s: %s", e.Code, s.cut(e.Message))
	}
	return errors.New("postgres: " + reason(err))
}

// cut shortens the server's words, and takes out the password should it be
// among them.
func (s *Sink) cut(text string) string {
	if s.config.Password != "" {
		text = strings.ReplaceAll(text, s.config.Password, "…")
	}
	if len(text) > maxText {
		text = text[:maxText]
	}
	return strings.ToValidUTF8(text, "")
}

func reason(err error) string {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return "the host name was not found: " + e.Err
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "the server's certificate was refused"
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e.Error()
	}
	if strings.Contains(err.Error(), "refused TLS") {
		return "the server does not offer TLS"
	}
	return "the connection broke or the answer was not understood"
}
