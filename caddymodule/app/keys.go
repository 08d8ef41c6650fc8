package app

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/token"
	"github.com/moat-gateway/moat/internal/token/jwks"
)

// keySets are the remote key sets. They survive reloads, so that a reload
// fetches nothing and an identity provider that is down at that moment does no
// harm.
var keySets = caddy.NewUsagePool()

// issuerKeys is one issuer's configuration and where its keys come from.
type issuerKeys struct {
	config token.Config
	source token.KeySource
	remote *sharedKeys
}

func (k *issuerKeys) start() {
	if k.remote != nil {
		k.remote.Start()
	}
}

// openKeys makes the key source. Exactly one must be configured.
func (a *App) openKeys(i *Issuer, c token.Config, place string) (*issuerKeys, error) {
	sources := 0
	for _, given := range []bool{i.Discovery, i.JWKS != "", len(i.Key) > 0, len(i.Secret) > 0} {
		if given {
			sources++
		}
	}
	if sources != 1 {
		return nil, fmt.Errorf("%s: has %d key sources; exactly one of discovery, jwks, key and secret is required", place, sources)
	}
	switch {
	case len(i.Key) > 0:
		files, err := dispense.ExpandAll(place+": key", i.Key)
		if err != nil {
			return nil, err
		}
		keys, err := readKeys(place, files)
		if err != nil {
			return nil, err
		}
		return static(place, keys, i.Algorithms)
	case len(i.Secret) > 0:
		return secretKeys(i, place)
	case i.Discovery:
		if len(c.Issuers) != 1 {
			return nil, fmt.Errorf("%s: discovery needs exactly one iss, got %d", place, len(c.Issuers))
		}
		return a.remoteKeys(i, jwks.Config{Issuer: c.Issuers[0]}, place)
	}
	location, err := dispense.Expand(place+": jwks", i.JWKS)
	if err != nil {
		return nil, err
	}
	if strings.Contains(location, "://") {
		return a.remoteKeys(i, jwks.Config{URL: location}, place)
	}
	data, err := os.ReadFile(location) //nolint:gosec // The operator's own configuration names it.
	if err != nil {
		return nil, fmt.Errorf("%s: jwks: %w", place, err)
	}
	keys, err := token.ParseJWKS(data)
	if err != nil {
		return nil, fmt.Errorf("%s: jwks %q: %w", place, location, err)
	}
	set, err := token.NewKeySet(keys, i.Algorithms)
	if err != nil {
		return nil, fmt.Errorf("%s: jwks %q: %w", place, location, err)
	}
	return &issuerKeys{source: set}, nil
}

func static(place string, keys []token.Key, algorithms []string) (*issuerKeys, error) {
	source, err := token.NewStaticKeys(keys, algorithms)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	return &issuerKeys{source: source}, nil
}

func secretKeys(i *Issuer, place string) (*issuerKeys, error) {
	secrets, err := dispense.ExpandAll(place+": secret", i.Secret)
	if err != nil {
		return nil, err
	}
	var keys []token.Key
	var errs []error
	for n, secret := range secrets {
		key, err := token.NewSecret([]byte(secret), "")
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: secret %d: %w", place, n+1, err))
			continue
		}
		keys = append(keys, key)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return static(place, keys, i.Algorithms)
}

// sharedKeys is a remote key set in the pool.
type sharedKeys struct{ *jwks.Source }

// Destruct ends the set's fetching. Requests that still use it get its last
// keys.
func (s *sharedKeys) Destruct() error { return s.Close() }

func (a *App) remoteKeys(i *Issuer, c jwks.Config, place string) (*issuerKeys, error) {
	name := i.Name
	c.Name = name
	c.Algorithms = i.Algorithms
	c.Timeout = time.Duration(i.Timeout)
	c.MaxStale = time.Duration(i.MaxStale)
	c.InsecureHTTP = i.InsecureHTTPJWKS
	c.OnEvent = func(e jwks.Event) { keysChanged(name, e) }
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	remote, err := hold(a, keySets, c.Key(), func() (*sharedKeys, error) {
		source, err := jwks.New(c)
		return &sharedKeys{source}, err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	return &issuerKeys{source: remote, remote: remote}, nil
}

// keysChanged makes a change of a key set known: to the trail, because it
// changes whose tokens count, and to the log.
func keysChanged(issuer string, e jwks.Event) {
	if e.Err != nil {
		logger().Warn("fetching keys failed; the last good set goes on serving",
			zap.String("issuer", issuer), zap.Error(e.Err))
	} else {
		logger().Info("the key set changed", zap.String("issuer", issuer), zap.Int("keys", e.Keys))
	}
	if a := live.Load(); a != nil {
		a.trail.keys(issuer, e)
	}
}
