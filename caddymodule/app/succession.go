package app

import (
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/telemetry"
	"github.com/moat-gateway/moat/internal/audit"
)

// Caddy starts a configuration before it ends the one that runs, and drops it
// again when one of its apps cannot start. That the running one is cleaned up
// is the only proof that the new one has won. Until then it is the heir: it may
// serve already, but the log, the trail's settings, the sinks and the metrics
// are those of the live one.
var (
	// live is the app that runs now. Pooled parts outlive the app that made
	// them and must not hold its logger; they ask for the current one.
	live atomic.Pointer[App]
	// heir is the app that started while another was live.
	heir atomic.Pointer[App]
)

// logger is the live app's. Without one, as before the first app starts and
// after the last has ended, it is the process's.
func logger() *zap.Logger {
	if a := live.Load(); a != nil {
		return a.logger
	}
	return caddy.Log().Named("moat")
}

// succeed makes a started app the live one, or the heir of the live one.
func (a *App) succeed() {
	if live.CompareAndSwap(nil, a) {
		a.establish()
		return
	}
	heir.Store(a)
}

// resign makes the heir live if a was. It returns the app that has taken over
// and must be established, or nil.
func (a *App) resign() *App {
	heir.CompareAndSwap(a, nil)
	if live.Load() != a {
		return nil
	}
	next := heir.Swap(nil)
	if next != nil {
		live.Store(next)
	}
	return next
}

// establish makes the app's configuration count: none can come between any
// more.
func (a *App) establish() {
	a.established = true
	a.trail.establish(a)
	for name, k := range a.keys {
		if k.remote != nil {
			a.watches = append(a.watches, telemetry.WatchKeys(name, k.remote.Age))
		}
	}
	a.watches = append(a.watches, telemetry.WatchStore(a.limiter.degraded))
	a.limiter.establish()
	storeChanged()
	a.files.watch()
}

// reject leaves an event in the live app's trail when this configuration ends
// without ever having counted: a reload failed. A configuration that is only looked
// at has no live one beside it.
func (a *App) reject() {
	current := live.Load()
	if !a.provisioned || a.established || current == nil || current == a {
		return
	}
	a.provisioned = false
	current.trail.event(audit.Admin, "config.rejected", "moat", audit.Failure, func(d *audit.Details) {
		if a.parts != nil {
			d.Set("sha256", a.parts.sum())
		}
	})
}

// describeConfig tells what configuration counts now.
func (a *App) describeConfig(d *audit.Details) {
	d.Set("sha256", a.parts.sum())
	if a.before != nil {
		d.Set("changed", a.parts.changed(a.before))
	}
	if len(a.files.sums) > 0 {
		d.Set("files", a.files.sums)
	}
}
