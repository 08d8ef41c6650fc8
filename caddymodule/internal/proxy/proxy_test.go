package proxy

import (
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
)

func TestOnlyAQuestionAsks(t *testing.T) {
	question := func(change func(*reverseproxy.Handler)) *reverseproxy.Handler {
		h := &reverseproxy.Handler{
			Rewrite:        &rewrite.Rewrite{Method: "GET", URI: "/verify?rd={http.request.uri}"},
			HandleResponse: []caddyhttp.ResponseHandler{{Match: &caddyhttp.ResponseMatcher{StatusCode: []int{2}}}},
		}
		change(h)
		return h
	}
	if !Asks(question(func(*reverseproxy.Handler) {})) {
		t.Error("forward_auth does not ask")
	}
	for name, change := range map[string]func(*reverseproxy.Handler){
		"no rewrite":      func(h *reverseproxy.Handler) { h.Rewrite = nil },
		"another method":  func(h *reverseproxy.Handler) { h.Rewrite.Method = "POST" },
		"no path":         func(h *reverseproxy.Handler) { h.Rewrite.URI = "" },
		"the path asked":  func(h *reverseproxy.Handler) { h.Rewrite.URI = "{http.request.uri}" },
		"answers kept":    func(h *reverseproxy.Handler) { h.HandleResponse = nil },
		"two answers":     func(h *reverseproxy.Handler) { h.HandleResponse = append(h.HandleResponse, h.HandleResponse[0]) },
		"any answer":      func(h *reverseproxy.Handler) { h.HandleResponse[0].Match = nil },
		"another answer":  func(h *reverseproxy.Handler) { h.HandleResponse[0].Match.StatusCode = []int{4} },
		"further answers": func(h *reverseproxy.Handler) { h.HandleResponse[0].Match.StatusCode = []int{2, 3} },
	} {
		if Asks(question(change)) {
			t.Errorf("%s: asks", name)
		}
	}
	if Sealed(new(reverseproxy.Handler)) {
		t.Error("a proxy without a transport is sealed")
	}
}
