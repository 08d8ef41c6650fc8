// Package seal is the transport "moat" of reverse_proxy: the last check before
// the wire.
package seal

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/canon"
	"github.com/moat-gateway/moat/internal/rbac"
)

func init() { caddy.RegisterModule(new(Transport)) }

// Transport is Caddy's HTTP transport with all its options, and a check. It
// runs after every rewrite, header operation and removal of hop-by-hop headers,
// so what it sees is what the upstream gets. A request that carries no decision,
// or whose method, path or host changed since, is answered 403 here and never
// sent; a rule may allow the change with rewrite_ok or strip_prefix. The
// identity headers are written last, whatever was done to them on the way.
//
// The 403 is an answer, not an error: an error would count against the
// upstream's health and could be tried again elsewhere. Active health checks
// carry no request and pass. A proxy in an error route fetches its page with GET,
// without a body and without identity.
type Transport struct {
	*reverseproxy.HTTPTransport
}

// CaddyModule returns the module's registration.
func (Transport) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.transport.moat",
		New: func() caddy.Module { return &Transport{new(reverseproxy.HTTPTransport)} },
	}
}

// RoundTrip checks and sends.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if ctx.Value(caddyhttp.VarsCtxKey) == nil {
		// An active health check: only requests that a server answers have
		// variables, while the server itself is in the context of both.
		return t.HTTPTransport.RoundTrip(req)
	}
	ex := exchange.From(ctx)
	if ctx.Value(caddyhttp.ErrorCtxKey) != nil {
		if req.URL.Opaque != "" || !canonical(req) {
			return refuse(req, ex, "seal.not-canonical"), nil
		}
		return t.send(page(req, ex), ex)
	}
	if reason := drift(req, ex); reason != "" {
		return refuse(req, ex, reason), nil
	}
	ex.SetForward(req.Header)
	req.Header[exchange.RequestIDHeader] = []string{ex.RequestID}
	return t.send(req, ex)
}

// send sends a request that was checked.
func (t *Transport) send(req *http.Request, ex *exchange.Exchange) (*http.Response, error) {
	if ex == nil || ex.Inline == nil {
		return t.HTTPTransport.RoundTrip(req)
	}
	return ex.Inline(req, t.HTTPTransport.RoundTrip)
}

// drift says what changed between the decision and the wire.
func drift(req *http.Request, ex *exchange.Exchange) string {
	switch {
	case ex == nil || !ex.Decided:
		return "seal.no-decision"
	case ex.Refusal != nil:
		return "seal.refused"
	case req.URL.Opaque != "":
		return "seal.opaque-target"
	case rewriteOK(ex.Match.Rule()):
		return ""
	case req.Method != ex.Method:
		return "seal.method-changed"
	case !pathAllowed(ex.Match.Rule(), ex.Path, req.URL.EscapedPath()):
		return "seal.path-changed"
	case req.URL.RawQuery != ex.Query:
		return "seal.query-changed"
	case req.Host != "" && !strings.EqualFold(req.Host, ex.Host) && !upstreamHost(req):
		return "seal.host-changed"
	}
	return ""
}

func rewriteOK(rule *rbac.Rule) bool { return rule != nil && rule.RewriteOK }

func pathAllowed(rule *rbac.Rule, decided, sent string) bool {
	if sent == decided {
		return true
	}
	if rule == nil || rule.StripPrefix == "" {
		return false
	}
	rest, ok := strings.CutPrefix(decided, strings.TrimSuffix(rule.StripPrefix, "/"))
	if rest == "" {
		rest = "/"
	}
	return ok && rest == sent
}

// upstreamHost reports whether the host became the address that is dialed, as
// `header_up Host {upstream_hostport}` makes it: virtual hosts of an upstream
// need that, and it is the operator's choice of upstream, not the caller's.
func upstreamHost(req *http.Request) bool {
	return strings.EqualFold(req.Host, req.URL.Host)
}

func canonical(req *http.Request) bool {
	path, err := canon.Path(req.URL.EscapedPath())
	return err == nil && path == req.URL.EscapedPath()
}

// pageHeaders are the headers that a page may depend on. It is a list of what
// goes, not of what stays: Caddy runs error routes also for requests that it
// refused before the gate could clean them.
var pageHeaders = []string{
	"Accept", "Accept-Encoding", "Accept-Language", "User-Agent", "Via",
	"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
}

// page is the request of an error route for its page: a GET without a body,
// because the request itself was refused or has failed, without what could be
// taken for a verified caller, and without a way to make a tunnel of it.
func page(req *http.Request, ex *exchange.Exchange) *http.Request {
	page := req.Clone(req.Context())
	if page.Method != http.MethodHead {
		page.Method = http.MethodGet
	}
	if req.Body != nil {
		_ = req.Body.Close() // Nothing of it is sent.
	}
	page.Body, page.GetBody, page.ContentLength, page.TransferEncoding, page.Trailer = nil, nil, 0, nil, nil
	page.Header = make(http.Header, len(pageHeaders))
	for _, name := range pageHeaders {
		if values, ok := req.Header[name]; ok {
			page.Header[name] = values
		}
	}
	if ex != nil {
		page.Header[exchange.RequestIDHeader] = []string{ex.RequestID}
	}
	return page
}

// refuse is the answer to a request that must not be sent.
func refuse(req *http.Request, ex *exchange.Exchange, reason string) *http.Response {
	body := map[string]any{
		"type":   "urn:moat:problem:" + denial.Forbidden.Name,
		"title":  denial.Forbidden.Title,
		"status": denial.Forbidden.Status,
		"code":   denial.Forbidden.Name,
	}
	if ex != nil {
		body["requestId"] = ex.RequestID
		ex.Refusal = &exchange.Refusal{
			Code: denial.Forbidden.Name, Status: denial.Forbidden.Status, Reason: reason,
		}
	}
	text, _ := json.Marshal(body) // A map of strings and a number cannot fail.
	if req.Body != nil {
		_ = req.Body.Close() // A RoundTripper must close the body; nothing was read from it.
	}
	return &http.Response{
		Status:        http.StatusText(http.StatusForbidden),
		StatusCode:    http.StatusForbidden,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        http.Header{"Content-Type": {"application/problem+json"}, "Cache-Control": {"no-store"}},
		Body:          io.NopCloser(bytes.NewReader(text)),
		ContentLength: int64(len(text)),
		Request:       req,
	}
}

// Interface guards.
var (
	_ caddy.Provisioner         = (*Transport)(nil)
	_ caddy.CleanerUpper        = (*Transport)(nil)
	_ http.RoundTripper         = (*Transport)(nil)
	_ reverseproxy.TLSTransport = (*Transport)(nil)
)
