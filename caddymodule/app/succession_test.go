package app

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/moat-gateway/moat/caddymodule/internal/telemetry"
	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/ratelimit"
)

// start provisions and starts a as Caddy does, with a log to look at.
func start(t *testing.T, a *App) *observer.ObservedLogs {
	t.Helper()
	if err := provision(t, a); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	a.logger = zap.New(core)
	t.Cleanup(func() { end(t, a) })
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	return logs
}

func end(t *testing.T, a *App) {
	t.Helper()
	if err := a.Cleanup(); err != nil {
		t.Error(err)
	}
}

// journalApp is an app with a journal in dir and nothing else.
func journalApp(dir string, sinks ...*Sink) *App {
	return &App{Audit: &Audit{Journal: &Journal{Dir: dir}, Instance: "test", Sinks: sinks}}
}

// count is how many lines of the journal in dir hold text.
func count(t *testing.T, dir, text string) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n += bytes.Count(data, []byte(text))
	}
	return n
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited for " + what)
		}
	}
}

func record(t *testing.T, a *App, action string) {
	t.Helper()
	now := time.Now()
	e := &audit.Event{Timestamp: now, ID: audit.NewID(now), UserID: "u", Action: action, Resource: "/",
		Class: audit.Security, Outcome: audit.Allow}
	if err := a.Trail().Record(e); err != nil {
		t.Error(err)
	}
}

// written is how many events of the log hold text.
func written(logs *observer.ObservedLogs, text string) int {
	n := 0
	for _, entry := range logs.FilterMessage("event").All() {
		for _, field := range entry.Context {
			if raw, ok := field.Interface.(interface{ MarshalJSON() ([]byte, error) }); ok {
				data, _ := raw.MarshalJSON()
				n += bytes.Count(data, []byte(text))
			}
		}
	}
	return n
}

func TestAfterAFailedReloadTheRunningAppStillWritesItsLog(t *testing.T) {
	first, failed := new(App), new(App)
	logs := start(t, first)
	_ = start(t, failed)
	end(t, failed)
	record(t, first, "after.failure")
	if live.Load() != first || heir.Load() != nil {
		t.Errorf("live %p, heir %p, want %p alone", live.Load(), heir.Load(), first)
	}
	if n := written(logs, "after.failure"); n != 1 {
		t.Errorf("%d events in the log, want 1", n)
	}
}

func TestTheNextAppTakesOverWhenTheRunningOneEnds(t *testing.T) {
	first, failed, second := new(App), new(App), new(App)
	old := start(t, first)
	_ = start(t, failed)
	end(t, failed)
	logs := start(t, second)
	record(t, second, "undecided")
	end(t, first)
	end(t, first) // A second Cleanup finds nothing to do.
	record(t, second, "decided")
	if live.Load() != second || heir.Load() != nil {
		t.Errorf("live %p, heir %p, want %p alone", live.Load(), heir.Load(), second)
	}
	if o, n := written(old, "undecided"), written(logs, `"decided"`); o != 1 || n != 1 {
		t.Errorf("%d events before, %d after, want one each", o, n)
	}
	end(t, second)
	if live.Load() != nil {
		t.Error("an app that has ended is live")
	}
	if logger().Name() != "moat" {
		t.Errorf("events of the last requests go to the log %q", logger().Name())
	}
}

func TestAFailedReloadIsNotInTheTrail(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	first, failed := journalApp(dir), journalApp(dir)
	start(t, first)
	start(t, failed)
	end(t, failed)
	if n := count(t, dir, `"config.loaded"`); n != 1 {
		t.Errorf("%d configurations were loaded according to the trail, want 1", n)
	}
	second := journalApp(dir)
	start(t, second)
	end(t, first)
	if n := count(t, dir, `"config.loaded"`); n != 2 {
		t.Errorf("%d configurations were loaded according to the trail, want 2", n)
	}
	if n := count(t, dir, `"gateway.start"`); n != 1 {
		t.Errorf("%d starts in the trail, want 1", n)
	}
}

