package jwks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/moat-gateway/moat/internal/token"
)

const maxBody = 1 << 20

// fetch gets the set, by way of discovery where that is configured.
func (c Config) fetch(ctx context.Context) (*loaded, error) {
	location := c.URL
	if c.Issuer != "" {
		var err error
		if location, err = c.discover(ctx); err != nil {
			return nil, fmt.Errorf("discovery: %w", err)
		}
	}
	body, maxAge, err := c.get(ctx, location)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	keys, err := token.ParseJWKS(body)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	set, err := token.NewKeySet(keys, c.Algorithms)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	l := &loaded{keys: set, ids: make(map[string]bool), count: len(keys), maxAge: maxAge}
	for _, k := range keys {
		l.ids[k.ID] = true
	}
	return l, nil
}

// discover reads the key set's URL from the discovery document (OpenID Connect
// Discovery 1.0 section 4).
func (c Config) discover(ctx context.Context) (string, error) {
	body, _, err := c.get(ctx, strings.TrimSuffix(c.Issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	var document struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(body, &document); err != nil {
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

// get reads a bounded body. Errors hold nothing that the server sent.
func (c Config) get(ctx context.Context, location string) ([]byte, time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return nil, 0, errors.New("the URL cannot be requested")
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	resp, err := c.Client.Do(req)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // Without the URL.
		}
		return nil, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, 0, err
	case len(body) > maxBody:
		return nil, 0, fmt.Errorf("more than %d bytes", maxBody)
	}
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err == nil && kind == "text/html" {
		return nil, 0, errors.New("an HTML page")
	}
	return body, maxAge(resp.Header.Get("Cache-Control")), nil
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
