package syslog

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// clean reduces an error to what an operator needs, without repeating what a
// server sent.
func clean(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("syslog: %w", ctx.Err())
	}
	return errors.New("syslog: " + reason(err))
}

// reason says why a delivery failed.
func reason(err error) string {
	for _, own := range []error{errSpoke, errTooEarly, errNoNotify} {
		if errors.Is(err, own) {
			return own.Error()
		}
	}
	if e, ok := errors.AsType[*brokenOff](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return "the host name was not found: " + e.Err
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "the certificate was refused: " + certificate(e)
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && isAlert(err) {
		return "the receiver refused: " + e.Err.Error() // one of crypto/tls's own words
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e.Error()
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "the server does not speak TLS"
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return "the connection was closed"
	}
	return "the connection broke or the answer was not understood"
}

// isAlert reports whether err is the other side's TLS alert.
func isAlert(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "remote error"
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
