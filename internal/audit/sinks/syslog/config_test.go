package syslog_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/sinks/syslog"
)

func TestEveryConfigErrorIsReportedAtOnce(t *testing.T) {
	_, err := syslog.New(syslog.Config{
		Address: "a b", Facility: "mail", AppName: "a b", MaxMessage: 2047, Timeout: time.Hour, Unconfirmed: true, RequireCloseNotify: true,
		CAFile: "/nowhere/ca.pem", CertFile: "/nowhere/cert.pem",
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`address "a b"`, `facility "mail"`, `app_name "a b"`, "max_message 2047", "timeout 1h0m0s", "confirm: is both",
		"ca_file: open /nowhere/ca.pem", "cert_file, key_file: one of them is missing",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	if _, err := syslog.New(syslog.Config{}); err == nil {
		t.Error("the zero config was accepted")
	}
}

func TestSettingsAreCheckedByTheirBounds(t *testing.T) {
	for name, row := range map[string]struct {
		edit func(*syslog.Config)
		ok   bool
	}{
		"only an address":         {func(*syslog.Config) {}, true},
		"facility 24":             {func(c *syslog.Config) { c.Facility = "24" }, false},
		"facility local8":         {func(c *syslog.Config) { c.Facility = "local8" }, false},
		"facility -1":             {func(c *syslog.Config) { c.Facility = "-1" }, false},
		"facility 256":            {func(c *syslog.Config) { c.Facility = "256" }, false},
		"48 bytes of name":        {func(c *syslog.Config) { c.AppName = strings.Repeat("x", 48) }, true},
		"49 bytes of name":        {func(c *syslog.Config) { c.AppName = strings.Repeat("x", 49) }, false},
		"a name with a break":     {func(c *syslog.Config) { c.AppName = "a\nb" }, false},
		"a name not in ASCII":     {func(c *syslog.Config) { c.AppName = "ü" }, false},
		"2048 bytes":              {func(c *syslog.Config) { c.MaxMessage = 2048 }, true},
		"2 MiB":                   {func(c *syslog.Config) { c.MaxMessage = 2 << 20 }, true},
		"over 2 MiB":              {func(c *syslog.Config) { c.MaxMessage = 2<<20 + 1 }, false},
		"1 ms":                    {func(c *syslog.Config) { c.Timeout = time.Millisecond }, true},
		"less than 1 ms":          {func(c *syslog.Config) { c.Timeout = time.Millisecond - 1 }, false},
		"1 minute":                {func(c *syslog.Config) { c.Timeout = time.Minute }, true},
		"over 1 minute":           {func(c *syslog.Config) { c.Timeout = time.Minute + 1 }, false},
		"negative":                {func(c *syslog.Config) { c.Timeout = -1 }, false},
		"plain":                   {func(c *syslog.Config) { c.Plaintext = true }, true},
		"plain with a name":       {func(c *syslog.Config) { c.Plaintext, c.ServerName = true, "x" }, false},
		"plain by close_notify":   {func(c *syslog.Config) { c.Plaintext, c.RequireCloseNotify = true, true }, false},
		"plain and off":           {func(c *syslog.Config) { c.Plaintext, c.Unconfirmed = true, true }, true},
		"a certificate, no key":   {func(c *syslog.Config) { c.CertFile = "x" }, false},
		"a key, no certificate":   {func(c *syslog.Config) { c.KeyFile = "x" }, false},
		"files that do not exist": {func(c *syslog.Config) { c.CertFile, c.KeyFile = "/nowhere/a", "/nowhere/b" }, false},
	} {
		cfg := syslog.Config{Address: "syslog.example.com:6514"}
		row.edit(&cfg)
		if _, err := syslog.New(cfg); (err == nil) != row.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAddressesThatAreRefused(t *testing.T) {
	for address, row := range map[string]struct{ secure, plain bool }{
		"syslog.example.com":               {true, false},
		"syslog.example.com:601":           {true, true},
		"10.0.0.7":                         {true, false},
		"10.0.0.7:514":                     {true, true},
		"::1":                              {true, false},
		"[::1]":                            {true, false},
		"[::1]:6514":                       {true, true},
		"":                                 {},
		":6514":                            {},
		"host:":                            {},
		"host:0":                           {},
		"host:65536":                       {},
		"host:syslog-tls":                  {},
		"host:1:2":                         {},
		"tls://host:6514":                  {},
		"host/path:6514":                   {},
		"user@host:6514":                   {},
		"ho st:6514":                       {},
		"host\n:6514":                      {},
		"höst:6514":                        {},
		strings.Repeat("x", 300) + ":6514": {},
	} {
		for plain, want := range map[bool]bool{false: row.secure, true: row.plain} {
			_, err := syslog.New(syslog.Config{Address: address, Plaintext: plain})
			if (err == nil) != want {
				t.Errorf("%.90q, plaintext %t: %v", address, plain, err)
			}
		}
	}
}

func TestNoErrorRepeatsWhatStandsInAFile(t *testing.T) {
	ca := newAuthority(t)
	_, certFile, _ := ca.issue(t)
	_, _, otherKey := ca.issue(t)
	planted := filepath.Join(t.TempDir(), "planted-file.pem")
	content := "-----BEGIN planted-secret-----\nAAAA\n-----END planted-secret-----\n"
	if err := os.WriteFile(planted, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		cfg  syslog.Config
		want string
	}{
		"no certificates":    {syslog.Config{CAFile: planted}, "holds no certificate"},
		"no key":             {syslog.Config{CertFile: certFile, KeyFile: planted}, "are no certificate with its key"},
		"no certificate":     {syslog.Config{CertFile: planted, KeyFile: otherKey}, "are no certificate with its key"},
		"another one's key":  {syslog.Config{CertFile: certFile, KeyFile: otherKey}, "belong together"},
		"a file that is not": {syslog.Config{CertFile: certFile, KeyFile: "/nowhere/key.pem"}, "open /nowhere/key.pem"},
	} {
		row.cfg.Address = "syslog.example.com"
		_, err := syslog.New(row.cfg)
		if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "planted-secret") {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
	}
}
