package sinks

import (
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/webhook"
)

// Webhook posts events to an HTTP server, several in one request, signed as the
// Standard Webhooks specification says. Only a 2xx answer is success; redirects
// are not followed. An event that the server refuses with 400 or 422 is set aside
// once the server has taken a later one.
type Webhook struct {
	// URL of the server: https, or http on the loopback interface.
	URL string `json:"url,omitempty"`
	// Secret signs the deliveries: "whsec_" and base64, or any text of at least 24
	// bytes. With several each delivery carries a signature by each, so that the
	// receiver can change its own at leisure.
	Secret []string `json:"secret,omitempty"`
	// Timeout is the budget of one delivery. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
}

// CaddyModule returns the module's registration.
func (*Webhook) CaddyModule() caddy.ModuleInfo {
	return module("webhook", func() caddy.Module { return new(Webhook) })
}

// Provision expands placeholders.
func (w *Webhook) Provision(caddy.Context) error {
	secrets, err := dispense.ExpandAll("secret", w.Secret)
	w.Secret = secrets
	return errors.Join(expand(map[string]*string{"url": &w.URL}), err)
}

// Target implements follow.Settings.
func (w *Webhook) Target() follow.Target {
	return follow.Target{Timeout: time.Duration(w.Timeout), Place: w.URL, Means: meansOf(w.Timeout, w.Secret...)}
}

// Open implements follow.Settings.
func (w *Webhook) Open() (follow.Sink, error) {
	return webhook.New(webhook.Config{URL: w.URL, Secrets: w.Secret, Timeout: time.Duration(w.Timeout)})
}

// UnmarshalCaddyfile reads:
//
//	webhook <url> {
//		secret <secret>
//		timeout <duration>
//	}
func (w *Webhook) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return errors.Join(named(d, &w.URL), dispense.Words{
		"secret":  one(&w.Secret),
		"timeout": timeout(&w.Timeout),
	}.Block(d, "sink webhook"))
}
