package format_test

import (
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/format"
)

var (
	when     = time.Date(2026, 11, 22, 3, 0, 0, 123456000, time.UTC)
	lastHash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
)

func mustFormat(t testing.TB, name string) format.Format {
	t.Helper()
	f, err := format.Of(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func lineOf(e *audit.Event) []byte { return e.AppendJSON(nil) }

// fullRequest has a value in every field, all of them different.
func fullRequest() *audit.Event {
	e := &audit.Event{
		Timestamp: when, UserID: "u-1", Action: "orders.read", Resource: "order 7", IP: "203.0.113.7",
		ID: "019ab3c0-1111-7000-8000-000000000001", Class: audit.Security, Outcome: audit.Deny,
		Reason: "rbac.no-permission", Severity: audit.Medium, RequestID: "019ab3c0-2222-7000-8000-000000000002",
		Tenant: "acme", Roles: []string{"ops", "reader"}, Method: "GET", Host: "orders.example.com:8443",
		Path: "/orders/7", Route: "/orders/{id}", Status: 403, Duration: 3100 * time.Microsecond,
		BytesIn: 12, BytesOut: 512, Seq: 42, Instance: "gateway-a", Prev: lastHash,
	}
	e.Details.Set("auth", "bearer")
	e.Details.Set("code", "forbidden")
	e.Details.Set("issuer", "https://id.example.com")
	e.Details.Set("headers", []audit.Field{{Name: "user-agent", Value: "curl/8"}, {Name: "accept", Count: 2}})
	e.Details.Set("query", []string{"limit", "sort"})
	e.Details.Set("big", int64(9007199254740993))
	e.Details.Set("flag", true)
	return e
}

// operationOf is an event that no request caused.
func operationOf(action, resource string, outcome audit.Outcome) *audit.Event {
	return &audit.Event{
		Timestamp: when, UserID: "moat", Action: action, Resource: resource, Class: audit.Admin, Outcome: outcome,
		ID: "019ab3c0-3333-7000-8000-000000000003", Seq: 43, Instance: "gateway-a", Prev: lastHash,
	}
}

// samples are one event of every kind there is.
func samples() map[string]*audit.Event {
	all := map[string]*audit.Event{"request-denied": fullRequest()}
	add := func(name string, change func(*audit.Event)) {
		e := fullRequest()
		e.Resource, e.Host = e.Path, "orders.example.com"
		change(e)
		all[name] = e
	}
	add("request-allowed", func(e *audit.Event) {
		e.Class, e.Outcome, e.Reason, e.Status, e.Severity = audit.Access, audit.Allow, "rbac.permission", 200, ""
		e.Action = "GET /orders/{id}"
		e.Details.Reset()
		e.Details.Set("auth", "cookie")
	})
	add("request-failed", func(e *audit.Event) {
		e.Class, e.Outcome, e.Reason, e.Status = audit.Access, audit.Failure, "upstream.failed", 502
		e.Details.Reset()
	})
	add("request-aborted", func(e *audit.Event) {
		e.Class, e.Outcome, e.Reason, e.Status = audit.Access, audit.Aborted, "client.gone", 0
		e.Details.Reset()
	})
	add("request-token-expired", func(e *audit.Event) {
		e.UserID, e.Tenant, e.Roles, e.Reason, e.Status, e.Route = "", "", nil, "jwt.expired", 401, ""
		e.Details.Set("code", "token-expired")
	})
	add("request-strange-method", func(e *audit.Event) { e.Method = "BREW" })
	summary := &audit.Event{
		Timestamp: when, Action: audit.ActionSummary, Class: audit.Security, Outcome: audit.Deny, Severity: audit.Medium,
		Reason: "rate-limited", IP: "203.0.113.7", Host: "orders.example.com", Status: 429,
		ID: "019ab3c0-4444-7000-8000-000000000004", Seq: 44, Instance: "gateway-a", Prev: lastHash,
	}
	summary.Details.Set("count", int64(4711))
	summary.Details.Set("from", "2026-11-22T02:59:50.000001Z")
	summary.Details.Set("to", "2026-11-22T02:59:59.999999Z")
	summary.Details.Set("action", "GET /orders/{id}")
	summary.Details.Set("code", "rate-limited")
	all[audit.ActionSummary] = summary
	for action, resource := range map[string]string{
		"gateway.start": "moat", "gateway.stop": "moat", "config.loaded": "moat", "policy.loaded": "/etc/moat/roles.yaml",
		"keys.changed": "main", "limit.show": "limit login", "limit.reset": "limit login",
		"store.degraded": "redis", "store.recovered": "redis", "sink.failing": "sink kafka", "sink.recovered": "sink kafka", "sink.lost": "sink siem", "sink.set-aside": "sink siem", "something.new": "thing",
		audit.ActionSegment: "000000000042.jsonl", audit.ActionRemoved: "000000000001.jsonl",
		audit.ActionKey: "checkpoint key", audit.ActionCheckpoint: "trail",
		audit.ActionRecovered: "HEAD", audit.ActionGap: "trail",
	} {
		all[action] = operationOf(action, resource, audit.Allow)
	}
	all["config.rejected"] = operationOf("config.rejected", "moat", audit.Failure)
	all["policy.rejected"] = operationOf("policy.rejected", "/etc/moat/roles.yaml", audit.Failure)
	all["config.loaded"].Details.Set("sha256", lastHash)
	all["config.loaded"].Details.Set("changed", []string{"redis", "role admin"})
	all[audit.ActionCheckpoint].Details.Set("lastSeq", int64(42))
	return all
}
