// Package proxy says what a reverse_proxy is to the gate. It decides nothing
// about requests.
package proxy

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

const seal = "http.reverse_proxy.transport.moat"

// Asks reports whether a proxy looks exactly like what forward_auth makes: a GET
// for one fixed path whose good answer (2xx) is read and not passed on. That is a
// question to another server, not the request to the application.
func Asks(h *reverseproxy.Handler) bool {
	if h.Rewrite == nil || h.Rewrite.Method != http.MethodGet || len(h.HandleResponse) != 1 {
		return false
	}
	path, _, _ := strings.Cut(h.Rewrite.URI, "?")
	match := h.HandleResponse[0].Match
	return path != "" && !strings.Contains(path, "{") && match != nil && slices.Equal(match.StatusCode, []int{2})
}

// Sealed reports whether what a provisioned proxy sends goes through the seal.
func Sealed(h *reverseproxy.Handler) bool {
	transport, ok := h.Transport.(caddy.Module)
	return ok && string(transport.CaddyModule().ID) == seal
}
