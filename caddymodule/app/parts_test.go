package app

import (
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/journal"
	"github.com/moat-gateway/moat/internal/rbac"
)

func TestWhatChangedIsNamed(t *testing.T) {
	base := func() *App {
		return &App{
			Redis: &Redis{URL: "redis://a"}, Audit: new(Audit),
			Issuers:     []*Issuer{{Name: "main"}, {Name: "other"}},
			RoleConfigs: []rbac.RoleConfig{{Name: "admin", Permissions: []string{"*"}, Place: "f:1"}},
		}
	}
	before := base().configuredParts()
	for name, row := range map[string]struct {
		change func(*App)
		want   []string
	}{
		"nothing":         {func(*App) {}, []string{}},
		"a line above":    {func(a *App) { a.RoleConfigs[0].Place = "f:2" }, []string{}},
		"a password":      {func(a *App) { a.Redis.Password = "x" }, []string{"redis"}},
		"an issuer":       {func(a *App) { a.Issuers[1].Iss = []string{"i"} }, []string{"issuer other"}},
		"one issuer less": {func(a *App) { a.Issuers = a.Issuers[:1] }, []string{"issuer other"}},
		"two things": {func(a *App) {
			a.RoleConfigs[0].Permissions = nil
			a.Audit.OnFull = "open"
			a.Redis = nil
		}, []string{"audit", "redis", "role admin"}},
	} {
		a := base()
		row.change(a)
		after := a.configuredParts()
		if got := after.changed(before); !slices.Equal(got, row.want) {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
		if (after.sum() == before.sum()) != (len(row.want) == 0) {
			t.Errorf("%s: the hash does not go with what changed", name)
		}
	}
	many := make(parts)
	for n := range 40 {
		many.add("role "+strconv.Itoa(n), n)
	}
	if got := many.changed(nil); len(got) != maxChanged+1 || got[maxChanged] != "…" {
		t.Errorf("%d names", len(got))
	}
}

func TestAReloadSaysWhatChangedAndAFailedOneThatItWasRejected(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	first, failed, broken, second := journalApp(dir), journalApp(dir), journalApp(dir), journalApp(dir)
	start(t, first)
	if n := count(t, dir, `"changed":`); n != 0 {
		t.Error("the first configuration changed something")
	}
	start(t, failed)
	end(t, failed)
	end(t, failed)
	if n := count(t, dir, `"config.rejected"`); n != 1 {
		t.Errorf("%d rejected configurations, want 1", n)
	}
	broken.Issuers = []*Issuer{{Name: "broken"}}
	if provision(t, broken) == nil {
		t.Fatal("a broken configuration was accepted")
	}
	end(t, broken)
	if n := count(t, dir, `"config.rejected"`); n != 2 {
		t.Errorf("%d rejected configurations, want 2", n)
	}
	second.RoleConfigs = []rbac.RoleConfig{{Name: "admin", Permissions: []string{"*"}}}
	start(t, second)
	end(t, first)
	if n := count(t, dir, `"changed":["role admin"]`); n != 1 {
		t.Errorf("%d events of the changed role, want 1", n)
	}
	end(t, second)
	if n := count(t, dir, `"config.rejected"`); n != 2 {
		t.Errorf("%d rejected configurations at the end, want 2", n)
	}
}

func TestAConfigurationThatIsOnlyLookedAtIsNotRejected(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	a := journalApp(dir)
	if err := provision(t, a); err != nil {
		t.Fatal(err)
	}
	end(t, a)
	if count(t, dir, "") != 0 {
		t.Error("something was written")
	}
}

func TestTheJournalsSettings(t *testing.T) {
	j := &Journal{Dir: "/x"}
	c, err := j.config("i")
	if err != nil || c.Reserve != 256<<20 || c.MaxSize != journal.AutoSize || c.KeyFile != "/x/checkpoint.key" ||
		c.Waits["access"] != journal.Queued || c.Waits["security"] != journal.Written || c.Waits["admin"] != journal.Written {
		t.Errorf("defaults %+v, %v", c, err)
	}
	none := int64(0)
	j = &Journal{Dir: "/x", Reserve: &none, Wait: map[string]string{"access": "synced"}, Key: "/k", MaxSize: 1 << 30, Fsync: "1s"}
	c, err = j.config("i")
	if err != nil || c.Reserve != 0 || c.MaxSize != 1<<30 || c.KeyFile != "/k" || c.Waits["access"] != journal.Synced || c.Fsync != time.Second {
		t.Errorf("settings %+v, %v", c, err)
	}
}

func TestWhatTheEndOfAnAnswerWaitsFor(t *testing.T) {
	for name, row := range map[string]struct {
		journal          Journal
		access, security [2]bool // durable, strict
	}{
		"defaults":    {Journal{}, [2]bool{false, true}, [2]bool{true, false}},
		"always":      {Journal{Fsync: "always"}, [2]bool{true, true}, [2]bool{true, true}},
		"wait access": {Journal{Wait: map[string]string{"access": "written", "security": "queued"}}, [2]bool{true, true}, [2]bool{false, false}},
	} {
		row.journal.Dir = filepath.Join(t.TempDir(), "journal")
		a := &App{Audit: &Audit{Journal: &row.journal, Instance: "test"}}
		if err := provision(t, a); err != nil {
			t.Fatal(err)
		}
		for class, want := range map[string][2]bool{"access": row.access, "security": row.security} {
			if durable, strict := a.trail.Durable(audit.Class(class)); [2]bool{durable, strict} != want {
				t.Errorf("%s, %s: %v, %v; want %v", name, class, durable, strict, want)
			}
		}
		end(t, a)
	}
}

func TestTheTrailIsInTheMetrics(t *testing.T) {
	a := journalApp(filepath.Join(t.TempDir(), "journal"))
	start(t, a)
	record(t, a, "x")
	got := metrics(t)
	if size, err := strconv.Atoi(got["moat_audit_journal_bytes"]); got["moat_audit_down"] != "0" || err != nil || size < 500 {
		t.Errorf("down %q, bytes %q", got["moat_audit_down"], got["moat_audit_journal_bytes"])
	}
	a.trail.names = &pseudonyms{file: "/no/such/directory/key", kinds: []string{"ip"}}
	if got := metrics(t)["moat_audit_down"]; got != "1" {
		t.Errorf("down %q without the key, want 1", got)
	}
	a.trail.names = nil
	end(t, a)
	if got, ok := metrics(t)["moat_audit_down"]; ok {
		t.Errorf("down %q after the end", got)
	}
}
