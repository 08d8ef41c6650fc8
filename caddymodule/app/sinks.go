package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/caddymodule/internal/telemetry"
	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/journal"
	"github.com/moat-gateway/moat/internal/audit/sinks/postgres"
	"github.com/moat-gateway/moat/internal/audit/sinks/redisstream"
	"github.com/moat-gateway/moat/internal/audit/sinks/stdout"
	"github.com/moat-gateway/moat/internal/audit/sinks/webhook"
)

// followers are the running sinks.
var followers = caddy.NewUsagePool()

// lastWords is how long a sink may go on delivering when the process ends.
const lastWords = 2 * time.Second

// follower is a sink that reads the journal at its own pace.
type follower struct {
	*follow.Follower
	sink   follow.Sink
	once   sync.Once
	cancel context.CancelFunc
	ended  chan struct{}
}

// follow makes a follower for each sink, or takes over the one that runs.
func (a *App) follow(config journal.Config, sinks []*Sink) ([]*follower, error) {
	var out []*follower
	var errs []error
	seen := make(map[string]bool)
	for _, s := range sinks {
		place := "audit: sink " + s.Type
		target, open, err := a.openSink(s, place)
		if err != nil || open == nil {
			errs = append(errs, err)
			continue
		}
		// The place in the journal belongs to where the events go, not to how:
		// a rotated secret must not start over.
		id := digest(s.Type, target)
		if seen[id] {
			errs = append(errs, fmt.Errorf("%s: the same target stands twice", place))
			continue
		}
		seen[id] = true
		cursor := filepath.Join(config.Dir, "cursors", s.Type+"-"+id[:12])
		key := strings.Join(append([]string{config.Dir, s.Type, target}, s.Secret...), "\x00")
		f, err := hold(a, followers, digest(key), func() (*follower, error) {
			return newFollower(s.Type, config.Dir, cursor, open)
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", place, err))
			continue
		}
		out = append(out, f)
	}
	return out, errors.Join(errs...)
}

// openSink checks a sink's settings. Target is what tells two sinks apart.
func (a *App) openSink(s *Sink, place string) (target string, open func() (follow.Sink, error), err error) {
	switch s.Type {
	case sinkStdout:
		return "", func() (follow.Sink, error) { return stdout.New(os.Stdout), nil }, nil
	case sinkRedis:
		key, err := dispense.Expand(place+": key", s.Key)
		switch {
		case err != nil:
			return "", nil, err
		case a.Redis == nil:
			return "", nil, fmt.Errorf("%s: needs the redis block", place)
		case a.limiter.redis == nil:
			return "", nil, nil // The redis block has an error of its own.
		}
		client := a.limiter.redis.client
		return key, func() (follow.Sink, error) {
			return redisstream.New(client, redisstream.Config{Key: key})
		}, nil
	case sinkWebhook:
		url, err := dispense.Expand(place+": url", s.URL)
		secrets, secretErr := dispense.ExpandAll(place+": secret", s.Secret)
		if err := errors.Join(err, secretErr); err != nil {
			return "", nil, err
		}
		return url, func() (follow.Sink, error) {
			return webhook.New(webhook.Config{URL: url, Secrets: secrets})
		}, nil
	case sinkPostgres:
		dsn, err := dispense.Expand(place+": dsn", s.DSN)
		if err != nil {
			return "", nil, err
		}
		return dsn, func() (follow.Sink, error) { return postgres.New(postgres.Config{DSN: dsn}) }, nil
	}
	return "", nil, fmt.Errorf("%s: unknown; must be %s, %s, %s or %s", place, sinkStdout, sinkRedis, sinkWebhook, sinkPostgres)
}

func newFollower(kind, dir, cursor string, open func() (follow.Sink, error)) (*follower, error) {
	sink, err := open()
	if err != nil {
		return nil, err
	}
	f, err := follow.New(follow.Config{
		Dir: dir, Cursor: cursor, Sink: sink,
		OnState: func(s follow.State) { reportSink(kind, s) },
	})
	if err != nil {
		return nil, errors.Join(err, sink.Close())
	}
	telemetry.WatchSink(kind, func() uint64 { n, _ := f.Lag(); return n })
	return &follower{Follower: f, sink: sink, ended: make(chan struct{})}, nil
}

func (f *follower) start() {
	f.once.Do(func() {
		ctx, cancel := context.WithCancel(context.Background())
		f.cancel = cancel
		go func() {
			defer close(f.ended)
			_ = f.Run(ctx) // It ends with the context; trouble is told through OnState.
		}()
	})
}

// Destruct ends the follower. When the process ends, it first gets a moment to
// deliver what the journal wrote last.
func (f *follower) Destruct() error {
	started := true
	f.once.Do(func() { started = false; close(f.ended) })
	if started {
		if caddy.Exiting() {
			for deadline := time.Now().Add(lastWords); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
				f.Wake()
				if lag, _ := f.Lag(); lag == 0 {
					break
				}
			}
		}
		f.cancel()
	}
	<-f.ended
	return f.sink.Close()
}

// reportSink logs what changed about a sink.
func reportSink(kind string, s follow.State) {
	a := live.Load()
	if a == nil {
		return
	}
	fields := []zap.Field{
		zap.String("sink", kind), zap.Uint64("lag", s.Lag), zap.Uint64("failures", s.Failures),
		zap.Uint64("lost", s.Lost), zap.Uint64("set_aside", s.SetAside),
	}
	switch {
	case s.Failures == 0 && s.CursorError == "":
		a.logger.Info("audit sink delivers", fields...)
	case s.Failures <= 1 || s.CursorError != "":
		a.logger.Warn("audit sink fails; the journal keeps the events",
			append(fields, zap.String("error", s.LastError), zap.String("cursor_error", s.CursorError))...)
	}
}

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])
}
