package headers

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/caddymodule/internal/moatapp"
	"github.com/moat-gateway/moat/caddymodule/internal/telemetry"
	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/headers/report"
	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/memory"
)

// How many reports are taken. Browsers send several in one request and do not try
// again when one is refused, so that a refusal costs evidence and nothing else.
var (
	perAddress = ratelimit.Rate{N: 60, Window: time.Minute}
	ofAll      = ratelimit.Rate{N: 1200, Window: time.Minute}
)

// sweepEvery is how often repetitions that are due are told.
const sweepEvery = 5 * time.Second

// collector takes the reports of browsers about violations of the policy. Anybody may
// post anything to it: it is bounded, limited by address and in all, and keeps nothing
// but what a policy could say. The first of a kind is an event of its own, repetitions
// are events with a count, at most one a minute.
type collector struct {
	paths   []string
	trail   audit.Trail
	reports *report.Collector
	limits  *memory.Store
	stop    chan struct{}
	once    sync.Once
}

// newCollector returns nil when nobody is to report.
func newCollector(ctx caddy.Context, paths []string) (*collector, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	source, err := moatapp.Load[audit.Source](ctx)
	if err != nil {
		return nil, err
	}
	limits, err := memory.New(memory.Config{Capacity: 10_000})
	if err != nil {
		return nil, err
	}
	c := &collector{paths: paths, trail: source.Trail(), limits: limits, stop: make(chan struct{})}
	c.reports = report.NewCollector(report.CollectorConfig{Emit: c.emit})
	source.BeforeEnd(c.close)
	go c.sweep()
	return c, errors.Join(telemetry.Register(ctx))
}

func (c *collector) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.reports.Sweep()
		case <-c.stop:
			return
		}
	}
}

// close tells what is still held back.
func (c *collector) close() {
	if c == nil {
		return
	}
	c.once.Do(func() {
		close(c.stop)
		c.reports.Close()
	})
}

// takes reports whether the request is one with reports. The path is compared byte by
// byte, so that no other spelling is open.
func (c *collector) takes(r *http.Request) bool {
	return c != nil && r.Method == http.MethodPost && r.URL.RawPath == "" && slices.Contains(c.paths, r.URL.Path)
}

// serve takes what is reported and answers without a body.
func (c *collector) serve(w http.ResponseWriter, r *http.Request, ex *exchange.Exchange) {
	ex.Collected = true
	w.WriteHeader(c.take(r, ex))
}

func (c *collector) take(r *http.Request, ex *exchange.Exchange) int {
	results, err := c.limits.Take(r.Context(), []ratelimit.Request{
		{Limit: "address", Subject: ex.Client.String(), Rate: perAddress, Cost: 1},
		{Limit: "all", Subject: "all", Rate: ofAll, Cost: 1},
	}, nil)
	if err != nil || !results[0].Allowed || !results[1].Allowed {
		return http.StatusTooManyRequests
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, report.MaxBody+1))
	if err != nil {
		return http.StatusBadRequest
	}
	batch, err := report.Site{Host: r.Host}.Parse(r.Header.Get("Content-Type"), body)
	switch {
	case errors.Is(err, report.ErrTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, report.ErrMediaType):
		return http.StatusUnsupportedMediaType
	case err != nil:
		return http.StatusBadRequest
	}
	for _, v := range batch.Violations {
		telemetry.Violations.WithLabelValues(v.Directive, string(v.Kind), v.Disposition).Inc()
		c.reports.Add(v)
	}
	return http.StatusNoContent
}

// emit writes the event of a violation, which stands for so many reports.
func (c *collector) emit(v report.Violation, count int64) {
	now := time.Now()
	e := &audit.Event{
		Timestamp: now, ID: audit.NewID(now), Action: audit.ActionViolation, Resource: v.Document, Path: v.Document,
		Class: audit.Security, Outcome: audit.Allow, Reason: v.Directive, Severity: audit.Low,
	}
	if v.Disposition == "enforce" {
		e.Outcome = audit.Deny
	}
	e.Details.Set("directive", v.Directive)
	e.Details.Set("blocked", v.Blocked)
	e.Details.Set("kind", string(v.Kind))
	e.Details.Set("disposition", v.Disposition)
	e.Details.Set("count", count)
	e.Details.Set("noise", v.Noise)
	if v.Source != "" {
		e.Details.Set("source", v.Source)
		e.Details.Set("line", v.Line)
	}
	_ = c.trail.Record(e) // The trail counts what it could not take and says so itself.
}
