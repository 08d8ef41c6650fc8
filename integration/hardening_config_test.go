//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"
)

// guarded is a site's block with the given lines before its rules.
func guarded(lines string) string {
	return "moat {\n" + lines + "\njwt main\nrbac {\n* /** authenticated\n}\n}"
}

// TestHardeningUnsetAndImpossibleSettingsAreLoadErrors has settings that would
// quietly turn into something else: an unset variable into an empty value, a role
// that nobody has into a rate that nobody gets, a quote into a second parameter
// of the challenge.
func TestHardeningUnsetAndImpossibleSettingsAreLoadErrors(t *testing.T) {
	t.Parallel()
	limits := ""
	for n := range 40 {
		limits += fmt.Sprintf("limit l%d 5/1m by ip\n", n)
	}
	runBadConfigs(t, map[string]badConfig{
		"unset header value":  {Site: guarded("headers html {\nset X-Foo {env.UNSET_X} " + here + "\n}"), Want: []string{"X-Foo", "UNSET_X"}},
		"unset header, api":   {Site: guarded("headers api {\nset X-Foo \"a{env.UNSET_X}\" " + here + "\n}"), Want: []string{"X-Foo", "UNSET_X"}},
		"unset cookie name":   {Site: "moat {\njwt main {\nfrom cookie {env.UNSET_X}\n}\nrbac {\n* /** authenticated\n}\n}", Want: []string{"jwt", "from", "UNSET_X"}},
		"unset header name":   {Site: "moat {\njwt main {\nforward {env.UNSET_X} id\n}\nrbac {\n* /** authenticated\n}\n}", Want: []string{"jwt", "forward", "UNSET_X"}},
		"unset origin":        {Site: "moat {\njwt main {\ntrusted_origins {env.UNSET_X}\n}\nrbac {\n* /** authenticated\n}\n}", Want: []string{"trusted_origins", "UNSET_X"}},
		"unset rate":          {Site: guarded("limit l {env.UNSET_X}/1m by ip " + here), Want: []string{"UNSET_X"}},
		"unset exception":     {Site: guarded("limit l 5/1m by ip { " + here + "\nexcept {env.UNSET_X}\n}"), Want: []string{"except", "UNSET_X"}},
		"quote in the realm":  {Site: guarded(`realm "a\"b"`), Want: []string{"realm"}},
		"slash in the realm":  {Site: guarded("realm `a\\`"), Want: []string{"realm"}},
		"quote without a jwt": {Site: "moat {\nrealm \"a\\\"b\"\nrbac {\n* /** public\n}\n}", Want: []string{"realm"}},
		"quote in jwt":        {Site: "moat {\njwt main {\nrealm \"a\\\"b\"\n}\nrbac {\n* /** authenticated\n}\n}", Want: []string{"realm"}},
		"tier of no role":     {Site: guarded("limit 5/1m by user { " + here + "\ntier admni 100/1m\n}"), Want: []string{"tier", "admni"}},
		"too many limits":     {Site: guarded(limits), Want: []string{"limit", "40", "32"}},
	})
}

// TestHardeningErrorsNeverShowASecret has values that Caddy's placeholders trip
// over. The error must say where, and must not quote what may be a password.
func TestHardeningErrorsNeverShowASecret(t *testing.T) {
	t.Parallel()
	redis := func(line string) string { return "redis redis://127.0.0.1:1 {\n" + line + "\n}" }
	webhook := "audit {\njournal /nowhere/journal\nsink webhook https://siem.test/in {\nsecret %s\n}\n}"
	i := newIssuer(t)
	for name, c := range map[string]struct {
		config badConfig
		want   []string
	}{
		"a brace in a password":      {badConfig{Global: redis(`password "hunter{2}secret"`)}, []string{"redis", "password"}},
		"an unset part":              {badConfig{Global: redis(`password "hunter{env.UNSET_X}secret"`)}, []string{"password", "UNSET_X"}},
		"a brace and an unset part":  {badConfig{Global: redis(`password "hunter{2}secret{env.UNSET_X}"`)}, []string{"password", "UNSET_X"}},
		"in the address":             {badConfig{Global: `redis "redis://moat:hunter{env.UNSET_X}@127.0.0.1:1"`}, []string{"redis", "UNSET_X"}},
		"an address that is none":    {badConfig{Global: `redis "redis://moat:hunter2@127.0.0.1:port"`}, []string{"redis"}},
		"an address without scheme":  {badConfig{Global: `redis "moat:hunter2@127.0.0.1:1"`}, []string{"redis"}},
		"in an issuer's secret":      {badConfig{Issuer: issuerWith(named + `secret "hunter{env.UNSET_X}` + strings.Repeat("x", 40) + `"`)}, []string{"secret", "UNSET_X"}},
		"an issuer's, too short":     {badConfig{Issuer: issuerWith(named + "secret hunter2")}, []string{"secret", "32"}},
		"in a webhook's secret":      {badConfig{Global: fmt.Sprintf(webhook, `"hunter{env.UNSET_X}"`)}, []string{"webhook", "UNSET_X"}},
		"a webhook's of no form":     {badConfig{Global: fmt.Sprintf(webhook, "hunter2")}, []string{"webhook", "secret"}},
		"in a database address":      {badConfig{Global: "audit {\njournal /nowhere/journal\nsink postgres \"postgres://moat:hunter{env.UNSET_X}@127.0.0.1/a\"\n}"}, []string{"postgres", "UNSET_X"}},
		"a database that is none":    {badConfig{Global: "audit {\njournal /nowhere/journal\nsink postgres \"postgres://moat:hunter2@127.0.0.1:port/a\"\n}"}, []string{"postgres"}},
		"beside another's mistake":   {badConfig{Global: redis(`password "hunter{2}secret"`) + "\nrole heir {\ninherit nobody\n}"}, []string{"password", "nobody"}},
		"a word too much after it":   {badConfig{Global: redis("password hunter2 " + here + "\ntimeout soon")}, []string{"timeout"}},
		"two passwords in one place": {badConfig{Global: redis("password hunter2\npassword hunter3 " + here)}, []string{"password"}},
	} {
		t.Run(name, func(t *testing.T) {
			text := c.config.render(i)
			out, exit := newHome(t, text, nil).validate(t)
			if exit == 0 {
				t.Fatal("accepted")
			}
			if strings.Contains(out, "hunter") || strings.Contains(out, "panic") {
				t.Errorf("a secret or a panic in\n%s", out)
			}
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, lastLines(out, 3))
				}
			}
		})
	}
}
