package headers

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/internal/headers"
	"github.com/moat-gateway/moat/internal/headers/inline"
)

// inliner brings the inline code of a part of the site under its policy.
type inliner struct {
	mode   string
	pins   *pinFile // of pin
	max    int      // bytes that are held back
	config inline.Config
	// unstored says that the policy fills in no-store for known callers.
	unstored bool
	findings *findings
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

// isPage reports whether a browser asks for a page, by whatever method: a form that is
// shown again is one. What scripts fetch runs under the policy of the page that they
// stand in, which knows another nonce.
func isPage(r *http.Request) bool {
	if dest := r.Header.Get("Sec-Fetch-Dest"); dest != "" {
		return slices.Contains(destinations, dest)
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// send asks the upstream for a page that can be read, and brings its inline code under
// the policy. It stands between the site's own encode handler and the wire: what that
// one compresses has its nonces already.
func (s *settler) send(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	s.code = nil // An answer that was tried before may have had one.
	in := s.handler.inliners[s.policy()]
	if in == nil || s.shadow {
		return next(req)
	}
	asked := isPage(req)
	if asked {
		in.prepare(req)
	}
	resp, err := next(req)
	if err != nil || resp.StatusCode < http.StatusOK || !markup(resp) {
		return resp, err
	}
	vary(resp.Header)
	if asked && whole(resp.StatusCode) && !attached(resp.Header) {
		p := &page{inliner: in, path: s.exchange.Target.Path, known: s.exchange.Caller.Known(), resp: resp}
		s.code = p.serve(req.Method)
	}
	return resp, nil
}

// markup reports whether an answer is HTML, or says that HTML is still fresh: Not
// Modified need not name a type.
func markup(resp *http.Response) bool {
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "text/html", "application/xhtml+xml":
		return true
	case "":
		return resp.StatusCode == http.StatusNotModified
	}
	return false
}

// whole reports whether a page of its own follows.
func whole(status int) bool {
	switch status {
	case http.StatusNoContent, http.StatusPartialContent, http.StatusNotModified:
		return false
	}
	return true
}

// attached reports whether the answer is a file to be saved (RFC 6266), whose bytes are
// somebody's own.
func attached(h http.Header) bool {
	kind, _, _ := strings.Cut(h.Get("Content-Disposition"), ";")
	return strings.EqualFold(strings.TrimSpace(kind), "attachment")
}

// prepare makes the upstream answer in plain. A page that gets a nonce is another one
// each time: what a browser has stored is of no use. Other methods may have conditions
// of another sense, such as not to overwrite. A part of an answer is left to whoever
// asks for it: no page with a nonce has a validator that it could be joined by.
func (in *inliner) prepare(req *http.Request) {
	req.Header.Set("Accept-Encoding", "identity")
	if in.mode != modeHash && (req.Method == http.MethodGet || req.Method == http.MethodHead) {
		req.Header.Del("If-None-Match")
		req.Header.Del("If-Modified-Since")
	}
}

// page is an answer whose inline code is brought under the policy.
type page struct {
	*inliner
	path  string
	known bool // for a known caller
	resp  *http.Response
}

// serve returns the sources that allow the page's code.
func (p *page) serve(method string) *headers.Code {
	if method == http.MethodHead {
		return p.headOnly()
	}
	code, why := p.bring()
	if why != nil {
		p.findings.unreadable(p.path, why)
	}
	return code
}

// bring returns the sources that allow the page's code, and changes the page where that
// takes a nonce. Without sources none of it runs, and the error says why.
func (p *page) bring() (*headers.Code, error) {
	if err := decode(p.resp); err != nil {
		return nil, err
	}
	body := bufio.NewReaderSize(p.resp.Body, 4096)
	p.resp.Body = replay{body, p.resp.Body}
	_, err := body.Peek(3) // A mark of the encoding has no more bytes.
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil //nolint:nilerr // Whoever reads the body meets it.
	}
	first, _ := body.Peek(body.Buffered())
	charset, why := inline.Fit(strings.Join(p.resp.Header.Values("Content-Type"), ", "), first)
	if why != "" {
		return nil, errors.New(why)
	}
	if p.mode == modeHash {
		return p.hash(body, charset)
	}
	return p.nonce(body, charset)
}

// headOnly is what the answer to HEAD says in the place of the page's sources. Its
// header must be that of a page which is decoded.
func (p *page) headOnly() *headers.Code {
	if _, known := codings[coding(p.resp.Header)]; known {
		plain(p.resp)
	}
	if p.mode == modeHash {
		return nil
	}
	p.change(p.resp.Header)
	source := []string{"'nonce-" + inline.NewNonce() + "'"}
	return &headers.Code{Scripts: source, Styles: source}
}

// nonce lets the page stream by and gives its code a nonce.
func (p *page) nonce(body io.Reader, charset inline.Charset) (*headers.Code, error) {
	config := p.config
	config.Nonce, config.Charset = inline.NewNonce(), charset
	if p.pins != nil {
		config.Pins = p.pins.set
	}
	config.OnFinding = func(f inline.Finding) { p.findings.tell(p.path, f) }
	rewriter, err := inline.New(body, config)
	if err != nil {
		return nil, err
	}
	// The header loses its Content-Length; the number in resp.ContentLength stays, for the
	// proxy sends every piece of a body without one by itself, as if it were live.
	p.resp.Body = replay{rewriter, p.resp.Body}
	p.change(p.resp.Header)
	source := []string{"'nonce-" + config.Nonce + "'"}
	return &headers.Code{Scripts: source, Styles: source}, nil
}

// hash reads the page to its end and returns the hashes of its code. A page that is too
// long passes, and its code does not run.
func (p *page) hash(body io.Reader, charset inline.Charset) (*headers.Code, error) {
	text, err := io.ReadAll(io.LimitReader(body, int64(p.max)+1))
	p.resp.Body = replay{io.MultiReader(bytes.NewReader(text), body), p.resp.Body}
	if err != nil {
		return nil, fmt.Errorf("the page broke off: %w", err)
	}
	if len(text) > p.max {
		return nil, fmt.Errorf("the page has more than %d bytes", p.max)
	}
	hashes, found, err := inline.Hashes(bytes.NewReader(text), charset)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		p.findings.tell(p.path, f)
	}
	code := new(headers.Code)
	for _, hash := range hashes {
		if strings.HasPrefix(hash.String(), "style ") {
			code.Styles = append(code.Styles, hash.Source())
		} else {
			code.Scripts = append(code.Scripts, hash.Source())
		}
	}
	return code, nil
}

// replay reads from one and closes the other.
type replay struct {
	io.Reader
	io.Closer
}
