package sinks

import (
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/sqlite"
)

// SQLite inserts each event into a table of a database file: the line as it stands,
// beside indexed columns. File and table are made when they are missing.
type SQLite struct {
	// Path of the database file. It may not lie in the journal's directory.
	Path string `json:"path,omitempty"`
	// Table that takes the events. Default: moat_audit.
	Table string `json:"table,omitempty"`
	// Timeout is the budget of one delivery, waiting for another writer included.
	// Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
}

// CaddyModule returns the module's registration.
func (*SQLite) CaddyModule() caddy.ModuleInfo {
	return module("sqlite", func() caddy.Module { return new(SQLite) })
}

// Provision expands placeholders.
func (s *SQLite) Provision(caddy.Context) error {
	return expand(map[string]*string{"path": &s.Path, "table": &s.Table})
}

// Target implements follow.Settings.
func (s *SQLite) Target() follow.Target {
	place := s.Path
	if s.Table != "" {
		place += "\x00" + s.Table
	}
	return follow.Target{Timeout: time.Duration(s.Timeout), Place: place, Files: []string{s.Path}, Means: meansOf(s.Timeout), RawOnly: true}
}

// Open implements follow.Settings.
func (s *SQLite) Open() (follow.Sink, error) {
	return sqlite.New(sqlite.Config{Path: s.Path, Table: s.Table, Timeout: time.Duration(s.Timeout)})
}

// UnmarshalCaddyfile reads:
//
//	sqlite <path> {
//		table <name>
//		timeout <duration>
//	}
func (s *SQLite) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return errors.Join(named(d, &s.Path), dispense.Words{
		"table":   word(&s.Table),
		"timeout": timeout(&s.Timeout),
	}.Block(d, "sink sqlite"))
}
