package webhook

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	secretPrefix = "whsec_" //nolint:gosec // the mark of a secret, not one
	minSecret    = 24
	maxSecret    = 1024
	maxSecrets   = 8
)

// Config is what New needs. URL and at least one secret are required.
type Config struct {
	// Where to post, https only; http is accepted for the loopback interface.
	// No user or password may stand in it.
	URL string
	// Keys of the signatures: "whsec_" and base64, or any text of at least 24
	// bytes taken as it stands. With several, each delivery carries a
	// signature by each, so that a receiver can change its key at leisure.
	Secrets []string
	// Budget of one delivery, until the answer has been read. Default: 10 s.
	Timeout time.Duration
	// Client whose transport is used, for tests and private certificate
	// authorities. It is copied, and redirects are never followed. Default: a
	// client of the sink's own with TLS 1.2 at least.
	Client *http.Client
	// Clock for timestamps. Default: time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// checkURL never repeats the URL: its query may hold a token.
func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return errors.New("webhook: url: is empty: must be given")
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return errors.New("webhook: url: is none: must be like https://host/path")
	case u.User != nil:
		return errors.New("webhook: url: has a user or password: must have none, the signature proves the sender")
	case u.Scheme == "http" && isLoopback(u.Hostname()), u.Scheme == "https":
		return nil
	}
	return fmt.Errorf("webhook: url: scheme %q: must be https, or http to the loopback interface", u.Scheme)
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// keysOf decodes the secrets. Errors name a secret by its place only.
func keysOf(secrets []string) ([][]byte, error) {
	var errs []error
	if len(secrets) == 0 || len(secrets) > maxSecrets {
		errs = append(errs, fmt.Errorf("webhook: %d secrets: must be between 1 and %d", len(secrets), maxSecrets))
	}
	var keys [][]byte
	for i, secret := range secrets {
		key, err := keyOf(secret)
		if err != nil {
			errs = append(errs, fmt.Errorf("webhook: secret %d: %w", i+1, err))
		}
		keys = append(keys, key)
	}
	return keys, errors.Join(errs...)
}

func keyOf(secret string) ([]byte, error) {
	key := []byte(secret)
	if encoded, ok := strings.CutPrefix(secret, secretPrefix); ok {
		var err error
		if key, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(encoded, "=")); err != nil {
			return nil, errors.New("what follows whsec_ is no base64")
		}
	}
	if len(key) < minSecret || len(key) > maxSecret {
		return nil, fmt.Errorf("has %d bytes: must have between %d and %d", len(key), minSecret, maxSecret)
	}
	return key, nil
}
