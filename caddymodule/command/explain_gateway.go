package command

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
)

// gateways is one configuration, provisioned without its issuers' keys and,
// once a token has to be judged, a second time with them.
type gateways struct {
	config []byte
	dir    string // of what is made on the way
	open   map[bool]*gateway
}

func openGateways(file, adapter string) (*gateways, error) {
	registerStep()
	config, err := explainedConfig(file, adapter)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "moat-explain-")
	if err != nil {
		return nil, err
	}
	g := &gateways{config: config, dir: dir, open: map[bool]*gateway{}}
	if _, err := g.gateway(false); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

func (g *gateways) close() { _ = os.RemoveAll(g.dir) } // Nothing of it is needed any more.

// gateway returns the configuration with or without its issuers' keys.
func (g *gateways) gateway(keys bool) (*gateway, error) {
	if have := g.open[keys]; have != nil {
		return have, nil
	}
	config, err := reduce(g.config, g.dir, keys)
	if err != nil {
		return nil, err
	}
	ctx, err := caddy.ProvisionContext(config)
	if err != nil {
		return nil, err
	}
	made, err := newGateway(ctx, keys)
	if err != nil {
		return nil, err
	}
	g.open[keys] = made
	return made, nil
}

// ask answers one request. It is sent first without its token: that shows where
// the site on its route wants one, and whether keys are needed at all.
func (g *gateways) ask(ctx context.Context, q *request) (*answer, error) {
	without, err := g.gateway(false)
	if err != nil {
		return nil, err
	}
	a, err := without.ask(ctx, q)
	if err != nil {
		return nil, err
	}
	source := a.walk.Source
	if q.token == "" && !a.walk.NeedsKeys {
		return a, nil
	}
	if source == nil {
		// A matcher may look at the token and choose another route.
		a, err = without.ask(ctx, q.carrying(&explanation.Source{Name: "Authorization"}))
		if err != nil {
			return nil, err
		}
		if source = a.walk.Source; source == nil {
			a.walk.Note("token", "no jwt looks at it on this route")
			return a, nil
		}
	}
	with, err := g.gateway(true)
	if err != nil {
		return nil, fmt.Errorf("a token has to be judged, and the keys for that are not there: %w", err)
	}
	return with.ask(ctx, q.carrying(source))
}

// carrying returns the request with its token where the site looks for it.
func (q *request) carrying(source *explanation.Source) *request {
	if q.token == "" {
		return q
	}
	line := source.Name + ": Bearer " + q.token
	if source.Cookie {
		line = "Cookie: " + source.Name + "=" + q.token
	}
	sent := *q
	sent.header = append(slices.Clone(q.header), line)
	return &sent
}

// gateway is a provisioned configuration that is not started.
type gateway struct {
	http    *caddyhttp.App
	issuers explanation.Issuers
	keys    bool
	gates   []gatePolicy
}

func newGateway(ctx caddy.Context, keys bool) (*gateway, error) {
	site, err := ctx.AppIfConfigured("http")
	if err != nil {
		return nil, err
	}
	app, ok := site.(*caddyhttp.App)
	if !ok {
		return nil, fmt.Errorf("the http app is a %T", site)
	}
	g := &gateway{http: app, keys: keys, gates: gatesOf(app)}
	if moat, err := ctx.AppIfConfigured("moat"); err == nil {
		g.issuers, _ = moat.(explanation.Issuers)
	}
	return g, nil
}

// ask sends the request to the servers that could get it.
func (g *gateway) ask(ctx context.Context, q *request) (*answer, error) {
	names := g.servers(q.target)
	if len(names) == 0 {
		return g.unserved(q), nil
	}
	var found []*answer
	for _, name := range names {
		a, err := g.send(ctx, name, q)
		if err != nil {
			return nil, err
		}
		found = append(found, a)
	}
	// A server that has no site for the URL says nothing about it.
	serving := slices.DeleteFunc(slices.Clone(found), func(a *answer) bool { return a.walk.Exchange == nil && a.walk.answerer == "" })
	switch len(serving) {
	case 0:
		return found[0], nil
	case 1:
		return serving[0], nil
	}
	a := serving[0]
	a.walk.Fail(fmt.Errorf("the servers %s and %s both serve this URL, at different addresses", a.Server, serving[1].Server))
	a.conclude()
	return a, nil
}

