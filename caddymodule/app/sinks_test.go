package app

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/moat-gateway/moat/caddymodule/sinks"
	"github.com/moat-gateway/moat/internal/audit/follow"
)

// sinkOf is a sink of a type with the settings of its module.
func sinkOf(kind string, settings map[string]any) *Sink {
	return &Sink{Type: kind, Settings: caddyconfig.JSON(settings, nil)}
}

func stdoutSettings() follow.Settings { return new(sinks.Stdout) }

func followConfig(t *testing.T) follow.Config { return follow.Config{Dir: t.TempDir()} }

func redisApp(dir string, timeout time.Duration) *App {
	a := journalApp(dir, sinkOf("redis_stream", map[string]any{"key": "events"}))
	a.Redis = &Redis{URL: "redis://127.0.0.1:1/0", Timeout: caddy.Duration(timeout)}
	return a
}

func sinksOf(a *App) []followed { return a.trail.trail.(*configured).followers }

func ended(f followed) bool {
	select {
	case <-f.ended:
		return true
	default:
		return false
	}
}

func TestTheRedisSinkFollowsAChangeOfTheRedisBlock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	first, same, other := redisApp(dir, time.Second), redisApp(dir, time.Second), redisApp(dir, 2*time.Second)
	start(t, first)
	start(t, same)
	end(t, first)
	old := sinksOf(same)[0]
	if sinksOf(first)[0] != old || ended(old) {
		t.Fatal("a reload that changes nothing ends the sink")
	}
	start(t, other)
	next := sinksOf(other)[0]
	if next == old {
		t.Fatal("the sink keeps the client of a configuration that is going to end")
	}
	if next.id != old.id {
		t.Error("the sink starts over instead of going on at its place")
	}
	// Two that store their place in one file must never run side by side.
	if next.newest != nil {
		t.Error("the next sink runs while the old one does")
	}
	end(t, same)
	if !ended(old) || ended(next) || next.newest == nil {
		t.Errorf("old ended: %t, next ended: %t", ended(old), ended(next))
	}
}

func TestTheSinkOfAFailedReloadNeverRuns(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	first, failed := redisApp(dir, time.Second), redisApp(dir, 2*time.Second)
	start(t, first)
	start(t, failed)
	end(t, failed)
	if sinksOf(failed)[0].newest != nil || ended(sinksOf(first)[0]) {
		t.Error("a failed reload touches the sinks")
	}
}

func webhooks(t *testing.T, n int) []*Sink {
	t.Helper()
	var out []*Sink
	for range n {
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		t.Cleanup(server.Close)
		out = append(out, sinkOf("webhook", map[string]any{"url": server.URL, "secret": []string{strings.Repeat("s", 32)}}))
	}
	return out
}

func sinkLabels(t *testing.T) []string {
	t.Helper()
	var out []string
	for name := range metrics(t) {
		if label, ok := strings.CutPrefix(name, "moat_audit_sink_lag_events sink="); ok {
			out = append(out, label)
		}
	}
	slices.Sort(out)
	return out
}

func TestSinksOfOneTypeAreToldApart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	hooks := webhooks(t, 2)
	first := journalApp(dir, append(hooks, &Sink{Type: sinkStdout})...)
	start(t, first)
	want := []string{sinkStdout}
	for _, f := range sinksOf(first)[:2] {
		want = append(want, "webhook-"+f.id[:6])
	}
	slices.Sort(want)
	if got := sinkLabels(t); !slices.Equal(got, want) {
		t.Errorf("sinks %q, want %q", got, want)
	}
	failed := journalApp(dir, hooks[0])
	start(t, failed)
	end(t, failed)
	if got := sinkLabels(t); !slices.Equal(got, want) {
		t.Errorf("sinks %q after a failed reload, want %q", got, want)
	}
	start(t, journalApp(dir, hooks[0]))
	end(t, first)
	if got := sinkLabels(t); !slices.Equal(got, []string{"webhook"}) {
		t.Errorf("sinks %q, want the one that is left", got)
	}
}

