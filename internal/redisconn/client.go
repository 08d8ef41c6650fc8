package redisconn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// dialFloor is the least time a new connection gets. Dialing goes on in the
	// background when the call that needed it is over, for the next one to use.
	dialFloor = 200 * time.Millisecond
)

// New returns a client for the options. It dials nothing: the first call does,
// and a server that is away is found when it comes back.
//
// Every call on the client ends with its context's deadline. Nothing is tried a
// second time on an error, because a command that timed out may have been run;
// only a cluster client repeats a command once the cluster has moved its slot,
// or when a connection broke, within the same deadline.
//
// The library writes connection errors to standard error on its own, outside
// every log configuration. New turns that off, which concerns the whole
// process, for the errors are returned by the calls anyway.
func New(o Options) (redis.UniversalClient, error) {
	t, err := o.parse()
	if err != nil {
		return nil, err
	}
	conf, err := o.tlsConfig(t)
	if err != nil {
		return nil, err
	}
	redis.SetLogger(silent{})
	return redis.NewUniversalClient(o.universal(t, conf)), nil
}

// universal sets every knob whose default would break a time budget: with them
// a call to a stopped server takes five seconds, context or not.
func (o Options) universal(t target, conf *tls.Config) *redis.UniversalOptions {
	timeout := o.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	u := &redis.UniversalOptions{
		Addrs:            t.addrs,
		DB:               t.db,
		Username:         t.username,
		Password:         t.password,
		MasterName:       t.master,
		SentinelUsername: o.SentinelUsername,
		SentinelPassword: o.SentinelPassword,
		IsClusterMode:    t.kind == cluster,
		TLSConfig:        conf,

		ContextTimeoutEnabled: true,
		ReadTimeout:           timeout,
		WriteTimeout:          timeout,
		PoolTimeout:           timeout,
		DialTimeout:           max(dialFloor, timeout),
		DialerRetries:         1,
		MaxRetries:            -1,
		MinRetryBackoff:       time.Millisecond,
		MaxRetryBackoff:       8 * time.Millisecond,
		PoolSize:              o.PoolSize,
		// Not MinIdleConns: that would dial at once, also when a configuration is
		// only checked.

		// Neither is needed, and both ask a user for more rights.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	switch t.kind {
	case cluster:
		u.Dialer = unrepeated(&redis.Options{DialTimeout: u.DialTimeout, TLSConfig: conf})
	case sentinel:
		// Dialing begins with a question to the sentinel. One that hangs is left for
		// another only if its time runs out before that of dialing does.
		u.DialTimeout = max(dialFloor, 2*timeout)
	}
	return u
}

func (o Options) tlsConfig(t target) (*tls.Config, error) {
	if !t.tls {
		return nil, nil
	}
	conf := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         o.ServerName,
		InsecureSkipVerify: o.InsecureSkipVerify, //nolint:gosec // The setting is named for it.
	}
	var errs []error
	if o.CAFile != "" {
		pool, err := readPool(o.CAFile)
		conf.RootCAs = pool
		errs = append(errs, err)
	}
	if o.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			err = fmt.Errorf("redis: client certificate: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
		errs = append(errs, err)
	}
	return conf, errors.Join(errs...)
}

func readPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file) //nolint:gosec // The operator names the file.
	if err != nil {
		return nil, fmt.Errorf("redis: ca file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("redis: ca file %q: holds no certificate", file)
	}
	return pool, nil
}

// silent is a logger that says nothing.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}
