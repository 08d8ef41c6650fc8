package app

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/filewatch"
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
	watch  func() // nil when no file is watched
}

func (k *issuerKeys) start() {
	if k.remote != nil {
		k.remote.Start()
	}
	if k.watch != nil {
		k.watch()
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
	return a.fileKeys(i, location, place)
}

// fileKeys reads a key set file, which is watched from the start of the app to
// its Cleanup.
func (a *App) fileKeys(i *Issuer, path, place string) (*issuerKeys, error) {
	name := i.Name
	file, err := jwks.OpenFile(jwks.FileConfig{
		Path:       path,
		Algorithms: i.Algorithms,
		OnEvent:    func(e jwks.Event) { keyFileChanged(name, path, e) },
	})
	if err != nil {
		return nil, fmt.Errorf("%s: jwks: %w", place, err)
	}
	return &issuerKeys{source: file, watch: func() { a.look(file.Check) }}, nil
}

// look calls check every second until the app's Cleanup, while the app is the
// live one: another, which may still fail, must not report anything.
func (a *App) look(check func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	a.pooled = append(a.pooled, func() {
		close(done)
		<-ended
	})
	go func() {
		defer close(ended)
		tick := time.NewTicker(filewatch.Interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if live.Load() == a {
					check()
				}
			case <-done:
				return
			}
		}
	}()
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

// keysChanged makes a change of a remote key set known.
func keysChanged(issuer string, e jwks.Event) {
	log := logger().With(zap.String("issuer", issuer))
	switch {
	case e.Err == nil:
		logKeys(log, e)
	case e.Keys == 0:
		log.Error("fetching keys fails and there are none that may be used; tokens of the issuer get 503", zap.Error(e.Err))
	default:
		log.Warn("fetching keys failed; the last good set goes on serving", zap.Error(e.Err))
	}
	recordKeys(issuer, e)
}

// keyFileChanged makes a new content of a key set file known.
func keyFileChanged(issuer, path string, e jwks.Event) {
	log := logger().With(zap.String("issuer", issuer), zap.String("file", path))
	if e.Err != nil {
		log.Error("a changed key set file was refused; the old keys stay in force", zap.Error(e.Err))
	} else {
		logKeys(log, e)
	}
	recordKeys(issuer, e)
}

func logKeys(log *zap.Logger, e jwks.Event) {
	log.Info("the key set in force", zap.Int("keys", e.Keys),
		zap.Strings("added", few(e.Added)), zap.Strings("removed", few(e.Removed)))
}

// recordKeys writes the change into the trail, because it changes whose tokens
// count.
func recordKeys(issuer string, e jwks.Event) {
	if a := live.Load(); a != nil {
		e.Added, e.Removed = few(e.Added), few(e.Removed)
		a.trail.keys(issuer, e)
	}
}
