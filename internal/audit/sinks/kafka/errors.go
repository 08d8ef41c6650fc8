package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

// clean reduces an error to what an operator needs: the name of the broker's
// answer, or why there is none. Words of a broker, which may hold anything, and
// those of the client library never pass. Trouble is the last failure of a
// connection, if any.
func clean(ctx context.Context, err, trouble error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("kafka: %w", context.Canceled)
	}
	if e, ok := errors.AsType[*kerr.Error](err); ok {
		return answered(e)
	}
	if ctx.Err() == nil {
		return errors.New("kafka: " + reason(err))
	}
	if trouble != nil {
		return fmt.Errorf("kafka: %w: %s", context.DeadlineExceeded, reason(trouble))
	}
	return fmt.Errorf("kafka: %w", context.DeadlineExceeded)
}

// answered says what the broker's answer means for the delivery.
func answered(e *kerr.Error) error {
	err := fmt.Errorf("kafka: answered %s", e.Message)
	switch e.Code {
	case kerr.MessageTooLarge.Code, kerr.RecordListTooLarge.Code:
		return fmt.Errorf("%w: %w", err, follow.ErrTooLarge)
	case kerr.InvalidRecord.Code:
		return fmt.Errorf("%w: %w", err, follow.ErrRefused)
	}
	return err
}

// reason says why there is no answer, without repeating what a server sent.
func reason(err error) string {
	if errors.Is(err, errExposed) {
		return errExposed.Error()
	}
	if e, ok := errors.AsType[*kerr.Error](err); ok {
		return "answered " + e.Message
	}
	if _, ok := errors.AsType[*kgo.ErrFirstReadEOF](err); ok {
		return "the connection was closed at once, as by a broker that expects TLS or a password where there is none, or none where there is one"
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return "the host name was not found: " + e.Err
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "the broker's certificate was refused: " + certificate(e)
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e.Error()
	}
	return broken(err)
}

func broken(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return "the connection was closed"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "the broker does not speak TLS"
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" {
		return "the broker refused the TLS connection: " + e.Err.Error() // one of the standard library's texts
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return "the broker did not answer in time"
	}
	return "the connection broke or the answer was not understood"
}

func certificate(e *tls.CertificateVerificationError) string {
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(e, &host):
		return "it is for another host"
	case errors.As(e, &invalid) && invalid.Reason == x509.Expired:
		return "it has expired or is not valid yet"
	}
	return "its issuer is not trusted or it is not valid"
}
