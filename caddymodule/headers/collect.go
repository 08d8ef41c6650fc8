package headers

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/caddymodule/internal/moatapp"
	"github.com/moat-gateway/moat/caddymodule/internal/telemetry"
	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/headers/report"
	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/memory"
)

// How much is taken. A browser that knows report-uri only sends a request for each
// violation, and a page may have hundreds; it does not try again when one is refused, so
// that a refusal costs evidence and nothing else. One sender has an address, or an IPv6
// network of 48 bits.
var (
	requestsOfOne = ratelimit.Rate{N: 300, Window: time.Minute}
	requestsOfAll = ratelimit.Rate{N: 3000, Window: time.Minute}
	reportsOfOne  = ratelimit.Rate{N: 600, Window: time.Minute}
)

// Why reports do not count, as the metric names it.
const (
	refusedRate      = "rate"       // more than one sender, or all, may send
	refusedSize      = "size"       // a body of more than 64 KiB
	refusedType      = "media-type" // no report by its media type
	refusedMalformed = "malformed"  // not the shape of a report
	refusedForeign   = "foreign"    // about a page of another host
	refusedBeyond    = "beyond"     // behind the 50th of a body
	refusedCrowded   = "crowded"    // a kind too many, of one sender or of all
)

// complainEvery is how often the log says that reports are lost.
const complainEvery = time.Minute

// sweepEvery is how often repetitions that are due are told.
const sweepEvery = 5 * time.Second

// collector takes the reports of browsers about violations of the policy. Anybody may
// post anything to it: it is bounded, limited by sender and in all, and keeps nothing
// but what a policy could say. The first of a kind is an event of its own, repetitions
// are events with a count, at most one a minute.
type collector struct {
	site  string
	paths []string
	// part is the pattern of the part of the site that a path belongs to; empty for
	// the site itself.
	part    func(path string) string
	logger  *zap.Logger
	trail   audit.Trail
	reports *report.Collector
	limits  *memory.Store
	lost    atomic.Int64 // since the log said so
	stop    chan struct{}
	once    sync.Once
}

// newCollector returns nil when nobody is to report.
func newCollector(ctx caddy.Context, h *Handler) (*collector, error) {
	paths := h.reportPaths()
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
	c := &collector{site: h.Site, paths: paths, part: h.part, logger: ctx.Logger(), trail: source.Trail(), limits: limits, stop: make(chan struct{})}
	c.reports = report.NewCollector(report.CollectorConfig{Emit: c.emit})
	source.BeforeEnd(c.close)
	go c.sweep()
	return c, errors.Join(telemetry.Register(ctx))
}

func (c *collector) sweep() {
	tick, complain := time.NewTicker(sweepEvery), time.NewTicker(complainEvery)
	defer tick.Stop()
	defer complain.Stop()
	for {
		select {
		case <-tick.C:
			c.reports.Sweep()
		case <-complain.C:
			if lost := c.lost.Swap(0); lost > 0 {
				c.logger.Warn("reports about the content security policy were not taken; moat_csp_reports_refused_total has the reasons",
					zap.String("site", c.site), zap.Int64("lost", lost))
			}
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
	sender := report.Network(ex.Client).String()
	if !c.admit(r, []ratelimit.Request{
		{Limit: "requests", Subject: sender, Rate: requestsOfOne, Cost: 1},
		{Limit: "all", Subject: "all", Rate: requestsOfAll, Cost: 1},
	}) {
		return c.refuse(http.StatusTooManyRequests, refusedRate, 1)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, report.MaxBody+1))
	if err != nil {
		return c.refuse(http.StatusBadRequest, refusedMalformed, 1)
	}
	batch, err := report.Site{Host: r.Host}.Parse(r.Header.Get("Content-Type"), body)
	switch {
	case errors.Is(err, report.ErrTooLarge):
		return c.refuse(http.StatusRequestEntityTooLarge, refusedSize, 1)
	case errors.Is(err, report.ErrMediaType):
		return c.refuse(http.StatusUnsupportedMediaType, refusedType, 1)
	case err != nil:
		return c.refuse(http.StatusBadRequest, refusedMalformed, 1)
	}
	c.refuse(0, refusedMalformed, batch.Malformed)
	c.refuse(0, refusedForeign, batch.Foreign)
	c.refuse(0, refusedBeyond, batch.Dropped)
	n := int64(len(batch.Violations))
	if n > 0 && !c.admit(r, []ratelimit.Request{{Limit: "reports", Subject: sender, Rate: reportsOfOne, Cost: n}}) {
		return c.refuse(http.StatusTooManyRequests, refusedRate, len(batch.Violations))
	}
	for _, v := range batch.Violations {
		if !c.reports.Add(v, ex.Client) {
			c.refuse(0, refusedCrowded, 1)
			continue
		}
		telemetry.Violations.WithLabelValues(v.Directive, string(v.Kind), v.Disposition).Inc()
	}
	return http.StatusNoContent
}

// admit charges the limits and reports whether all allow it.
func (c *collector) admit(r *http.Request, charges []ratelimit.Request) bool {
	results, err := c.limits.Take(r.Context(), charges, nil)
	return err == nil && !slices.ContainsFunc(results, func(res ratelimit.Result) bool { return !res.Allowed })
}

// refuse counts reports that do not count, and returns the status.
func (c *collector) refuse(status int, why string, n int) int {
	telemetry.ViolationsRefused.WithLabelValues(why).Add(float64(n))
	if why == refusedRate || why == refusedCrowded {
		c.lost.Add(int64(n))
	}
	return status
}

// emit writes the event of a violation, which stands for so many reports.
func (c *collector) emit(v report.Reported) {
	now := time.Now()
	e := &audit.Event{
		Timestamp: now, ID: audit.NewID(now), Action: audit.ActionViolation, Resource: v.Document, Path: v.Document,
		Class: audit.Security, Outcome: audit.Allow, Reason: v.Directive, Severity: audit.Low,
	}
	if v.From.IsValid() {
		e.IP = v.From.String()
	}
	if v.Disposition == "enforce" {
		e.Outcome = audit.Deny
	}
	if c.site != "" {
		e.Details.Set("site", c.site)
	}
	if part := c.part(v.Document); part != "" {
		e.Details.Set("part", part)
	}
	e.Details.Set("directive", v.Directive)
	e.Details.Set("blocked", v.Blocked)
	e.Details.Set("kind", string(v.Kind))
	e.Details.Set("disposition", v.Disposition)
	e.Details.Set("count", v.Count)
	e.Details.Set("networks", v.Networks)
	e.Details.Set("noise", v.Noise)
	if v.Source != "" {
		e.Details.Set("source", v.Source)
		e.Details.Set("line", v.Line)
	}
	_ = c.trail.Record(e) // The trail counts what it could not take and says so itself.
}
