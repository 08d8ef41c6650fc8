package headers

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/moat-gateway/moat/internal/headers"
)

func provisioned(t *testing.T, h *Handler) error {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	return h.Provision(ctx)
}

func TestAPartOfASiteInheritsWhatItDoesNotSay(t *testing.T) {
	site := Settings{
		Preset: "html", HSTS: &HSTS{Subdomains: true}, Cache: "private", Report: "/-/csp", ReportOnly: true,
		Set:    []headers.Field{{Name: "X-Frame-Options", Value: "DENY"}, {Name: "x-site", Value: "1"}},
		Keep:   []string{"Referrer-Policy"},
		Remove: []string{"X-Runtime"},
		CSP:    []headers.Directive{{Name: "img-src", Sources: []string{"*"}}, {Name: "font-src", Sources: []string{"'self'"}}},
	}
	got := (&Path{Settings: Settings{
		Keep: []string{"x-frame-options"}, Set: []headers.Field{{Name: "Referrer-Policy", Value: "no-referrer"}}, Enforce: true,
		Remove: []string{"X-Site"}, CSP: []headers.Directive{{Name: "img-src", Sources: []string{"'none'"}}},
	}}).on(site)
	if len(got.Set) != 2 || got.Set[0].Value != "DENY" || got.Set[1].Name != "Referrer-Policy" {
		t.Errorf("set %v, want what is kept with the site's value and without what is removed", got.Set)
	}
	if len(got.Keep) != 1 || got.Keep[0] != "x-frame-options" || len(got.Remove) != 2 {
		t.Errorf("keep %v, remove %v", got.Keep, got.Remove)
	}
	if len(got.CSP) != 2 || got.CSP[0].Sources[0] != "'none'" || got.ReportOnly || got.Report != "/-/csp" || got.Cache != "private" || got.HSTS != site.HSTS {
		t.Errorf("%+v", got)
	}
	api := (&Path{Settings: Settings{Preset: "api"}}).on(site)
	if len(api.Set)+len(api.Keep)+len(api.CSP) != 0 || api.HSTS != site.HSTS || api.ReportOnly {
		t.Errorf("with a preset of its own: %+v", api)
	}
	whole := (&Path{Settings: Settings{Set: []headers.Field{{Name: "Content-Security-Policy", Value: "default-src 'none'"}}}}).on(site)
	if len(whole.CSP) != 0 {
		t.Errorf("a whole policy beside the site's lines: %v", whole.CSP)
	}
}

func TestWhatAPartMayNotSayIsRefused(t *testing.T) {
	for want, h := range map[string]*Handler{
		"path 1: is empty":                        {Paths: []*Path{nil}},
		"browsers keep one value for a host":      {Paths: []*Path{{Pattern: "/a", Settings: Settings{HSTS: &HSTS{MaxAge: caddy.Duration(time.Hour)}}}}},
		"Strict-Transport-Security is the site's": {Paths: []*Path{{Pattern: "/a", Settings: Settings{Set: []headers.Field{{Name: "strict-transport-security", Value: "max-age=1"}}}}}},
		"lets code come from anywhere":            {Settings: Settings{InsecureUnsafeCSP: true}, Paths: []*Path{{Pattern: "/a", Settings: Settings{CSP: []headers.Directive{{Name: "script-src", Sources: []string{"*"}}}}}}},
		`mode "Shadow": must be`:                  {Mode: "Shadow"},
		"a pattern begins with /":                 {Paths: []*Path{{Pattern: "a"}}},
		"is the same rule as":                     {Paths: []*Path{{Pattern: "/a"}, {Pattern: "/a"}}},
		`inline "nonces": must be`:                {Settings: Settings{Inline: "nonces"}},
		"csp: pin: file: must not be empty":       {Settings: Settings{Inline: "pin"}},
		"5000000 bytes: must be at":               {Settings: Settings{Inline: "hash", MaxInline: 5_000_000}},
	} {
		err := provisioned(t, h)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
		if err := h.Cleanup(); err != nil {
			t.Error(err)
		}
	}
}

func TestPathsFollowTheCaseOfTheSite(t *testing.T) {
	for fold, want := range map[bool]bool{true: true, false: false} {
		h := &Handler{CaseInsensitive: fold, Paths: []*Path{{Pattern: "/Admin/**", Settings: Settings{Preset: "api"}}}}
		if err := provisioned(t, h); err != nil {
			t.Fatal(err)
		}
		if got := h.of[h.paths.Lookup("GET", "/aDMIN/x").Rule()] != nil; got != want {
			t.Errorf("case_insensitive %t: found %t", fold, got)
		}
	}
}

func TestAReportedPageBelongsToThePartThatServedIt(t *testing.T) {
	h := &Handler{Paths: []*Path{{Pattern: "/admin/**", Settings: Settings{Preset: "api"}}}}
	if err := provisioned(t, h); err != nil {
		t.Fatal(err)
	}
	for page, want := range map[string]string{
		"/admin/x": "/admin/**", "/%61dmin/x": "/admin/**", "/admin%2Fx": "/admin/**", "/administration": "", "/": "", "": "",
	} {
		if got := h.part(page); got != want {
			t.Errorf("%s: %q", page, got)
		}
	}
}
