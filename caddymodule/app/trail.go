package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/telemetry"
	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/journal"
	"github.com/moat-gateway/moat/internal/token/jwks"
)

// trails are the open trails: one writer a directory, whatever reloads do.
var trails = caddy.NewUsagePool()

// trail is what takes the events: a journal, or memory and the log.
type trail interface {
	audit.Trail
	caddy.Destructor
	// start makes the trail ready to take events. It changes nothing about one
	// that another configuration uses.
	start() error
	// establish makes the trail what the app's configuration wants it to be.
	establish(*App)
}

// Durable implements audit.Durable. A refusal stays what it was when its event is
// lost, except that with fsync always nothing leaves without its event.
func (h *trailHandle) Durable(class audit.Class) (durable, strict bool) {
	c, ok := h.trail.(*configured)
	switch {
	case !ok:
		return false, false
	case c.config.FsyncAlways:
		return true, !h.open
	}
	return c.config.Waits[class] > journal.Queued, !h.open && class == audit.Access
}

// trailHandle is a configuration's view of a trail.
type trailHandle struct {
	trail
	open  bool
	names *pseudonyms // nil: nothing is replaced
}

// start makes the key and the trail ready.
func (h *trailHandle) start() error {
	if _, err := h.names.get(); err != nil {
		return err
	}
	return h.trail.start()
}

// Record hands the event of a request over.
func (h *trailHandle) Record(e *audit.Event) error {
	names, err := h.names.get()
	if err != nil {
		return counted(e, err) // Better no event than one with names in it.
	}
	return h.trail.Record(names.Veil(e))
}

// Trail implements audit.Source.
func (a *App) Trail() audit.Trail { return a.trail }

// BeforeEnd implements audit.Source. Handlers are provisioned one after the other.
func (a *App) BeforeEnd(f func()) { a.lasts = append(a.lasts, f) }

// RecordHeaders implements audit.Source.
func (a *App) RecordHeaders() []string { return a.recordHeaders }

// Down is never set when the operator chose to pass requests without a trail.
func (h *trailHandle) Down() error {
	if h.open {
		return nil
	}
	return h.down()
}

// down is why the trail cannot take events, whatever that means for requests.
func (h *trailHandle) down() error {
	if _, err := h.names.get(); err != nil {
		return err
	}
	return h.trail.Down()
}

// event records something that no request did.
func (h *trailHandle) event(class audit.Class, action, resource string, outcome audit.Outcome, set func(*audit.Details)) {
	now := time.Now()
	e := &audit.Event{
		Timestamp: now,
		ID:        audit.NewID(now),
		UserID:    "moat",
		Action:    action,
		Resource:  resource,
		Class:     class,
		Outcome:   outcome,
	}
	if set != nil {
		set(&e.Details)
	}
	// What the gateway does itself is nobody's: "moat" needs no pseudonym.
	if err := h.trail.Record(e); err != nil {
		logger().Warn("the trail could not take an event", zap.String("action", action), zap.Error(err))
	}
}

func (h *trailHandle) keys(issuer string, e jwks.Event) {
	outcome := audit.Allow
	if e.Err != nil {
		outcome = audit.Failure
	}
	h.event(audit.Security, "keys.changed", issuer, outcome, func(d *audit.Details) {
		d.Set("keys", e.Keys)
		d.Set("added", e.Added)
		d.Set("removed", e.Removed)
		if e.Err != nil {
			d.Set("error", e.Err.Error())
		}
	})
}

// journalled is a trail on disk. It is opened by the first who needs it: the
// app's start, or a request that is faster.
type journalled struct {
	config  journal.Config
	flood   *audit.Flood
	journal atomic.Pointer[journal.Journal]
	// greeted: the start of the gateway is on record.
	greeted atomic.Bool

	mu     sync.Mutex
	closed bool
	done   chan struct{}
}

// linger is how long a journal that no configuration uses any more stays open
// for the requests that still run.
const linger = 30 * time.Second

// lingering are the journals in that state, by directory.
var lingering sync.Map

func (a *App) journalTrail(config journal.Config, sinks []*Sink, names *pseudonyms) (*trailHandle, error) {
	config.OnTrouble = troubled
	// Followers first: they are given back last, so that at the end they can
	// still deliver what the journal writes when it closes.
	followers, err := a.follow(config, sinks)
	if err != nil {
		return nil, err
	}
	config.Hold = heldBy(followers)
	t, err := hold(a, trails, "journal "+config.Dir, func() (*journalled, error) {
		return newJournalled(config), nil
	})
	if err != nil {
		return nil, err
	}
	if config.Instance != t.config.Instance {
		return nil, fmt.Errorf("audit: instance %q: must stay %q while the journal %q is open",
			config.Instance, t.config.Instance, config.Dir)
	}
	return &trailHandle{
		trail: &configured{t, config, followers},
		open:  a.Audit.OnFull == "open",
		names: names,
	}, nil
}

