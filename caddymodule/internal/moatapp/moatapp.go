// Package moatapp finds the moat app for the handlers, which know it only by
// the small interfaces that the domains declare.
package moatapp

import (
	"fmt"

	"github.com/caddyserver/caddy/v2"
)

// ID is the app's module ID.
const ID = "moat"

// Load returns what the moat app offers as T. Without a moat block in the
// global options it is the empty app: no issuer, no role, everything in memory,
// events to the log only. That is no silent opening: whoever names an issuer
// or a role gets an error from the empty app.
func Load[T any](ctx caddy.Context) (T, error) {
	var none T
	app, err := ctx.AppIfConfigured(ID)
	if err != nil {
		app, err = ctx.App(ID)
	}
	if err != nil {
		return none, fmt.Errorf("loading the moat app: %w", err)
	}
	t, ok := app.(T)
	if !ok {
		return none, fmt.Errorf("the moat app is a %T and does not offer a %T", app, &none)
	}
	return t, nil
}
