package rbac

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/canon"
	"github.com/moat-gateway/moat/internal/identity"
	"github.com/moat-gateway/moat/internal/rbac"
)

// looked is an exchange whose rule was looked up.
func looked(t *testing.T, h *Handler, method, path string) (*http.Request, *exchange.Exchange) {
	t.Helper()
	policy, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: []rbac.RuleConfig{
		{Methods: []string{"*"}, Pattern: "/open/**", Require: []string{"public"}},
		{Methods: []string{"*"}, Pattern: "/**", Require: []string{"authenticated"}},
		{Methods: []string{"*"}, Pattern: "/internal/**", Require: []string{"deny"}},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.policy.Store(policy)
	r := httptest.NewRequest(method, path, nil)
	ex := &exchange.Exchange{Canonical: true, Target: canon.Target{Method: method, Path: path, Match: path}}
	return r, ex
}

func TestAnAllowedRequestIsRefusedWhileTheTrailIsDown(t *testing.T) {
	for name, row := range map[string]struct {
		path   string
		caller *identity.Principal
		down   error
		want   string
	}{
		"public":             {"/open/a", identity.Anonymous(), errors.New("full"), "audit.unavailable"},
		"known":              {"/a", identity.Authenticated(identity.Principal{ID: "u"}), errors.New("full"), "audit.unavailable"},
		"refused stays so":   {"/a", identity.Anonymous(), errors.New("full"), "rbac.no-identity"},
		"denied stays so":    {"/internal/a", identity.Anonymous(), errors.New("full"), "rbac.deny-rule"},
		"the trail is fine":  {"/open/a", identity.Anonymous(), nil, ""},
		"nobody was judged":  {"/a", nil, nil, "rbac.no-identity"},
		"nobody, public":     {"/open/a", nil, nil, ""},
		"internal, known":    {"/internal/a", identity.Authenticated(identity.Principal{ID: "u"}), nil, "rbac.deny-rule"},
		"a hidden parameter": {"/internal;x/a", identity.Authenticated(identity.Principal{ID: "u"}), nil, "rbac.path-parameter"},
	} {
		h := &Handler{Realm: "moat"}
		r, ex := looked(t, h, "GET", row.path)
		ex.Caller, ex.TrailDown = row.caller, row.down
		refusal := h.match(r, ex)
		if refusal == nil {
			refusal = h.decide(httptest.NewRecorder(), r, ex)
		}
		got := ""
		if refusal != nil {
			got = refusal.Reason
		}
		if got != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
		if ex.Decided != (row.want == "") {
			t.Errorf("%s: decided %v", name, ex.Decided)
		}
	}
}

func TestNothingIsDecidedWithoutALookUp(t *testing.T) {
	refusal := (&Handler{}).decide(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil), new(exchange.Exchange))
	if refusal == nil || refusal.Reason != "rbac.no-lookup" {
		t.Errorf("%+v", refusal)
	}
}

func TestTrailersThatNobodyMaySendDoNotComeBack(t *testing.T) {
	r := httptest.NewRequest("POST", "/", io.NopCloser(strings.NewReader("body")))
	trailer := http.Header{"X-Checksum": nil, "X-User-Id": nil}
	ex := &exchange.Exchange{Trailer: trailer, Unwanted: []*canon.HeaderSet{canon.NewHeaderSet("X-User-Id")}}
	passTrailers(r, ex)
	trailer["X-Checksum"] = []string{"1"}
	trailer["X_user_id"] = []string{"admin"}
	trailer["X-User-Id"] = []string{"admin"}
	if _, err := io.ReadAll(r.Body); err != nil {
		t.Fatal(err)
	}
	if len(r.Trailer) != 1 || r.Trailer.Get("X-Checksum") != "1" {
		t.Errorf("trailers %v", r.Trailer)
	}
}

func TestWhatChangedSinceItWasJudgedIsRefused(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"path":   func(r *http.Request) { r.URL.Path = "/internal/x" },
		"query":  func(r *http.Request) { r.URL.RawQuery = "admin=1" },
		"method": func(r *http.Request) { r.Method = "DELETE" },
	} {
		h := new(Handler)
		r, ex := looked(t, h, "GET", "/open/a")
		if refusal := h.match(r, ex); refusal != nil {
			t.Fatalf("%s: %+v", name, refusal)
		}
		change(r)
		if refusal := h.decide(httptest.NewRecorder(), r, ex); refusal == nil || ex.Decided {
			t.Errorf("%s changed behind the look-up: allowed", name)
		}
		r, ex = looked(t, h, "GET", "/open/a")
		change(r)
		if refusal := h.match(r, ex); refusal == nil {
			t.Errorf("%s changed behind the guard: looked up", name)
		}
	}
}
