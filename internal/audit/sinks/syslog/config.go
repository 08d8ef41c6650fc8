package syslog

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// standardPort is the one of syslog over TLS (RFC 5425, section 4.1).
	standardPort = "6514"
	// minMessage is what every receiver must take (RFC 5425, section 4.3.1).
	minMessage = 2048
	// maxMessage has room for the longest line a sink is ever given.
	maxMessage = 2 << 20
	// maxAppName bounds Config.AppName (RFC 5424, section 6).
	maxAppName = 48
	// maxFacility is local7.
	maxFacility = 23
)

// Config is what New needs. Address is required.
type Config struct {
	// Receiver, as host:port. Without a port it is 6514, the port of syslog over
	// TLS. Plaintext has no port of its own and needs one here.
	Address string
	// Sends without TLS, framed by RFC 6587: everybody on the way can read the
	// events, change them and pretend to be the receiver. Default: false.
	Plaintext bool
	// Keeps one connection open and counts a delivery as done once this
	// machine's kernel took it, for receivers that never close a connection.
	// Syslog has no acknowledgement, so a receiver that dies, or a network that
	// fails, then costs whatever was on the way: all that the socket buffers of
	// both machines held, often some MiB. Nothing is sent again. It holds the
	// connection to TLS 1.2, in which a receiver that refuses the client's
	// certificate says so before the first event is sent. Default: false, each
	// delivery is confirmed.
	Unconfirmed bool
	// Takes nothing but the receiver's close_notify (RFC 5425, section 4.4) as a
	// confirmation. Without it the plain end of the connection counts too when it
	// answers our close_notify, because rsyslog and others send nothing else; who
	// can inject packets on the way can forge that. Default: false.
	RequireCloseNotify bool
	// File of PEM certificates that vouch for the receiver's. Default: those of
	// the system.
	CAFile string
	// Files of the client's certificate and its key, PEM, read once at start.
	// Both or neither.
	CertFile, KeyFile string
	// Name that the receiver's certificate must be for. Default: the host of
	// Address.
	ServerName string
	// Facility of all messages: auth, authpriv, audit, local0 to local7, or a
	// number from 0 to 23. Default: audit, which is 13.
	Facility string
	// APP-NAME of all messages, 1 to 48 printable ASCII characters without a
	// space. Default: moat.
	AppName string
	// Private enterprise number of whoever runs the gateway, as IANA assigned it.
	// With it, messages carry the structured data [moat@NUMBER seq="" epoch=""
	// class="" outcome="" id=""]. Without one there is no honest name for them,
	// and a receiver finds the same facts in the message's JSON. Default: none.
	Enterprise uint32
	// Longest message in bytes, header included. A longer one is not cut but set
	// aside. The receiver must be set up for as much: rsyslog takes 8 KiB
	// unless told otherwise, and cuts the rest. Default: 64 KiB. At least 2048,
	// at most 2 MiB.
	MaxMessage int
	// Budget of one delivery, until it is confirmed. Default: 10 s.
	Timeout time.Duration
}

