package limit

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/canon"
	"github.com/moat-gateway/moat/internal/ratelimit"
)

// subjectFor is the subject that a limit charges for a path.
func subjectFor(t *testing.T, l *Limit, fold bool, path string, header http.Header) string {
	t.Helper()
	if err := l.compile(fold, ratelimit.Fallback{}); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/", nil)
	r.Header = header
	ex := &exchange.Exchange{
		Canonical: true, Client: netip.MustParseAddr("192.0.2.1"),
		Target: canon.Target{Method: "POST", Path: path, Match: path},
	}
	subject, _, ok := l.applies(r, ex)
	if !ok {
		t.Fatalf("%s: the limit does not apply", path)
	}
	return subject
}

func TestNoSpellingOfAPathIsABucketOfItsOwn(t *testing.T) {
	byPath := func() *Limit { return &Limit{Rate: "1/1h", By: []string{"path"}} }
	byParam := func() *Limit {
		return &Limit{Rate: "1/1h", By: []string{"param:u"}, On: []On{{Methods: []string{"*"}, Pattern: "/q/{u}"}}}
	}
	for name, row := range map[string]struct {
		limit func() *Limit
		fold  bool
		paths []string
	}{
		"path parameters":          {byPath, false, []string{"/q/bob", "/q/bob;0", "/q;a/bob;1", "/q/bob%3B2", "/q/bob/"}},
		"parameters of a param":    {byParam, false, []string{"/q/bob", "/q/bob;0", "/q/bob%3B1", "/q/bob/"}},
		"case, where it is folded": {byPath, true, []string{"/q/bob", "/Q/bob", "/q/BOB"}},
		"case of a param, folded":  {byParam, true, []string{"/q/bob", "/Q/Bob", "/q/BOB"}},
	} {
		want := subjectFor(t, row.limit(), row.fold, row.paths[0], nil)
		for _, path := range row.paths[1:] {
			if got := subjectFor(t, row.limit(), row.fold, path, nil); got != want {
				t.Errorf("%s: %s is charged to %q, not to %q", name, path, got, want)
			}
		}
	}
}

func TestSeveralValuesAreNoKey(t *testing.T) {
	l := func(by string) *Limit { return &Limit{Rate: "1/1h", By: []string{by}} }
	for name, row := range map[string]struct {
		by     string
		header http.Header
		want   string
	}{
		"one header":  {"header:X-Key", http.Header{"X-Key": {"k"}}, "header:k"},
		"two headers": {"header:X-Key", http.Header{"X-Key": {"k", "1"}}, "ip:192.0.2.1"},
		"none":        {"header:X-Key", http.Header{}, "ip:192.0.2.1"},
		"one cookie":  {"cookie:k", http.Header{"Cookie": {"k=v"}}, "cookie:v"},
		"two cookies": {"cookie:k", http.Header{"Cookie": {"k=v; k=1"}}, "ip:192.0.2.1"},
	} {
		if got := subjectFor(t, l(row.by), false, "/", row.header); got != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}
