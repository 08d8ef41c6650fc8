// Package telemetry holds Moat's metrics. Caddy makes a new registry for every
// configuration, so the collectors live here, once, and are registered into
// each: counters go on over a reload. Labels are bounded; none holds a key, a
// path, a user or an address.
package telemetry

import (
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// The metrics, named as the documentation lists them.
var (
	Requests          = counter("moat_requests_total", "Requests by outcome and refusal code or status class.", "site", "outcome", "code")
	Tokens            = counter("moat_jwt_total", "Tokens judged, by issuer and result.", "issuer", "result")
	Rules             = counter("moat_rbac_total", "Decisions by the rules.", "decision", "reason")
	Limits            = counter("moat_ratelimit_total", "Decisions by the limits.", "limit", "decision")
	Events            = counter("moat_audit_events_total", "Audit events taken by the trail.", "class")
	Violations        = counter("moat_csp_reports_total", "Violations of the content security policy that browsers reported.", "directive", "kind", "disposition")
	ViolationsRefused = counter("moat_csp_reports_refused_total", "Reports of violations that did not count, by reason.", "reason")
	Inline            = counter("moat_csp_inline_total", "Findings about inline code that neither a nonce nor a hash allows, by kind.", "kind")
	Dropped           = counter("moat_audit_dropped_total", "Audit events that the trail could not take.", "class")

	StoreSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "moat_ratelimit_store_seconds",
		Help:    "Time for one decision by the limit store.",
		Buckets: []float64{.00001, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1},
	})
	storeDegraded = newWatch("moat_store_degraded", "1 while the shared limit store is unavailable and limits go by on_error.")
	keysAge       = newWatch("moat_jwks_age_seconds", "Age of an issuer's key set.", "issuer")
	sinkLag       = newWatch("moat_audit_sink_lag_events", "Events in the journal that a sink has not delivered yet.", "sink")
	sinkBehind    = newWatch("moat_audit_sink_lag_seconds", "For how long the oldest event that a sink has not got has waited.", "sink")
	sinkSuccess   = newWatch("moat_audit_sink_last_success_timestamp_seconds", "When a sink last took events.", "sink")
	sinkFailures  = newCount("moat_audit_sink_failures_total", "Failed attempts to deliver to a sink.", "sink")
	sinkLost      = newCount("moat_audit_sink_lost_total", "Events that were removed from the journal before a sink got them.", "sink")
	sinkSetAside  = newCount("moat_audit_sink_set_aside_total", "Events that a sink does not take.", "sink")
	auditDown     = newWatch("moat_audit_down", "1 while the audit trail cannot be written.")
	journalBytes  = newWatch("moat_audit_journal_bytes", "Size of the audit journal.")
	Added         = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "moat_added_seconds",
		Help:    "Time that the gateway itself added to a request.",
		Buckets: []float64{.000005, .00001, .000025, .00005, .0001, .00025, .0005, .001, .005, .025, .1},
	})
)

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// Register adds all metrics to the configuration's registry. More than one
// module of a configuration may call it.
func Register(ctx caddy.Context) error {
	registry := ctx.GetMetricsRegistry()
	if registry == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{
		Requests, Tokens, Rules, Limits, Events, Dropped, Violations, ViolationsRefused, Inline,
		StoreSeconds, storeDegraded, keysAge, sinkLag, sinkBehind, sinkSuccess, sinkFailures, sinkLost, sinkSetAside, auditDown, journalBytes, Added,
	} {
		var already prometheus.AlreadyRegisteredError
		if err := registry.Register(c); err != nil && !errors.As(err, &already) {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	return nil
}
