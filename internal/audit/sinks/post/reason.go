package post

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"syscall"
)

// reason says why there is no answer, without repeating what a server sent.
func reason(err error) string {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return "the host name was not found: " + e.Err
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "the certificate was refused: " + certificate(e)
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e.Error()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return "the connection was closed"
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return "the connection failed"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "the server does not speak TLS"
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
