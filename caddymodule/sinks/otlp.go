package sinks

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/otlp"
)

// OTLP posts events as OpenTelemetry logs to a collector, by OTLP over HTTP. A log
// record that the collector rejects is found and set aside.
type OTLP struct {
	// URL of the collector: https, or http on the loopback interface. Without a path
	// it is /v1/logs.
	URL string `json:"url,omitempty"`
	// Header fields of each request, such as an API key.
	Header map[string]string `json:"header,omitempty"`
	certificates
	// Compression is gzip or none. Default: gzip.
	Compression string `json:"compression,omitempty"`
	// Timeout is the budget of one delivery. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
}

// CaddyModule returns the module's registration.
func (*OTLP) CaddyModule() caddy.ModuleInfo {
	return module("otlp", func() caddy.Module { return new(OTLP) })
}

// Provision expands placeholders.
func (o *OTLP) Provision(caddy.Context) error {
	header, errs := make(map[string]string, len(o.Header)), []error(nil)
	for name, value := range o.Header {
		expanded, err := dispense.Expand("header "+name, value)
		header[name] = expanded
		errs = append(errs, err)
	}
	o.Header = header
	fields := o.fields()
	fields["url"] = &o.URL
	return errors.Join(append(errs, expand(fields))...)
}

// Target implements follow.Settings.
func (o *OTLP) Target() follow.Target {
	means := append(o.means(), o.Compression)
	for _, name := range slices.Sorted(maps.Keys(o.Header)) {
		means = append(means, name, o.Header[name])
	}
	return follow.Target{Timeout: time.Duration(o.Timeout), Place: o.URL, Means: meansOf(o.Timeout, means...)}
}

// Open implements follow.Settings.
func (o *OTLP) Open() (follow.Sink, error) {
	return otlp.New(otlp.Config{
		URL: o.URL, Headers: o.Header, CAFile: o.CA, CertFile: o.Cert, KeyFile: o.Key,
		Compression: o.Compression, Timeout: time.Duration(o.Timeout),
	})
}

// UnmarshalCaddyfile reads:
//
//	otlp <url> {
//		header <name> <value>
//		ca <file>
//		cert <file>
//		key <file>
//		compression gzip|none
//		timeout <duration>
//	}
func (o *OTLP) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	words := o.words()
	maps.Copy(words, dispense.Words{
		"header":      {Parse: o.parseHeader, Repeats: true},
		"compression": {Parse: dispense.OneOf(&o.Compression, otlp.Gzip, otlp.None)},
		"timeout":     timeout(&o.Timeout),
	})
	return errors.Join(named(d, &o.URL), words.Block(d, "sink otlp"))
}

func (o *OTLP) parseHeader(d *caddyfile.Dispenser) error {
	var name, value string
	if !d.Args(&name, &value) {
		return d.Err("header: needs a name and a value")
	}
	if _, twice := o.Header[name]; twice {
		return d.Errf("header %s: stands twice", name)
	}
	if o.Header == nil {
		o.Header = make(map[string]string)
	}
	o.Header[name] = value
	return nil
}
