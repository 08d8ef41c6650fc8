package sinks

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/syslog"
)

// Syslog sends each event as a message of RFC 5424 over TLS (RFC 5425). Syslog has
// no acknowledgement; so a delivery ends the connection and counts once the
// receiver has ended it as well, which it does when it has read everything.
type Syslog struct {
	// Address of the receiver, as host:port. Default port: 6514.
	Address string `json:"address,omitempty"`
	// InsecurePlaintext sends without TLS: whoever is on the way reads the events, can
	// change them, and can pretend to be the receiver. Default: TLS 1.2 at least.
	InsecurePlaintext bool `json:"insecure_plaintext,omitempty"`
	// Confirm says what confirms a delivery: "close" (default), the receiver's end of
	// the connection, "close_notify", only TLS's own (RFC 5425, section 4.4), or "off":
	// the connection stays open, and what a receiver that dies had not read is lost.
	Confirm string `json:"confirm,omitempty"`
	certificates
	// ServerName is the name that the receiver's certificate must be for. Default: the
	// host of the address.
	ServerName string `json:"server_name,omitempty"`
	// Facility of the messages: auth, authpriv, audit, local0 to local7, or a number
	// from 0 to 23. Default: audit (13).
	Facility string `json:"facility,omitempty"`
	// AppName is the APP-NAME of the messages. Default: moat.
	AppName string `json:"app_name,omitempty"`
	// Enterprise is your private enterprise number at IANA; with it the messages
	// carry seq, epoch, class, outcome and id as structured data. Default: none.
	Enterprise int64 `json:"enterprise,omitempty"`
	// MaxMessage is the longest message in bytes; a longer one is set aside. The
	// receiver must be set up for as much. Default: 65536; 2048 to 2097152.
	MaxMessage int64 `json:"max_message,omitempty"`
	// Timeout is the budget of one delivery, until it is confirmed. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
}

// What confirms a delivery.
const (
	confirmClose  = "close"
	confirmNotify = "close_notify"
	confirmOff    = "off"
)

// CaddyModule returns the module's registration.
func (*Syslog) CaddyModule() caddy.ModuleInfo {
	return module("syslog", func() caddy.Module { return new(Syslog) })
}

// Provision expands placeholders.
func (s *Syslog) Provision(ctx caddy.Context) error {
	if s.InsecurePlaintext {
		ctx.Logger().Warn("insecure_plaintext: events go to syslog without TLS")
	}
	if s.Confirm == confirmOff {
		ctx.Logger().Warn("confirm off: what a syslog receiver that dies had not read is lost")
	}
	fields := s.fields()
	maps.Copy(fields, map[string]*string{"address": &s.Address, "server_name": &s.ServerName})
	return expand(fields)
}

// Target implements follow.Settings.
func (s *Syslog) Target() follow.Target {
	means := append(s.means(), strconv.FormatBool(s.InsecurePlaintext), s.Confirm, s.ServerName, s.Facility, s.AppName,
		strconv.FormatInt(s.Enterprise, 10), strconv.FormatInt(s.MaxMessage, 10))
	return follow.Target{Timeout: time.Duration(s.Timeout), Place: s.Address, Means: meansOf(s.Timeout, means...)}
}

// Open implements follow.Settings.
func (s *Syslog) Open() (follow.Sink, error) {
	switch s.Confirm {
	case "", confirmClose, confirmNotify, confirmOff:
	default:
		return nil, fmt.Errorf("syslog: confirm %.32q: must be %s, %s or %s", s.Confirm, confirmClose, confirmNotify, confirmOff)
	}
	if s.Enterprise < 0 || s.Enterprise > 1<<32-1 {
		return nil, fmt.Errorf("syslog: enterprise %d: must be a private enterprise number of 32 bits", s.Enterprise)
	}
	return syslog.New(syslog.Config{
		Address: s.Address, Plaintext: s.InsecurePlaintext,
		Unconfirmed: s.Confirm == confirmOff, RequireCloseNotify: s.Confirm == confirmNotify,
		CAFile: s.CA, CertFile: s.Cert, KeyFile: s.Key, ServerName: s.ServerName,
		Facility: s.Facility, AppName: s.AppName, Enterprise: uint32(s.Enterprise),
		MaxMessage: int(s.MaxMessage), Timeout: time.Duration(s.Timeout),
	})
}

// UnmarshalCaddyfile reads:
//
//	syslog <host:port> {
//		confirm close|close_notify|off
//		insecure_plaintext
//		ca <file>
//		cert <file>
//		key <file>
//		server_name <name>
//		facility <name>
//		app_name <name>
//		enterprise <number>
//		max_message <size>
//		timeout <duration>
//	}
func (s *Syslog) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	words := s.words()
	maps.Copy(words, dispense.Words{
		"confirm":            {Parse: dispense.OneOf(&s.Confirm, confirmClose, confirmNotify, confirmOff)},
		"insecure_plaintext": flag(&s.InsecurePlaintext),
		"server_name":        word(&s.ServerName),
		"facility":           word(&s.Facility),
		"app_name":           word(&s.AppName),
		"enterprise":         {Parse: dispense.Count(&s.Enterprise, 1)},
		"max_message":        {Parse: dispense.Size(&s.MaxMessage)},
		"timeout":            timeout(&s.Timeout),
	})
	return errors.Join(named(d, &s.Address), words.Block(d, "sink syslog"))
}
