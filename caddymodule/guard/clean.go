package guard

import (
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/canon"
)

// clean takes off what pretends or what would act on the way to the upstream.
func (h *Handler) clean(r *http.Request, ex *exchange.Exchange) {
	ex.Unwanted = []*canon.HeaderSet{h.identity, h.overrides}
	if !exchange.TrustedPeer(r) {
		ex.Unwanted = append(ex.Unwanted, h.forwarding)
		h.notice(r, ex)
	}
	for _, set := range ex.Unwanted {
		set.StripFrom(r.Header)
	}
	ex.Unwanted = append(ex.Unwanted, h.credentials, trailerHeaders) // For trailers only.
	cleanConnection(r.Header)
	if r.Trailer != nil {
		// Some servers merge trailers into headers. A rule can ask for them.
		ex.Trailer = r.Trailer
		r.Trailer = nil
		delete(r.Header, "Trailer")
	}
}

// notice says once when forwarding headers come from a private peer that is not
// a trusted proxy: most likely it is a proxy, and all its callers share one
// address in limits and events.
func (h *Handler) notice(r *http.Request, ex *exchange.Exchange) {
	if !ex.Client.IsPrivate() && !ex.Client.IsLoopback() || r.Header["X-Forwarded-For"] == nil && r.Header["Forwarded"] == nil {
		return
	}
	h.noticed.Do(func() {
		h.logger.Warn("forwarding headers come from a private peer that is not in trusted_proxies and are ignored; "+
			"if it is a proxy, all its callers count as one address", zap.String("peer", ex.Client.String()))
	})
}

// cleanConnection keeps Connection from naming headers away: the proxy deletes
// every header listed there, identity headers that the gate set included.
func cleanConnection(h http.Header) {
	upgrade := strings.EqualFold(h.Get("Upgrade"), "websocket") && len(h["Upgrade"]) == 1
	if !upgrade {
		delete(h, "Upgrade")
	}
	if values, ok := h["Connection"]; ok {
		closing := false
		upgrading := false
		for _, value := range values {
			for option := range strings.SplitSeq(value, ",") {
				switch strings.ToLower(strings.TrimSpace(option)) {
				case "close":
					closing = true
				case "upgrade":
					upgrading = true
				}
			}
		}
		switch {
		case upgrading && upgrade:
			h["Connection"] = []string{"Upgrade"}
		case closing:
			h["Connection"] = []string{"close"}
		default:
			delete(h, "Connection")
		}
	}
	delete(h, "Proxy-Connection")
	delete(h, "Keep-Alive")
	delete(h, "Http2-Settings")
	if te, ok := h["Te"]; ok {
		delete(h, "Te")
		for _, value := range te {
			if strings.EqualFold(strings.TrimSpace(value), "trailers") {
				h["Te"] = []string{"trailers"}
			}
		}
	}
}