func (c Config) withDefaults() Config {
	if c.Facility == "" {
		c.Facility = "audit"
	}
	if c.AppName == "" {
		c.AppName = "moat"
	}
	if c.MaxMessage == 0 {
		c.MaxMessage = 64 << 10
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	return c
}

// validate checks what stands for itself.
func (c Config) validate() error {
	var errs []error
	say := func(format string, args ...any) { errs = append(errs, fmt.Errorf("syslog: "+format, args...)) }
	if c.AppName != headerField(c.AppName, maxAppName) {
		say("app_name %.80q: must be 1 to %d printable ASCII characters without a space", c.AppName, maxAppName)
	}
	if c.MaxMessage < minMessage || c.MaxMessage > maxMessage {
		say("max_message %d: must be between %d and %d bytes", c.MaxMessage, minMessage, maxMessage)
	}
	if c.Timeout < time.Millisecond || c.Timeout > time.Minute {
		say("timeout %s: must be between 1ms and 1m", c.Timeout)
	}
	if c.Unconfirmed && c.RequireCloseNotify {
		say("confirm: is both off and close_notify: must be one of them")
	}
	if c.Plaintext && (c.RequireCloseNotify || c.CAFile+c.CertFile+c.KeyFile+c.ServerName != "") {
		say("insecure_plaintext: stands beside a setting of TLS: must stand alone")
	}
	return errors.Join(errs...)
}

// splitAddress returns the host of the receiver, and where to connect.
func (c Config) splitAddress() (host, address string, err error) {
	host, port, err := net.SplitHostPort(c.Address)
	if err != nil { // perhaps only for want of a port
		host, port = strings.TrimSuffix(strings.TrimPrefix(c.Address, "["), "]"), standardPort
		if c.Plaintext {
			port = ""
		}
	}
	if !isHost(host) {
		return "", "", fmt.Errorf("syslog: address %.80q: must be like host:port", c.Address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "", fmt.Errorf("syslog: address %.80q: must have a port between 1 and 65535", c.Address)
	}
	return host, net.JoinHostPort(host, port), nil
}

// isHost is no more than a guard against what can be no name at all: colons
// belong to IPv6 addresses only.
func isHost(host string) bool {
	if net.ParseIP(host) != nil {
		return true
	}
	return host != "" && len(host) < 256 && !strings.ContainsFunc(host, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`/:@[]%\"`, r)
	})
}

// facility returns the number of Config.Facility.
func (c Config) facility() (int, error) {
	names := []string{"local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"}
	if i := slices.Index(names, c.Facility); i >= 0 {
		return 16 + i, nil
	}
	switch c.Facility {
	case "auth":
		return 4, nil
	case "authpriv":
		return 10, nil
	case "audit":
		return 13, nil
	}
	n, err := strconv.ParseUint(c.Facility, 10, 8)
	if err != nil || n > maxFacility {
		return 0, fmt.Errorf("syslog: facility %.80q: must be auth, authpriv, audit, local0 to local7 or a number from 0 to %d", c.Facility, maxFacility)
	}
	return int(n), nil
}

// tlsConfig returns nil for a connection without TLS.
func (c Config) tlsConfig(host string) (*tls.Config, error) {
	if c.Plaintext {
		return nil, nil
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: host,
		// Each confirmed delivery is a connection of its own: resumption spares
		// it the certificates.
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
	}
	if c.ServerName != "" {
		config.ServerName = c.ServerName
	}
	if c.Unconfirmed {
		// In TLS 1.3 a client is done before the server has looked at its
		// certificate: whole deliveries would go to a receiver that takes none.
		config.MaxVersion = tls.VersionTLS12
	}
	var caErr, certErr error
	config.RootCAs, caErr = c.roots()
	config.Certificates, certErr = c.certificates()
	return config, errors.Join(caErr, certErr)
}

func (c Config) roots() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	content, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("syslog: ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("syslog: ca_file %q: holds no certificate: must be PEM", c.CAFile)
	}
	return pool, nil
}

// certificates never repeats what stands in the files.
func (c Config) certificates() ([]tls.Certificate, error) {
	if c.CertFile == "" && c.KeyFile == "" {
		return nil, nil
	}
	if c.CertFile == "" || c.KeyFile == "" {
		return nil, errors.New("syslog: cert_file, key_file: one of them is missing: must be both or neither")
	}
	pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if problem, ok := errors.AsType[*os.PathError](err); ok {
		return nil, fmt.Errorf("syslog: cert_file, key_file: %w", problem)
	}
	if err != nil {
		return nil, fmt.Errorf("syslog: cert_file %q, key_file %q: are no certificate with its key: must be PEM and belong together", c.CertFile, c.KeyFile)
	}
	return []tls.Certificate{pair}, nil
}
