package headers_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/headers"
)

const policyHeader = "Content-Security-Policy"

func TestAMergedPolicyStandsBeforeTheUpstreams(t *testing.T) {
	p := policy(t, headers.Config{Preset: "api", Merge: []string{"content-security-policy"}})
	for name, row := range map[string]struct {
		upstream func(h http.Header)
		want     []string
	}{
		"silent":                    {func(http.Header) {}, []string{apiCSP}},
		"added":                     {func(h http.Header) { h.Add(policyHeader, "script-src 'none'") }, []string{apiCSP, "script-src 'none'"}},
		"set":                       {func(h http.Header) { h.Set(policyHeader, "script-src 'none'") }, []string{apiCSP, "script-src 'none'"}},
		"two":                       {func(h http.Header) { h.Add(policyHeader, "a"); h.Add(policyHeader, "b") }, []string{apiCSP, "a", "b"}},
		"the same":                  {func(h http.Header) { h.Add(policyHeader, apiCSP) }, []string{apiCSP}},
		"blank":                     {func(h http.Header) { h.Add(policyHeader, " ") }, []string{apiCSP}},
		"twice the same of its own": {func(h http.Header) { h.Add(policyHeader, "a"); h.Add(policyHeader, "a") }, []string{apiCSP, "a"}},
		"another spelling":          {func(h http.Header) { h["content-security-policy"] = []string{"a"} }, []string{apiCSP, "a"}},
		"removed":                   {func(h http.Header) { h.Del(policyHeader) }, []string{apiCSP}},
	} {
		t.Run(name, func(t *testing.T) {
			h := answer(p, 200, overTLS, row.upstream)
			if !slices.Equal(h[policyHeader], row.want) {
				t.Errorf("got %q, want %q", h[policyHeader], row.want)
			}
			p.Settle(h, 200, overTLS)
			if !slices.Equal(h[policyHeader], row.want) {
				t.Errorf("settled twice: %q", h[policyHeader])
			}
		})
	}
}

func TestATrialMergesWithTheUpstreamsTrial(t *testing.T) {
	const trial = policyHeader + "-Report-Only"
	p := policy(t, headers.Config{Preset: "api", CSPReportOnly: true, Merge: []string{policyHeader}})
	h := answer(p, 200, overTLS, func(h http.Header) { h.Add(trial, "img-src 'none'"); h.Set(policyHeader, "default-src 'self'") })
	if !slices.Equal(h[trial], []string{apiCSP, "img-src 'none'"}) || !slices.Equal(h[policyHeader], []string{"default-src 'self'"}) {
		t.Errorf("trial %q, enforced %q", h[trial], h[policyHeader])
	}
}

func TestWhatCannotBeMergedIsRefused(t *testing.T) {
	for want, cfg := range map[string]headers.Config{
		`only Content-Security-Policy can be merged`: {Merge: []string{"X-Frame-Options"}},
		`is also kept`:                        {Merge: []string{policyHeader}, Keep: []string{policyHeader}},
		`is named twice`:                      {Merge: []string{policyHeader, policyHeader}},
		`the name is empty`:                   {Merge: []string{""}},
		`merge: 65 headers`:                   {Merge: many(65)},
		`samesite "none": must be lax`:        {Cookies: headers.Cookies{SameSite: "none"}},
		`except: says nothing`:                {Cookies: headers.Cookies{Except: []string{"a"}}},
		`except "a b": is no name`:            {Cookies: headers.Cookies{Secure: true, Except: []string{"a b"}}},
		`except "a": is named twice`:          {Cookies: headers.Cookies{Secure: true, Except: []string{"a", "a"}}},
		`except: 65 cookies`:                  {Cookies: headers.Cookies{Secure: true, Except: many(65)}},
		`cache "never": must be no-store`:     {Cache: "never"},
		`is no header of this policy, so the`: {Merge: []string{policyHeader + "-Report-Only"}},
	} {
		if p, err := headers.New(cfg); err == nil || p != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
}

func TestTheCacheOfKnownCallersCanBeChosen(t *testing.T) {
	for cache, want := range map[string][]string{"": {"no-store"}, "private": {"private"}, "no-store": {"no-store"}, "off": nil} {
		for _, preset := range []string{"html", "api"} {
			h := answer(policy(t, headers.Config{Preset: preset, Cache: cache}), 200, caller, silent)
			if !slices.Equal(h["Cache-Control"], want) {
				t.Errorf("%s %q: %q, want %q", preset, cache, h["Cache-Control"], want)
			}
		}
	}
}

// TestAnotherPolicyCanTakeOver applies one policy at once and settles by another, as
// for a path with headers of its own.
func TestAnotherPolicyCanTakeOver(t *testing.T) {
	first := policy(t, headers.Config{Set: set("X-First", "1")})
	second := policy(t, headers.Config{Preset: "api", Keep: []string{"X-Frame-Options"}})
	for name, upstream := range upstreams {
		for _, conn := range []headers.Conn{overTLS, plain, caller} {
			want, got := make(http.Header), make(http.Header)
			second.Apply(want, conn)
			first.Apply(got, conn)
			for _, h := range []http.Header{want, got} {
				for _, header := range append(second.Names(), "Permissions-Policy", "X-First", "X-Theirs") {
					upstream(h, header, "DENY")
				}
			}
			second.Settle(want, 200, conn)
			first.Retract(got, conn)
			second.Settle(got, 200, conn)
			for _, header := range append(second.Names(), "Cache-Control", "X-Theirs") {
				if !slices.Equal(want[header], got[header]) {
					t.Errorf("%s, %+v: %s is %q, want %q", name, conn, header, got[header], want[header])
				}
			}
			for _, header := range []string{"Permissions-Policy", "X-First"} {
				if slices.Contains(got[header], "1") || slices.ContainsFunc(got[header], func(v string) bool { return len(v) > 40 }) {
					t.Errorf("%s, %+v: %s is still %q", name, conn, header, got[header])
				}
			}
		}
	}
}