// servers returns the names of the servers that listen on the URL's port with or
// without TLS, as its scheme says. One that listens on a Unix socket has no
// port, and whoever is in front of it sends what it likes.
func (g *gateway) servers(t *target) []string {
	var names []string
	for name, srv := range g.http.Servers {
		if g.listens(srv, t) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (g *gateway) listens(srv *caddyhttp.Server, t *target) bool {
	return slices.ContainsFunc(srv.Listen, func(listen string) bool {
		addr, err := caddy.ParseNetworkAddress(listen)
		secure := len(srv.TLSConnPolicies) > 0 && int(t.port) != g.plainPort()
		switch {
		case err != nil || secure != t.https:
			return false
		case addr.IsUnixNetwork():
			return true
		}
		return uint(t.port) >= addr.StartPort && uint(t.port) <= addr.EndPort
	})
}

func (g *gateway) plainPort() int {
	if g.http.HTTPPort != 0 {
		return g.http.HTTPPort
	}
	return caddyhttp.DefaultHTTPPort
}

// unserved is the answer when nobody listens.
func (g *gateway) unserved(q *request) *answer {
	var listens []string
	for _, srv := range g.http.Servers {
		listens = append(listens, srv.Listen...)
	}
	slices.Sort(listens)
	how := "without TLS"
	if q.target.https {
		how = "with TLS"
	}
	a := &answer{request: q, walk: &walk{Trace: new(explanation.Trace)}}
	a.walk.Fail(fmt.Errorf("no server listens on port %d %s; servers listen on %s", q.target.port, how, strings.Join(listens, ", ")))
	a.conclude()
	return a
}

// send sends the request to one server.
func (g *gateway) send(ctx context.Context, name string, q *request) (*answer, error) {
	srv := g.http.Servers[name]
	w := &walk{Trace: &explanation.Trace{Caller: q.caller, At: q.at, Issuers: g.issuers, HasKeys: g.keys}}
	a := &answer{request: q, walk: w, Server: name}
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		a.reached = true
		r.RemoteAddr = q.remote
		if q.target.https {
			r.TLS = connection(q.target)
		}
		srv.ServeHTTP(rw, r.WithContext(withWalk(r.Context(), w)))
	})
	status, header, err := overPipe(ctx, handler, srv.MaxHeaderBytes, q.bytes(), q.method)
	if err != nil {
		return nil, fmt.Errorf("the server did not answer: %w", err)
	}
	a.status, a.location = status, header.Get("Location")
	if ex := w.Exchange; ex != nil && ex.LookedUp {
		a.gate = g.gateOf(ex.Policy)
	}
	a.conclude()
	return a, nil
}

// connection is what a well-behaved client agrees on: TLS 1.3, for the URL's
// name. For an address it sends none (RFC 6066 section 3).
func connection(t *target) *tls.ConnectionState {
	state := &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true}
	if _, err := netip.ParseAddr(t.name); err != nil {
		state.ServerName = t.name
	}
	return state
}

// value returns the value of the request's header line of that name, or "".
func (q *request) value(name string) string {
	for _, line := range q.header {
		if n, v, _ := strings.Cut(line, ":"); strings.EqualFold(n, name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// host is what the request asks for; that is not always whom it was sent to.
func (q *request) host() string { return cmp.Or(q.value("Host"), q.target.host) }

// bytes is the request as it goes over the wire.
func (q *request) bytes() []byte {
	var b strings.Builder
	b.WriteString(q.method + " " + q.target.path + " HTTP/1.1\r\n")
	if q.value("Host") == "" {
		b.WriteString("Host: " + q.target.host + "\r\n")
	}
	for _, line := range q.header {
		name, value, _ := strings.Cut(line, ":")
		b.WriteString(name + ": " + strings.TrimSpace(value) + "\r\n")
	}
	b.WriteString("\r\n" + q.body())
	return []byte(b.String())
}

// maxBody is more than an HTTP server reads of a body that nobody wanted.
const maxBody = 512 << 10

// body is a body of the length that the header declares. The server would wait
// for it before it answers.
func (q *request) body() string {
	if q.value("Transfer-Encoding") != "" {
		return "0\r\n\r\n"
	}
	length, err := strconv.ParseInt(q.value("Content-Length"), 10, 64)
	if err != nil || length < 0 {
		return ""
	}
	return strings.Repeat("0", int(min(length, maxBody)))
}