func TestTheJournalKeepsItsSettingsUntilTheReloadHasWon(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	first, failed, second := journalApp(dir), journalApp(dir), journalApp(dir)
	start(t, first)
	segments := func(next *App) int {
		if err := provision(t, next); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { end(t, next) })
		small := next.trail.trail.(*configured)
		small.config.Segment = 128 << 10
		if err := next.Start(); err != nil {
			t.Fatal(err)
		}
		if next == failed {
			end(t, failed)
		} else {
			end(t, first)
		}
		for range 600 {
			record(t, next, "some.action")
		}
		j, err := small.current()
		if err != nil {
			t.Fatal(err)
		}
		return j.Stats().Segments
	}
	if n := segments(failed); n != 1 {
		t.Errorf("%d segments: the settings of a failed configuration hold", n)
	}
	if n := segments(second); n < 2 {
		t.Errorf("%d segments: the settings of the new configuration do not hold", n)
	}
}

func TestAnotherInstanceCannotTakeOverTheJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	start(t, journalApp(dir))
	other := journalApp(dir)
	other.Audit.Instance = "other"
	err := provision(t, other)
	end(t, other)
	if err == nil || !strings.Contains(err.Error(), `audit: instance "other": must stay "test"`) {
		t.Errorf("error %v", err)
	}
}

// trip makes the breaker of a's Redis, where nobody listens, open.
func trip(t *testing.T, a *App) {
	t.Helper()
	store, _ := a.Limiter()
	rate, err := ratelimit.ParseRate("5/1m")
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the breaker to open", func() bool {
		_, _ = store.Take(t.Context(), []ratelimit.Request{{Limit: "l", Subject: "s", Rate: rate, Cost: 1}}, nil) // An error is what is wanted.
		return a.limiter.degraded()
	})
}

func TestADegradedStoreIsOverWhenAReloadReplacesIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	first, failed, second := redisApp(dir, time.Second), redisApp(dir, 2*time.Second), redisApp(dir, 3*time.Second)
	start(t, first)
	trip(t, first)
	await(t, "store.degraded", func() bool { return count(t, dir, `"store.degraded"`) == 1 })
	start(t, failed)
	end(t, failed)
	if got := metrics(t)["moat_store_degraded"]; got != "1" {
		t.Errorf("moat_store_degraded %q after a failed reload, want 1", got)
	}
	start(t, second)
	end(t, first)
	await(t, "store.recovered", func() bool { return count(t, dir, `"store.recovered"`) == 1 })
	if got := metrics(t)["moat_store_degraded"]; got != "0" {
		t.Errorf("moat_store_degraded %q, want 0", got)
	}
	// And what requests that still run find out about the old one is no news.
	storeChanged()
	trip(t, second)
	await(t, "store.degraded", func() bool { return count(t, dir, `"store.degraded"`) == 2 })
	if got := metrics(t)["moat_store_degraded"]; got != "1" {
		t.Errorf("moat_store_degraded %q, want 1", got)
	}
}

// metrics are the gauges as they stand, with their label.
func metrics(t *testing.T) map[string]string {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	if err := telemetry.Register(ctx); err != nil {
		t.Fatal(err)
	}
	families, err := ctx.GetMetricsRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if m.GetGauge() == nil {
				continue
			}
			name := family.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			out[name] = strconv.FormatFloat(m.GetGauge().GetValue(), 'g', -1, 64)
		}
	}
	return out
}

func TestTheAgeOfKeysIsReportedForConfiguredIssuersOnly(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"1","x":%q,"y":%q}]}`,
			base64.RawURLEncoding.EncodeToString(point[1:33]), base64.RawURLEncoding.EncodeToString(point[33:]))
	}))
	t.Cleanup(server.Close)
	a := &App{Issuers: []*Issuer{{
		Name: "main", Iss: []string{"https://id.test"}, Audience: []string{"a"}, JWKS: server.URL, InsecureHTTPJWKS: true,
	}}}
	start(t, a)
	reported := func() bool { _, ok := metrics(t)["moat_jwks_age_seconds issuer=main"]; return ok }
	await(t, "the age of the keys", reported)
	end(t, a)
	if reported() {
		t.Error("the age of keys that nobody uses is reported")
	}
}
