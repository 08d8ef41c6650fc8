package jwks

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	maxBody = 1 << 20
	maxETag = 256
)

// fetched is a set as a key server gave it.
type fetched struct {
	*loaded
	at       time.Time
	maxAge   time.Duration
	location string
	etag     string
}

// fetch gets the set, by way of discovery where that is configured. Before is
// the set that was fetched last, or nil.
func (c Config) fetch(ctx context.Context, before *fetched) (*fetched, error) {
	next := &fetched{location: c.URL}
	if c.Issuer != "" {
		var err error
		if next.location, err = c.discover(ctx); err != nil {
			return nil, fmt.Errorf("discovery: %w", err)
		}
	}
	etag := ""
	if before != nil && before.location == next.location {
		etag = before.etag
	}
	a, err := c.get(ctx, next.location, etag)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	next.maxAge, next.etag = a.maxAge, a.etag
	if a.unchanged {
		next.loaded, next.etag = before.loaded, etag
		return next, nil
	}
	if next.loaded, err = load(a.body, c.Algorithms); err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	return next, nil
}

// discover reads the key set's URL from the discovery document (OpenID Connect
// Discovery 1.0 section 4).
func (c Config) discover(ctx context.Context) (string, error) {
	a, err := c.get(ctx, strings.TrimSuffix(c.Issuer, "/")+"/.well-known/openid-configuration", "")
	if err != nil {
		return "", err
	}
	var document struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(a.body, &document); err != nil {
		return "", errors.New("the document is no JSON object")
	}
	if document.Issuer != c.Issuer {
		// Section 4.3: anything else would let one issuer pose as another.
		return "", errors.New("the document names another issuer")
	}
	if err := c.checkURL(document.JWKS); err != nil {
		return "", fmt.Errorf("jwks_uri: %w", err)
	}
	return document.JWKS, nil
}

// answer is what a server said, within bounds.
type answer struct {
	body      []byte
	maxAge    time.Duration
	etag      string
	unchanged bool // since the etag that was sent
}

// get reads a bounded body. Errors hold nothing that the server sent.
func (c Config) get(ctx context.Context, location, etag string) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return nil, errors.New("the URL cannot be requested")
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	resp, err := c.Client.Do(req)
	if err != nil {
		return nil, why(err)
	}
	defer func() { _ = resp.Body.Close() }()
	a := &answer{maxAge: maxAge(resp.Header.Get("Cache-Control"))}
	if a.unchanged = etag != "" && resp.StatusCode == http.StatusNotModified; a.unchanged {
		return a, nil
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err == nil && kind == "text/html" {
		return nil, errors.New("an HTML page")
	}
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, why(err)
	case len(a.body) > maxBody:
		return nil, fmt.Errorf("more than %d bytes", maxBody)
	}
	if tag := resp.Header.Get("ETag"); len(tag) <= maxETag {
		a.etag = tag
	}
	return a, nil
}

// why is an error of the HTTP client without what may be secret in it, the URL,
// and without bytes of the answer, which it quotes where they are not HTTP.
func why(err error) error {
	var dial *net.OpError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, errTooManyRedirects):
		return errTooManyRedirects
	case errors.Is(err, errOtherHost):
		return errOtherHost
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("no whole answer in time")
	case errors.As(err, &certificate):
		return certificate
	case errors.As(err, &dial):
		return dial
	}
	return errors.New("no valid answer")
}

// maxAge is the freshness that the server states, or zero.
func maxAge(cacheControl string) time.Duration {
	for directive := range strings.SplitSeq(cacheControl, ",") {
		text, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(directive)), "max-age=")
		if !ok {
			continue
		}
		seconds, err := strconv.ParseUint(strings.Trim(text, `"`), 10, 31)
		if err == nil {
			return time.Duration(seconds) * time.Second
		}
	}
	return 0
}
