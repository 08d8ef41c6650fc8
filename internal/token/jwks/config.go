package jwks

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	defaultTimeout  = 2 * time.Second
	mostTimeout     = 30 * time.Second
	defaultMaxStale = 24 * time.Hour
	maxRedirects    = 3
)

var (
	errTooManyRedirects = errors.New("too many redirects")
	errOtherHost        = errors.New("redirected to another host")
)

// Config says where a remote key set is and how it is kept.
type Config struct {
	// Name of the issuer, for errors.
	Name string
	// URL of the key set. Either this or Issuer.
	URL string
	// Issuer is the issuer identifier; the key set's URL is taken from its
	// OpenID Connect discovery document, whose issuer must equal it exactly.
	Issuer string
	// Algorithms that the keys may be bound to. Empty: what each key allows.
	Algorithms []string
	// Timeout is the budget of one fetch, discovery included. Zero means 2 s; at
	// most 30 s.
	Timeout time.Duration
	// MaxStale is how long the last good set serves while fetching fails. Zero
	// means 24 h.
	MaxStale time.Duration
	// InsecureHTTP admits URLs without TLS.
	InsecureHTTP bool
	// Client fetches. Default: one of its own, without cookies, which follows
	// redirects on the same host only.
	Client *http.Client
	// Now tells the time. Default: time.Now.
	Now func() time.Time
	// OnEvent is told when the set changed, when fetching began to fail, when
	// the last good set became too old meanwhile and when fetching works again.
	// It may be nil.
	OnEvent func(Event)
}

// Validate returns everything that is wrong with the values, joined.
func (c Config) Validate() error {
	var errs []error
	if (c.URL == "") == (c.Issuer == "") {
		errs = append(errs, errors.New("jwks: needs either the URL of a key set or an issuer to discover it at"))
	}
	for word, text := range map[string]string{"jwks": c.URL, "iss": c.Issuer} {
		if text != "" {
			if err := c.checkURL(text); err != nil {
				errs = append(errs, fmt.Errorf("%s %q: %w", word, redacted(text), err))
			}
		}
	}
	if strings.ContainsAny(c.Issuer, "?#") {
		errs = append(errs, errors.New("iss: discovery needs an issuer without query and fragment"))
	}
	if c.Timeout < 0 || c.Timeout > mostTimeout {
		errs = append(errs, fmt.Errorf("timeout %s: must be positive and at most %s", c.Timeout, mostTimeout))
	}
	if c.MaxStale < 0 {
		errs = append(errs, fmt.Errorf("max_stale %s: must be positive", c.MaxStale))
	}
	return errors.Join(errs...)
}

func (c Config) checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return errors.New("must be a URL")
	case u.User != nil:
		return errors.New("must not hold credentials")
	case u.Scheme == "https", u.Scheme == "http" && c.InsecureHTTP:
		return nil
	case u.Scheme == "http":
		return errors.New("must be https (insecure_http_jwks allows http)")
	}
	return errors.New("must be https")
}

// redacted is a URL without what may be secret in it.
func redacted(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "…"
	}
	if u.Opaque != "" {
		return u.Scheme + ":…" // It was not taken apart; a password may be in it.
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// Key identifies what a source is made from: two configurations with the same
// key may share one.
func (c Config) Key() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %s %s %t",
		c.Name, c.URL, c.Issuer, c.Algorithms, c.Timeout, c.MaxStale, c.InsecureHTTP))
	return hex.EncodeToString(sum[:])
}

func (c Config) withDefaults() Config {
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.MaxStale == 0 {
		c.MaxStale = defaultMaxStale
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Client == nil {
		c.Client = newClient()
	}
	client := *c.Client
	client.CheckRedirect = c.redirect
	c.Client = &client
	return c
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    2 * time.Second,
		MaxIdleConns:           2,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
	}}
}

// redirect stays on the host that was configured: whoever controls another one
// must not be able to hand out keys.
func (c Config) redirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return errTooManyRedirects
	}
	first := via[0].URL
	if !strings.EqualFold(req.URL.Host, first.Host) || req.URL.Scheme != first.Scheme {
		return errOtherHost
	}
	return nil
}
