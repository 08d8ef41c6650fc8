// Package sinktest is the suite that every sink of the gateway passes, for sinks
// that are written elsewhere.
package sinktest

import (
	"testing"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

type (
	// Harness is one sink with its server, fresh for each test of the suite.
	Harness = sinktest.Harness
	// Fault is how the way to a server misbehaves.
	Fault = sinktest.Fault
	// Proxy stands between a sink and its server and produces the faults.
	Proxy = sinktest.Proxy
)

// The faults of the suite.
const (
	Healthy   = sinktest.Healthy
	Slow      = sinktest.Slow
	Refuse    = sinktest.Refuse
	HalfOpen  = sinktest.HalfOpen
	Malformed = sinktest.Malformed
)

// Run puts the sink that open prepares through the suite, but for the faults that
// cannot happen to it.
func Run(t *testing.T, open func(t *testing.T) Harness, lacks ...Fault) {
	sinktest.Run(t, open, lacks...)
}

// StartProxy listens on a unix socket and passes connections on to another one.
func StartProxy(t *testing.T, listen, server string) *Proxy {
	return sinktest.StartProxy(t, listen, server)
}

// Lines returns journal lines from one sequence number to another.
func Lines(from, to uint64) []follow.Line { return sinktest.Lines(from, to) }
