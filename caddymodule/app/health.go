package app

import (
	"context"
	"errors"
)

var errNotLoaded = errors.New("not loaded yet")

// Health reports what the gateway needs to do its work. Required parts that
// are not well make it not ready; the others are reported only.
func (a *App) Health(ctx context.Context, report func(part string, required bool, err error)) {
	report("configuration", true, nil)
	report("journal", true, a.trail.trail.Down())
	for name, k := range a.keys {
		var err error
		if !k.source.Ready() {
			err = errNotLoaded
		}
		report("keys "+name, true, err)
	}
	if c, ok := a.trail.trail.(*configured); ok {
		for n, label := range labels(c.followers) {
			report("sink "+label, false, c.followers[n].trouble())
		}
	}
	if a.limiter.redis != nil {
		report("redis", false, a.reachable(ctx))
	}
}
