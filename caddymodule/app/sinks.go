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
	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/journal"
	"github.com/moat-gateway/moat/internal/audit/sinks/postgres"
	"github.com/moat-gateway/moat/internal/audit/sinks/redisstream"
	"github.com/moat-gateway/moat/internal/audit/sinks/stdout"
	"github.com/moat-gateway/moat/internal/audit/sinks/webhook"
)

// followers are the running sinks.
var followers = caddy.NewUsagePool()

// lastWords is how long all sinks together may go on delivering when the
// process ends.
const lastWords = 2 * time.Second

// lastMoment is when they must have ended. It is asked for when the process
// ends, by the first sink, and counts for all: those that are away must not
// hold up the end one after the other.
var lastMoment = sync.OnceValue(func() time.Time { return time.Now().Add(lastWords) })

// follower is a sink that reads the journal at its own pace.
type follower struct {
	*follow.Follower
	kind   string
	id     string
	sink   follow.Sink
	once   sync.Once
	newest func() uint64
	cancel context.CancelFunc
	ended  chan struct{}
}

// target is where a sink's events go and how.
type target struct {
	// place is what tells two sinks of one type apart.
	place string
	// means is what else the sink is made with: a change of it needs another
	// sink, which goes on where the one before was.
	means []string
	open  func() (follow.Sink, error)
}

// follow makes a follower for each sink, or takes over the one that runs.
func (a *App) follow(config journal.Config, sinks []*Sink) ([]*follower, error) {
	var out []*follower
	var errs []error
	seen := make(map[string]bool)
	for _, s := range sinks {
		place := "audit: sink " + s.Type
		to, err := a.target(s, place)
		if err != nil || to.open == nil {
			errs = append(errs, err)
			continue
		}
		// The place in the journal belongs to where the events go, not to how:
		// a rotated secret must not start over.
		id := digest(s.Type, to.place)
		if seen[id] {
			errs = append(errs, fmt.Errorf("%s: the same target stands twice", place))
			continue
		}
		seen[id] = true
		key := digest(append([]string{config.Dir, s.Type, to.place}, to.means...)...)
		f, err := hold(a, followers, key, func() (*follower, error) {
			return newFollower(config.Dir, s.Type, id, to.open)
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", place, err))
			continue
		}
		out = append(out, f)
	}
	return out, errors.Join(errs...)
}

// target checks a sink's settings. It has no open when another part of the
// configuration, which has an error of its own, is missing.
func (a *App) target(s *Sink, place string) (target, error) {
	switch s.Type {
	case sinkStdout:
		return target{open: func() (follow.Sink, error) { return stdout.New(os.Stdout), nil }}, nil
	case sinkRedis:
		return a.redisTarget(s, place)
	case sinkWebhook:
		url, err := dispense.Expand(place+": url", s.URL)
		secrets, secretErr := dispense.ExpandAll(place+": secret", s.Secret)
		return target{place: url, means: secrets, open: func() (follow.Sink, error) {
			return webhook.New(webhook.Config{URL: url, Secrets: secrets})
		}}, errors.Join(err, secretErr)
	case sinkPostgres:
		dsn, err := dispense.Expand(place+": dsn", s.DSN)
		return target{place: dsn, open: func() (follow.Sink, error) {
			return postgres.New(postgres.Config{DSN: dsn})
		}}, err
	}
	return target{}, fmt.Errorf("%s: unknown; must be %s, %s, %s or %s", place, sinkStdout, sinkRedis, sinkWebhook, sinkPostgres)
}

// redisTarget delivers through the client of the redis block and cannot outlive
// it.
func (a *App) redisTarget(s *Sink, place string) (target, error) {
	key, err := dispense.Expand(place+": key", s.Key)
	switch {
	case err != nil:
		return target{}, err
	case a.Redis == nil:
		return target{}, fmt.Errorf("%s: needs the redis block", place)
	case a.limiter.redis == nil:
		return target{}, nil
	}
	shared := a.limiter.redis
	return target{place: key, means: []string{shared.key}, open: func() (follow.Sink, error) {
		return redisstream.New(shared.client, redisstream.Config{Key: key})
	}}, nil
}

func newFollower(dir, kind, id string, open func() (follow.Sink, error)) (*follower, error) {
	sink, err := open()
	if err != nil {
		return nil, err
	}
	f := &follower{kind: kind, id: id, sink: sink, ended: make(chan struct{})}
	f.Follower, err = follow.New(follow.Config{
		Dir: dir, Cursor: filepath.Join(dir, "cursors", kind+"-"+id[:12]), Sink: sink,
		OnState: f.report,
	})
	if err != nil {
		return nil, errors.Join(err, sink.Close())
	}
	return f, nil
}

// labels are the names of one configuration's sinks in the metrics: the type
// alone where that tells them apart.
func labels(followers []*follower) []string {
	count := make(map[string]int)
	for _, f := range followers {
		count[f.kind]++
	}
	out := make([]string, len(followers))
	for n, f := range followers {
		out[n] = f.kind
		if count[f.kind] > 1 {
			out[n] += "-" + f.id[:6]
		}
	}
	return out
}

// start runs the follower if it does not run yet. Newest is the number of the
// journal's last event.
func (f *follower) start(newest func() uint64) {
	f.once.Do(func() {
		ctx, cancel := context.WithCancel(context.Background())
		f.newest, f.cancel = newest, cancel
		go func() {
			defer close(f.ended)
			_ = f.Run(ctx) // It ends with the context; trouble is told through OnState.
		}()
	})
}

// Destruct ends the follower. When the process ends, it first gets a moment to
// deliver what the journal wrote last.
func (f *follower) Destruct() error {
	f.once.Do(func() { f.cancel = func() {}; close(f.ended) }) // It was never started.
	if caddy.Exiting() {
		f.finish(lastMoment())
	}
	f.cancel()
	<-f.ended
	return f.sink.Close()
}

// finish waits until the sink has got everything, has ended, or time is up.
func (f *follower) finish(deadline time.Time) {
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for time.Now().Before(deadline) && f.newest != nil && f.Position() < f.newest() {
		f.Wake()
		select {
		case <-f.ended:
			return
		case <-look.C:
		}
	}
}

// report logs what changed about the sink.
func (f *follower) report(s follow.State) {
	fields := []zap.Field{
		zap.String("sink", f.kind), zap.String("id", f.id[:6]), zap.Uint64("lag", s.Lag),
		zap.Uint64("failures", s.Failures), zap.Uint64("lost", s.Lost), zap.Uint64("set_aside", s.SetAside),
	}
	switch {
	case s.Failures == 0 && s.CursorError == "":
		logger().Info("audit sink delivers", fields...)
	case s.Failures <= 1 || s.CursorError != "":
		logger().Warn("audit sink fails; the journal keeps the events",
			append(fields, zap.String("error", s.LastError), zap.String("cursor_error", s.CursorError))...)
	}
}

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])
}
