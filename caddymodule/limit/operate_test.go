package limit

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/canon"
	"github.com/moat-gateway/moat/internal/identity"
	"github.com/moat-gateway/moat/internal/ratelimit"
)

// TestAnOperatorFindsTheBucketThatARequestIsChargedTo asks for each kind of key
// with the values an operator would give.
func TestAnOperatorFindsTheBucketThatARequestIsChargedTo(t *testing.T) {
	for name, row := range map[string]struct {
		by     []string
		client string
		keys   []string
	}{
		"an address":                  {[]string{"ip"}, "192.0.2.1", []string{"192.0.2.1"}},
		"a mapped address":            {[]string{"ip"}, "192.0.2.1", []string{"::ffff:192.0.2.1"}},
		"an IPv6 address":             {[]string{"ip"}, "2001:db8::1", []string{"2001:db8::ffff"}},
		"an IPv6 network":             {[]string{"ip"}, "2001:db8::1", []string{"2001:db8::/64"}},
		"a user":                      {[]string{"user"}, "192.0.2.1", []string{"u-1"}},
		"a user of an issuer":         {[]string{"user"}, "192.0.2.1", []string{"main/u-1"}},
		"a tenant":                    {[]string{"tenant"}, "192.0.2.1", []string{"acme"}},
		"a session":                   {[]string{"session"}, "192.0.2.1", []string{"s-1"}},
		"a path":                      {[]string{"path"}, "192.0.2.1", []string{"/q/bob"}},
		"a path with a slash":         {[]string{"path"}, "192.0.2.1", []string{"/q/bob/"}},
		"a header":                    {[]string{"header:x-key"}, "192.0.2.1", []string{"k"}},
		"a header that was not there": {[]string{"header:x-other"}, "192.0.2.1", []string{"ip:192.0.2.1"}},
		"a cookie":                    {[]string{"cookie:c"}, "192.0.2.1", []string{"v"}},
		"a parameter":                 {[]string{"param:u"}, "192.0.2.1", []string{"bob"}},
		"everybody":                   {[]string{"all"}, "192.0.2.1", nil},
		"everybody, said":             {[]string{"all"}, "192.0.2.1", []string{"all"}},
		"several":                     {[]string{"ip", "all", "user", "path"}, "192.0.2.1", []string{"192.0.2.1", "u-1", "/q/bob"}},
	} {
		l := &Limit{Rate: "10/1s 100/1m", By: row.by, On: []On{{Methods: []string{"*"}, Pattern: "/q/{u}"}}}
		h := &Handler{Site: "s", Limits: []*Limit{l}}
		if err := h.compile(nil, ratelimit.Fallback{}); err != nil {
			t.Fatal(name, err)
		}
		r := httptest.NewRequest("GET", "/q/bob", nil)
		r.Header = http.Header{"X-Key": {"k"}, "Cookie": {"c=v"}}
		ex := &exchange.Exchange{
			Canonical: true, Client: netip.MustParseAddr(row.client), Target: canon.Target{Path: "/q/bob"},
			Caller: &identity.Principal{Issuer: "main", ID: "u-1", Tenant: "acme", Session: "s-1"},
		}
		var c charge
		h.collect(&c, r, ex)
		buckets, err := h.named(l).Buckets(row.keys, []string{"other", "main"})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, want := range c.requests {
			if !slices.ContainsFunc(buckets, func(b ratelimit.Bucket) bool {
				return b.Request.Limit == want.Limit && b.Request.Subject == want.Subject && b.Request.Rate == want.Rate && b.Request.Cost == 0
			}) {
				t.Errorf("%s: charged to %q of %s, which is none of %+v", name, want.Subject, want.Limit, buckets)
			}
		}
		if strings.Contains(name, "of an issuer") && len(buckets) != 2 {
			t.Errorf("%s: %d buckets, want the two of one issuer", name, len(buckets))
		}
	}
}

func TestWrongKeysAreAnError(t *testing.T) {
	l := &Limit{Rate: "10/1s", By: []string{"ip", "header:X"}}
	h := &Handler{Limits: []*Limit{l}}
	if err := h.compile(nil, ratelimit.Fallback{}); err != nil {
		t.Fatal(err)
	}
	for want, keys := range map[string][]string{
		"needs 2 values, got 1":     {"192.0.2.1"},
		"needs 2 values, got 3":     {"192.0.2.1", "a", "b"},
		`ip "bob": must be an addr`: {"bob", "a"},
		"header: needs a value":     {"192.0.2.1", ""},
	} {
		if _, err := h.named(l).Buckets(keys, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", keys, err, want)
		}
	}
}

func TestAnErrorShowsNoValueOfAHeader(t *testing.T) {
	l := &Limit{Rate: "10/1s", By: []string{"header:X"}}
	h := &Handler{Limits: []*Limit{l}}
	if err := h.compile(nil, ratelimit.Fallback{}); err != nil {
		t.Fatal(err)
	}
	_, err := h.named(l).Buckets([]string{"planted-secret", "more"}, nil)
	if err == nil || strings.Contains(err.Error(), "planted") {
		t.Errorf("error %v", err)
	}
}
