package app

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/telemetry"
	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/journal"
)

// followers are the running sinks.
var followers = caddy.NewUsagePool()

// lastWords is how long all sinks together may go on delivering when the
// process ends.
const lastWords = 2 * time.Second

// restart is how long a follower that could not begin waits for the next try.
const restart = 10 * time.Second

// lastMoment is when they must have ended. It is asked for when the process
// ends, by the first sink, and counts for all: those that are away must not
// hold up the end one after the other.
var lastMoment = sync.OnceValue(func() time.Time { return time.Now().Add(lastWords) })

// follower is a sink that reads the journal at its own pace.
type follower struct {
	*follow.Follower
	identified
	sink   follow.Sink
	tells  *teller
	once   sync.Once
	newest func() uint64
	cancel context.CancelFunc
	ended  chan struct{}
}

// followed is a configuration's use of a follower.
type followed struct {
	*follower
	required bool
}

// follow makes a follower for each sink, or takes over the one that runs.
func (a *App) follow(config journal.Config, sinks []*Sink) ([]followed, error) {
	var out []followed
	var errs []error
	seen, written := make(map[string]bool), make(map[string]bool)
	for n, s := range sinks {
		if s == nil {
			errs = append(errs, fmt.Errorf("audit: sink %d: is empty", n+1))
			continue
		}
		f, err := a.followOne(config, s, seen, written)
		switch {
		case errors.Is(err, errElsewhere):
		case err != nil:
			errs = append(errs, fmt.Errorf("audit: sink %s: %w", s.Type, err))
		default:
			out = append(out, followed{f, s.Required})
		}
	}
	return out, errors.Join(errs...)
}

// followOne is follow for one sink. Seen are the places that are taken, written the
// files.
func (a *App) followOne(config journal.Config, s *Sink, seen, written map[string]bool) (*follower, error) {
	settings, err := a.settings(s)
	if err != nil {
		return nil, err
	}
	to := settings.Target()
	format, err := s.formatOf(to)
	if err := errors.Join(err, checkFiles(config.Dir, to.Files, written)); err != nil {
		return nil, err
	}
	id := s.identity(to)
	if seen[id] {
		return nil, errors.New("the same target stands twice; give each a name of its own")
	}
	seen[id] = true
	filter, err := json.Marshal(s.filter())
	if err != nil {
		return nil, err
	}
	key := digest(append([]string{config.Dir, s.Type, s.Name, to.Place, s.Format, string(filter)}, to.Means...)...)
	return hold(a, followers, key, func() (*follower, error) {
		follows := follow.Config{Dir: config.Dir, Filter: s.filter(), Format: format}
		if to.Timeout > 0 {
			// The sink's own budget counts; this one is for a sink that forgets it.
			follows.Timeout = to.Timeout + 5*time.Second
		}
		return newFollower(settings, follows, identified{s.Type, s.Name, id})
	})
}

// identified is how a sink is told from others.
type identified struct {
	kind, name string
	id         string // what its place in the journal belongs to
}

// title is what a sink is called where it need not be unique.
func (i identified) title() string { return cmp.Or(i.name, i.kind) }

// newFollower makes the sink and what feeds it.
func newFollower(settings follow.Settings, config follow.Config, who identified) (*follower, error) {
	sink, err := settings.Open()
	if err != nil {
		return nil, err
	}
	f := &follower{identified: who, sink: sink, tells: newTeller(who), ended: make(chan struct{})}
	config.Sink, config.OnState = sink, f.tells.hear
	config.Cursor = filepath.Join(config.Dir, "cursors", who.kind+"-"+who.id[:12])
	f.Follower, err = follow.New(config)
	if err != nil {
		return nil, errors.Join(err, sink.Close())
	}
	return f, nil
}

// labels are the names of one configuration's sinks in the metrics: the name or
// the type alone where that tells them apart.
func labels(followers []followed) []string {
	count := make(map[string]int)
	for _, f := range followers {
		count[f.title()]++
	}
	out := make([]string, len(followers))
	for n, f := range followers {
		out[n] = f.title()
		if count[out[n]] > 1 {
			out[n] += "-" + f.id[:6]
		}
	}
	return out
}

// heldBy returns what the journal asks before it removes events: how far every
// required sink is. It is nil when none is required.
func heldBy(followers []followed) func() uint64 {
	var required []*follower
	for _, f := range followers {
		if f.required {
			required = append(required, f.follower)
		}
	}
	if len(required) == 0 {
		return nil
	}
	return func() uint64 {
		least := uint64(math.MaxUint64)
		for _, f := range required {
			least = min(least, f.Stored())
		}
		return least
	}
}

// start runs the follower if it does not run yet. Newest is the number of the
// journal's last event.
func (f *follower) start(newest func() uint64) {
	f.once.Do(func() {
		ctx, cancel := context.WithCancel(context.Background())
		f.newest, f.cancel = newest, cancel
		go f.run(ctx)
	})
}

// run follows until ctx ends. What goes wrong with the sink is told through
// OnState; a follower that cannot even begin tries again.
func (f *follower) run(ctx context.Context) {
	defer close(f.ended)
	for {
		err := f.Run(ctx)
		if ctx.Err() != nil {
			return // Its last place may not be stored: then events come twice.
		}
		if f.State().Failures <= 1 {
			logger().Error("audit sink cannot begin; the journal keeps the events",
				zap.String("sink", f.title()), zap.String("id", f.id[:6]), zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(restart):
		}
	}
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
	f.tells.stop()
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

// errFailing says that a sink gets nothing at present.
var errFailing = errors.New("the sink fails; the journal keeps the events")

// trouble is why the sink does not get its events.
func (f *follower) trouble() error {
	if f.State().Failures >= failingAfter {
		return errFailing
	}
	return nil
}

// figures are what metrics say of the sink.
func (f *follower) figures() telemetry.SinkFigures {
	state := f.State()
	lag, behind := f.Lag()
	return telemetry.SinkFigures{
		Lag: lag, Behind: behind, LastSuccess: state.LastSuccess,
		Failed: state.Failed, Lost: state.Lost, SetAside: state.SetAside,
	}
}

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])
}
