package sinks

import (
	"os"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/stdout"
)

// Stdout prints each event as one line on standard output. It is the only sink
// that works without a journal; then what the reader does not take in time is
// dropped and counted.
type Stdout struct{}

// CaddyModule returns the module's registration.
func (*Stdout) CaddyModule() caddy.ModuleInfo {
	return module("stdout", func() caddy.Module { return new(Stdout) })
}

// Target implements follow.Settings.
func (*Stdout) Target() follow.Target { return follow.Target{} }

// Open implements follow.Settings.
func (*Stdout) Open() (follow.Sink, error) { return stdout.New(os.Stdout), nil }

// UnmarshalCaddyfile reads:
//
//	stdout
func (*Stdout) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.Errf("unexpected argument %q", d.Val())
	}
	return dispense.Words{}.Block(d, "sink stdout")
}
