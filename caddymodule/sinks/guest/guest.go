// Package guest is what a sink of your own is written against. Make a Caddy
// module in the namespace moat.sinks that implements Settings, and
// caddyfile.Unmarshaler if the Caddyfile is to know it, build the gateway with it
// (see xcaddy.json), and name it in the audit block:
//
//	sink mine <arguments> { <words> }
//
// The words name, class, outcome, severity, action, format and required, and the JSON
// keys of these names and type, are the gateway's: a module must not have them. A sink
// may live longer than the module that opened it, as long as reloads leave its settings
// as they are; what it holds is given back by its Close. The package
// sinktest beside this one is the suite that every sink of the gateway passes.
package guest

import "github.com/moat-gateway/moat/internal/audit/follow"

type (
	// Settings are a sink as somebody configured it: what the module implements.
	Settings = follow.Settings
	// Target is where a sink's events go.
	Target = follow.Target
	// Sink takes lines somewhere else.
	Sink = follow.Sink
	// Line is one line of the journal. A sink carries its Content.
	Line = follow.Line
	// Poison is returned for a line that will never be taken: it is set aside and
	// the others come again.
	Poison = follow.Poison
	// RetryAfter is returned when the server says when to come again.
	RetryAfter = follow.RetryAfter
)

var (
	// ErrTooLarge is returned when the server refuses the delivery for its size.
	ErrTooLarge = follow.ErrTooLarge
	// ErrRefused is returned when the server refuses what the delivery holds, or
	// all of them, and does not say which.
	ErrRefused = follow.ErrRefused
)