func TestSinksThatAreAwayShareOneLastMoment(t *testing.T) {
	f, err := newFollower(new(sinks.Stdout), follow.Config{Dir: t.TempDir()}, identified{sinkStdout, "", digest("x")})
	if err != nil {
		t.Fatal(err)
	}
	f.newest = func() uint64 { return 1 }
	close(f.ended)
	begin := time.Now()
	f.finish(begin.Add(time.Minute))
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("waited %s for a sink that has ended", took)
	}
	if one, two := lastMoment(), lastMoment(); !one.Equal(two) || time.Until(one) > lastWords {
		t.Errorf("one sink until %s, the next until %s", one, two)
	}
}

func TestARotatedSecretMakesAnotherSinkAtTheSamePlace(t *testing.T) {
	dir, file := filepath.Join(t.TempDir(), "journal"), filepath.Join(t.TempDir(), "secret")
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	hook := sinkOf("webhook", map[string]any{"url": server.URL, "secret": []string{"{file." + file + "}"}})
	for _, secret := range []string{"a", "b"} {
		if err := os.WriteFile(file, []byte(strings.Repeat(secret, 32)), 0o600); err != nil {
			t.Fatal(err)
		}
		start(t, journalApp(dir, hook))
	}
	first, second := live.Load(), heir.Load()
	end(t, first)
	old, next := sinksOf(first)[0], sinksOf(second)[0]
	if old == next || old.id != next.id || !ended(old) || ended(next) {
		t.Errorf("the same sink: %t, at the same place: %t, old ended: %t, next ended: %t",
			old == next, old.id == next.id, ended(old), ended(next))
	}
}

func TestStandardOutputWithoutAJournalIsFilteredAndFormatted(t *testing.T) {
	a := &App{Audit: &Audit{Instance: "test", Sinks: []*Sink{{Type: "stdout", Class: []string{"security"}, Format: "cloudevents"}}}}
	if err := provision(t, a); err != nil {
		t.Fatal(err)
	}
	defer end(t, a)
	to, err := a.printer()
	if err != nil {
		t.Fatal(err)
	}
	for class, want := range map[string]string{"security": `"specversion":"1.0"`, "access": ""} {
		text, err := to.add(nil, []byte(`{"class":"`+class+`","seq":1,"instance":"i","id":"x"}`))
		if err != nil || !strings.Contains(string(text), want) || (want == "") != (len(text) == 0) {
			t.Errorf("%s: %q, %v", class, text, err)
		}
	}
	for _, sinks := range [][]*Sink{{{Type: "stdout"}, {Type: "stdout"}}, {{Type: "stdout", Required: true}}, {{Type: "stdout", Format: "xml"}}} {
		wrong := &App{Audit: &Audit{Instance: "test", Sinks: sinks}}
		if err := provision(t, wrong); err == nil || !strings.Contains(err.Error(), "audit: sink stdout: ") {
			t.Errorf("%v: %v", sinks, err)
		}
		end(t, wrong)
	}
}

func TestStandardOutputFollowsTheConfigurationThatServes(t *testing.T) {
	with := func(sinks ...*Sink) *App { return &App{Audit: &Audit{Instance: "test", Sinks: sinks}} }
	first, failed, second := with(&Sink{Type: sinkStdout}), with(), with()
	prints := func(a *App) bool {
		d := a.trail.trail.(*directView).direct
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.stdout != nil
	}
	if err := provision(t, first); err != nil {
		t.Fatal(err)
	}
	if !prints(first) {
		t.Error("requests that come before the start are not printed")
	}
	end(t, first)
	start(t, first)
	start(t, failed)
	end(t, failed)
	if !prints(first) {
		t.Error("a failed reload ends the printing")
	}
	start(t, second)
	end(t, first)
	if prints(second) {
		t.Error("the configuration without the sink prints")
	}
}
