package sinks

import (
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/postgres"
)

// Postgres inserts each event into a table of a PostgreSQL database: the line as
// it stands, beside indexed columns. The table is made when it is missing.
type Postgres struct {
	// DSN is the connection string. A server that is not on this machine needs an
	// explicit sslmode, best verify-full.
	DSN string `json:"dsn,omitempty"`
	// Table that takes the events, with its schema if that is not the first of the
	// search path. Default: moat_audit.
	Table string `json:"table,omitempty"`
	// Timeout is the budget of one delivery. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
}

// CaddyModule returns the module's registration.
func (*Postgres) CaddyModule() caddy.ModuleInfo {
	return module("postgres", func() caddy.Module { return new(Postgres) })
}

// Provision expands placeholders.
func (p *Postgres) Provision(caddy.Context) error {
	return expand(map[string]*string{"dsn": &p.DSN, "table": &p.Table})
}

// Target implements follow.Settings.
func (p *Postgres) Target() follow.Target {
	return follow.Target{
		Place: postgres.Place(p.DSN, p.Table), Means: meansOf(p.Timeout, p.DSN), Timeout: time.Duration(p.Timeout), RawOnly: true,
	}
}

// Open implements follow.Settings.
func (p *Postgres) Open() (follow.Sink, error) {
	return postgres.New(postgres.Config{DSN: p.DSN, Table: p.Table, Timeout: time.Duration(p.Timeout)})
}

// UnmarshalCaddyfile reads:
//
//	postgres <dsn> {
//		table <name>
//		timeout <duration>
//	}
func (p *Postgres) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return errors.Join(named(d, &p.DSN), dispense.Words{
		"table":   word(&p.Table),
		"timeout": timeout(&p.Timeout),
	}.Block(d, "sink postgres"))
}