// configured is a configuration's use of a journal: its tunables and its sinks.
type configured struct {
	*journalled
	config    journal.Config
	followers []followed
}

func (c *configured) start() error {
	if _, err := c.current(); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

func (c *configured) establish(a *App) {
	if err := c.reconfigure(c.config); err != nil {
		a.logger.Error("the audit journal keeps its old settings", zap.Error(err))
	}
	for n, label := range labels(c.followers) {
		f := c.followers[n]
		f.start(c.newest)
		a.watches = append(a.watches, telemetry.WatchSink(label, f.figures))
	}
	a.watches = append(a.watches,
		telemetry.WatchTrail(func() bool { return a.trail.down() != nil }),
		telemetry.WatchJournal(c.bytes))
	if c.greeted.CompareAndSwap(false, true) {
		a.trail.event(audit.Admin, "gateway.start", "moat", audit.Allow, nil)
	}
	a.trail.event(audit.Admin, "config.loaded", "moat", audit.Allow, a.describeConfig)
}

func newJournalled(config journal.Config) *journalled {
	t := &journalled{config: config, done: make(chan struct{})}
	t.flood = audit.NewFlood(audit.FloodConfig{Emit: func(e *audit.Event) { _ = t.write(e) }})
	go sweep(t.flood, t.done)
	return t
}

// sweep writes the summaries of floods that are over.
func sweep(flood *audit.Flood, done <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			flood.Sweep()
		case <-done:
			return
		}
	}
}

// current returns the journal, which it opens if nobody has.
func (t *journalled) current() (*journal.Journal, error) {
	if j := t.journal.Load(); j != nil {
		return j, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, audit.ErrClosed
	}
	if j := t.journal.Load(); j != nil {
		return j, nil
	}
	if old, ok := lingering.LoadAndDelete(t.config.Dir); ok {
		_ = old.(*journalled).close() // Its own log has told what was lost.
	}
	j, err := journal.Open(t.config)
	if err != nil {
		return nil, err
	}
	t.journal.Store(j)
	return j, nil
}

// reconfigure applies config to the journal.
func (t *journalled) reconfigure(config journal.Config) error {
	j, err := t.current()
	if err != nil {
		return err
	}
	return j.Reconfigure(config)
}

// newest is the number of the last event in the journal.
func (t *journalled) newest() uint64 {
	j := t.journal.Load()
	if j == nil {
		return 0
	}
	return j.Stats().Seq
}

// bytes is the size of the journal.
func (t *journalled) bytes() int64 {
	j := t.journal.Load()
	if j == nil {
		return 0
	}
	return j.Stats().Bytes
}

// Record takes an event; refusals that flood are counted and summed up.
func (t *journalled) Record(e *audit.Event) error {
	if !t.flood.Admit(e) {
		return nil
	}
	return t.write(e)
}

func (t *journalled) write(e *audit.Event) error {
	j, err := t.current()
	if err == nil {
		err = j.Record(context.Background(), e)
	}
	return counted(e, err)
}

// Down is why the journal cannot write.
func (t *journalled) Down() error {
	j, err := t.current()
	if err != nil {
		return err
	}
	return j.Err()
}

// Destruct writes out what is queued and closes the journal: at once when the
// process ends, else after the requests of the last configuration had time to
// end.
func (t *journalled) Destruct() error {
	if caddy.Exiting() {
		if t.journal.Load() != nil {
			now := time.Now()
			_ = t.write(&audit.Event{
				Timestamp: now, ID: audit.NewID(now), UserID: "moat", Action: "gateway.stop",
				Resource: "moat", Class: audit.Admin, Outcome: audit.Allow,
			})
		}
		return t.close()
	}
	lingering.Store(t.config.Dir, t)
	time.AfterFunc(linger, func() {
		lingering.CompareAndDelete(t.config.Dir, t)
		_ = t.close()
	})
	return nil
}

func (t *journalled) close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	t.mu.Unlock()
	close(t.done)
	// Not below the lock: its last summaries are written, and that may ask for it.
	t.flood.Close()
	if j := t.journal.Load(); j != nil {
		return j.Close()
	}
	return nil
}

func counted(e *audit.Event, err error) error {
	class := string(e.Class.Known())
	if err != nil {
		telemetry.Dropped.WithLabelValues(class).Inc()
		return err
	}
	telemetry.Events.WithLabelValues(class).Inc()
	return nil
}

// troubled makes trouble of the journal known beside the journal.
func troubled(kind string, err error) {
	if kind == journal.TroubleOver {
		logger().Info("the audit journal is written again")
		return
	}
	logger().Error("the audit journal cannot be written",
		zap.String("kind", kind), zap.Error(errors.Join(err)))
}
