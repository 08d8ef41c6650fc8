package denial

import (
	"net/http"
	"net/url"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Answers runs the server's error routes for errors that reach the outermost
// Moat handler, inside Moat's own response writers. Left to Caddy they would
// run outside of them: a page that an error route proxies would carry the
// upstream's headers beside ours, and its size would not be counted. What no
// error route answers, Moat does.
type Answers struct {
	chains sync.Map // *caddyhttp.Server -> caddyhttp.Handler; as many as there are servers
}

// Answer writes the answer for err to w. The error it returns, if any, is what
// an error route itself failed with.
func (a *Answers) Answer(w http.ResponseWriter, r *http.Request, err error) error {
	srv, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || srv == nil || srv.Errors == nil || len(srv.Errors.Routes) == 0 {
		Write(w, r, Status(err), err)
		return nil
	}
	restore(r)
	return a.chain(srv).ServeHTTP(w, srv.Errors.WithError(r, err))
}

func (a *Answers) chain(srv *caddyhttp.Server) caddyhttp.Handler {
	if c, ok := a.chains.Load(srv); ok {
		return c.(caddyhttp.Handler)
	}
	c, _ := a.chains.LoadOrStore(srv, srv.Errors.Routes.Compile(caddyhttp.HandlerFunc(lastResort)))
	return c.(caddyhttp.Handler)
}

// lastResort stands after all error routes.
func lastResort(w http.ResponseWriter, r *http.Request) error {
	err, _ := r.Context().Value(caddyhttp.ErrorCtxKey).(error)
	Write(w, r, Status(err), err)
	return nil
}

// restore gives the error routes the request as it came in, as Caddy does.
func restore(r *http.Request) {
	orig, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if !ok {
		return
	}
	r.Method, r.RemoteAddr, r.RequestURI = orig.Method, orig.RemoteAddr, orig.RequestURI
	if orig.URL != nil {
		u := *orig.URL
		if u.User != nil {
			user := url.Userinfo(*u.User)
			u.User = &user
		}
		*r.URL = u
	}
}
