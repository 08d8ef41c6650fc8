package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

func TestCredentialsCannotBeRecorded(t *testing.T) {
	for _, name := range []string{
		"Authorization", "proxy-authorization", "COOKIE", "Set-Cookie", "X-API-Key", "Api_Key", "X-Auth-Token", "X-Auth-Request",
		"X-Access-TOKEN", "X-Client-Secret", "X-Password", "X-Session", "X-CSRF", "Idempotency-Key", "X-Credential-Id", "bad name", "",
	} {
		c := &Audit{RecordHeaders: []string{"User-Agent", name}}
		if _, err := c.recordHeaders(); err == nil {
			t.Errorf("%q was accepted", name)
		} else if !strings.Contains(err.Error(), "audit: record_headers ") {
			t.Errorf("error %v", err)
		}
	}
	c := &Audit{RecordHeaders: []string{"user-agent", "User-Agent", "X-Forwarded-For"}}
	names, err := c.recordHeaders()
	if err != nil || len(names) != 2 || names[0] != "User-Agent" {
		t.Errorf("names %q, %v", names, err)
	}
	c.Pseudonymize = &Pseudonymize{KeyFile: "/k", Kinds: []string{"ip"}}
	if _, err := c.recordHeaders(); err == nil {
		t.Error("addresses were accepted beside pseudonymize ip")
	}
	c = &Audit{RecordHeaders: strings.Fields("A B C D E F G H I J L M N O P Q R")}
	if _, err := c.recordHeaders(); err == nil {
		t.Error("17 headers were accepted")
	}
}

func TestTheKeyOfPseudonymsLiesOutsideTheJournal(t *testing.T) {
	dir := t.TempDir()
	trail := filepath.Join(dir, "journal")
	link := filepath.Join(dir, "link")
	if err := os.Symlink(trail, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(trail, 0o700); err != nil {
		t.Fatal(err)
	}
	for file, ok := range map[string]bool{
		filepath.Join(trail, "key"):              false,
		filepath.Join(trail, "below", "key"):     false,
		filepath.Join(trail, "..", "key"):        true,
		filepath.Join(dir, "journal-key"):        true,
		filepath.Join(link, "key"):               false,
		filepath.Join(dir, "x", "..", "journal"): false,
	} {
		a := journalApp(trail)
		a.Audit.Pseudonymize = &Pseudonymize{KeyFile: file, Kinds: []string{"ip"}}
		err := provision(t, a)
		end(t, a)
		if (err == nil) != ok {
			t.Errorf("%s: %v", file, err)
		}
		if _, err := os.Stat(file); err == nil && file != trail && !strings.HasSuffix(file, "journal") {
			t.Errorf("%s was created without a start", file)
		}
	}
}

func TestWithPseudonymsNoNameIsInTheTrail(t *testing.T) {
	dir, file := filepath.Join(t.TempDir(), "journal"), filepath.Join(t.TempDir(), "key")
	a := journalApp(dir)
	a.Audit.Pseudonymize = &Pseudonymize{KeyFile: file, Kinds: []string{"ip", "user"}}
	start(t, a)
	now := time.Now()
	for range 150 {
		e := &audit.Event{
			Timestamp: now, ID: audit.NewID(now), UserID: "planted-user", IP: "192.0.2.77", Action: "x",
			Class: audit.Security, Outcome: audit.Deny, Reason: "x",
		}
		if err := a.Trail().Record(e); err != nil {
			t.Fatal(err)
		}
	}
	names, err := a.trail.names.get()
	if err != nil {
		t.Fatal(err)
	}
	end(t, a)
	await(t, "the last events", func() bool { return count(t, dir, names.Of("ip", "192.0.2.77")) >= 100 })
	if n := count(t, dir, "planted-user") + count(t, dir, "192.0.2.77"); n != 0 {
		t.Errorf("%d names in the trail", n)
	}
	if n := count(t, dir, names.Of("user", "planted-user")); n < 100 {
		t.Errorf("%d events of the pseudonym", n)
	}
	if n := count(t, dir, `"userId":"moat"`); n == 0 {
		t.Error("moat has a pseudonym")
	}
}

func TestAKeyThatCannotBeReadStopsTheStart(t *testing.T) {
	a := journalApp(filepath.Join(t.TempDir(), "journal"))
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.Audit.Pseudonymize = &Pseudonymize{KeyFile: file, Kinds: []string{"user"}}
	if err := provision(t, a); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, a) })
	if err := a.Start(); err == nil || !strings.Contains(err.Error(), "audit: pseudonymize: ") {
		t.Errorf("error %v", err)
	}
	// A request that is faster than the start is refused, and not recorded by name.
	if a.trail.Down() == nil || a.Trail().Record(&audit.Event{UserID: "u"}) == nil {
		t.Error("the trail takes events without the key")
	}
}

func TestTheSubjectOfALimitIsVeiled(t *testing.T) {
	names, err := audit.NewPseudonyms(make([]byte, 32), "ip", "user")
	if err != nil {
		t.Fatal(err)
	}
	ip, user := names.Of("ip", "192.0.2.7"), names.Of("user", "u-1")
	for subject, want := range map[string]string{
		"ip:192.0.2.7":                           "ip:" + ip,
		"user:main\x00u-1\x00ip:192.0.2.7":       "user:main " + user + " ip:" + ip,
		"tenant:main\x00ip:192.0.2.7\x00all":     "tenant:main ip:192.0.2.7 all",
		"path:/ip:192.0.2.7\x00user:main\x00u-1": "path:/ip:192.0.2.7 user:main " + user,
		"user:main":                              "user:main",
	} {
		if got := veilSubject(names, subject); got != want {
			t.Errorf("%q: %q, want %q", subject, got, want)
		}
	}
}
