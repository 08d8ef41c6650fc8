package headers

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/telemetry"
	"github.com/moat-gateway/moat/internal/headers"
	"github.com/moat-gateway/moat/internal/headers/inline"
)

// inliner brings the inline code of a part of the site under its policy.
type inliner struct {
	mode   string
	pins   *pinFile // of pin
	max    int      // bytes that are held back
	config inline.Config
	logger *zap.Logger
}

// The ways to bring inline code under the policy.
const (
	modeNonce = "nonce"
	modeHash  = "hash"
	modePin   = "pin"
)

// destinations are what a request may be for whose answer is a page of its own (Fetch,
// "destination").
var destinations = []string{"document", "iframe", "frame", "embed", "object", "fencedframe"}

// isPage reports whether a browser asks for a page. What scripts fetch runs under the
// policy of the page that they stand in, which knows another nonce.
func isPage(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if dest := r.Header.Get("Sec-Fetch-Dest"); dest != "" {
		return slices.Contains(destinations, dest)
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// send asks the upstream for a page that can be read, and brings its inline code under
// the policy. It stands between the site's own encode handler and the wire: what that
// one compresses has its nonces already.
func (s *settler) send(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	in := s.handler.inliners[s.policy()]
	if in == nil || s.shadow || !isPage(req) {
		return next(req)
	}
	in.prepare(req)
	resp, err := next(req)
	if err != nil || resp.StatusCode < http.StatusOK || !isHTML(resp.Header.Get("Content-Type")) {
		return resp, err
	}
	switch resp.StatusCode {
	case http.StatusNoContent, http.StatusPartialContent, http.StatusNotModified:
		return resp, nil
	}
	code, why := in.bring(req, resp)
	if why != nil {
		in.logger.Warn("the inline code of a page cannot be brought under the policy, and will not run",
			zap.String("mode", in.mode), zap.String("path", s.exchange.Target.Path), zap.Error(why))
		telemetry.Inline.WithLabelValues("unreadable").Inc()
	}
	s.code = code
	return resp, nil
}

func isHTML(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	return kind == "text/html" || kind == "application/xhtml+xml"
}

// prepare makes the upstream answer with the whole page, in plain. A page that gets a
// nonce is another one each time: what a browser has stored is of no use.
func (in *inliner) prepare(req *http.Request) {
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Del("Range")
	req.Header.Del("If-Range")
	if in.mode != modeHash {
		req.Header.Del("If-None-Match")
		req.Header.Del("If-Modified-Since")
	}
}

// bring returns the sources that allow the page's code, and changes the page where that
// takes a nonce. Without sources none of it runs, and the error says why.
func (in *inliner) bring(req *http.Request, resp *http.Response) (*headers.Code, error) {
	if req.Method == http.MethodHead {
		resp.Header.Del("Content-Encoding")
		in.change(resp.Header)
		return in.headOnly(), nil
	}
	if err := decode(resp); err != nil {
		return nil, err
	}
	page := bufio.NewReaderSize(resp.Body, 4096)
	_, err := page.Peek(3) // A mark of the encoding has no more bytes.
	if err != nil && !errors.Is(err, io.EOF) {
		resp.Body = replay{page, resp.Body}
		return nil, nil //nolint:nilerr // Whoever reads the body meets it.
	}
	first, _ := page.Peek(page.Buffered())
	if ok, why := inline.Fit(resp.Header.Get("Content-Type"), first); !ok {
		resp.Body = replay{page, resp.Body}
		return nil, errors.New(why)
	}
	if in.mode == modeHash {
		return in.hash(resp, page)
	}
	return in.nonce(resp, page)
}

// headOnly is what the answer to HEAD says in the place of the page's sources.
func (in *inliner) headOnly() *headers.Code {
	if in.mode == modeHash {
		return nil
	}
	source := []string{"'nonce-" + inline.NewNonce() + "'"}
	return &headers.Code{Scripts: source, Styles: source}
}

// nonce lets the page stream by and gives its code a nonce.
func (in *inliner) nonce(resp *http.Response, page io.Reader) (*headers.Code, error) {
	config := in.config
	config.Nonce = inline.NewNonce()
	if in.pins != nil {
		config.Pins = in.pins.set
	}
	config.OnFinding = in.found(resp.Request)
	rewriter, err := inline.New(page, config)
	if err != nil {
		resp.Body = replay{page, resp.Body}
		return nil, err
	}
	resp.Body = replay{rewriter, resp.Body}
	in.change(resp.Header)
	resp.ContentLength = -1
	source := []string{"'nonce-" + config.Nonce + "'"}
	return &headers.Code{Scripts: source, Styles: source}, nil
}

// stale are the headers that speak of the page as the upstream sent it.
var stale = []string{
	"Content-Length", "Etag", "Last-Modified", "Accept-Ranges", "Content-Md5", "Digest", "Content-Digest", "Repr-Digest", "Expires", "Age",
}

// change makes the header that of a page with a nonce: it is nobody's who asks again.
func (in *inliner) change(h http.Header) {
	if in.mode == modeHash {
		return
	}
	for _, name := range stale {
		h.Del(name)
	}
	if values := h.Values("Cache-Control"); len(values) > 0 && !strings.Contains(strings.ToLower(strings.Join(values, ",")), "no-store") {
		h.Set("Cache-Control", "private, no-cache")
	}
}

// found counts what neither a nonce nor a hash covers.
func (in *inliner) found(req *http.Request) func(inline.Finding) {
	return func(f inline.Finding) {
		telemetry.Inline.WithLabelValues(f.Kind.String()).Inc()
		if c := in.logger.Check(zap.InfoLevel, "a page has code that neither a nonce nor a hash allows"); c != nil {
			path := ""
			if req != nil {
				path = req.URL.Path
			}
			c.Write(zap.Stringer("kind", f.Kind), zap.String("path", path), zap.String("element", f.Element),
				zap.String("attribute", f.Attribute), zap.Int64("offset", f.Offset))
		}
	}
}

// replay reads from one and closes the other.
type replay struct {
	io.Reader
	io.Closer
}
