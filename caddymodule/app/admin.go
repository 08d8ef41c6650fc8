package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/ratelimit"
)

func init() { caddy.RegisterModule(Admin{}) }

// Admin answers at /moat/limit/show and /moat/limit/reset of Caddy's admin
// endpoint: what callers have left of a limit, and giving it all back. Both take a
// LimitQuestion by POST, because Caddy logs the URI and the headers of requests to
// the endpoint, and a key may be a credential.
type Admin struct{}

// LimitQuestion says which limit of whom is meant.
type LimitQuestion struct {
	// Name of the limit. Required.
	Name string `json:"name"`
	// Site whose limit it is. Default: all sites.
	Site string `json:"site,omitempty"`
	// Keys are the values of the limit's keys, in their order.
	Keys []string `json:"keys"`
}

// CaddyModule returns the module's registration.
func (Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.moat", New: func() caddy.Module { return new(Admin) }}
}

// Routes implements caddy.AdminRouter. Caddy keeps the routes of a configuration
// that failed to load, so each request asks for the app that is live.
func (Admin) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "/moat/limit/show", Handler: answersLimit("limit.show", nil)},
		{Pattern: "/moat/limit/reset", Handler: answersLimit("limit.reset", (*App).resetLimits)},
	}
}

// LimitState is what a limit says about one subject.
type LimitState struct {
	// Site and Name of the limit, the keys it counts by, and what it grants.
	Site  string   `json:"site"`
	Name  string   `json:"name"`
	By    []string `json:"by"`
	Limit string   `json:"limit"`
	// Subject that is counted.
	Subject string `json:"subject"`
	// Remaining units or places.
	Remaining int64 `json:"remaining"`
	// RetryAfterMS is the time until one unit is there, ResetAfterMS until all are,
	// in milliseconds.
	RetryAfterMS int64 `json:"retryAfterMs"`
	ResetAfterMS int64 `json:"resetAfterMs"`
	// Degraded says that the shared store is away and this is what the instance
	// counted alone.
	Degraded bool `json:"degraded,omitempty"`
}

// maxLimitQuestion bounds the body of a question, in bytes.
const maxLimitQuestion = 64 << 10

// answersLimit does something to limits, if anything, and shows them.
func answersLimit(action string, do func(*App, *http.Request, []foundBucket) error) caddy.AdminHandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		question, err := readQuestion(w, r)
		if err != nil {
			return err
		}
		a := live.Load()
		if a == nil {
			return apiError(http.StatusServiceUnavailable, errors.New("no moat configuration is running"))
		}
		found, err := a.findLimits(question)
		if err != nil {
			return err
		}
		if do != nil {
			err = do(a, r, found)
		}
		a.recordLimits(action, found, err)
		if err != nil {
			return apiError(http.StatusServiceUnavailable, err)
		}
		states, err := a.limitStates(r, found)
		if err != nil {
			return apiError(http.StatusServiceUnavailable, err)
		}
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(struct {
			Limits []LimitState `json:"limits"`
		}{states})
	}
}

func readQuestion(w http.ResponseWriter, r *http.Request) (q LimitQuestion, err error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return q, apiError(http.StatusMethodNotAllowed, fmt.Errorf("method %s: must be POST", r.Method))
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLimitQuestion))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&q); err != nil || q.Name == "" {
		// Without the cause, which may quote a credential.
		return q, apiError(http.StatusBadRequest, errors.New(`must be a JSON object such as {"name": "login", "keys": ["192.0.2.7"]}`))
	}
	return q, nil
}

// recordLimits leaves an event for each limit.
func (a *App) recordLimits(action string, found []foundBucket, err error) {
	outcome := audit.Allow
	if err != nil {
		outcome = audit.Failure
	}
	for _, f := range found {
		a.trail.event(audit.Admin, action, "limit "+f.named.Name, outcome, func(d *audit.Details) {
			d.Set("site", f.named.Site)
			d.Set("key", f.shown(a.trail.names))
		})
	}
}

func apiError(status int, err error) error { return caddy.APIError{HTTPStatus: status, Err: err} }

// foundBucket is one bucket that a question is about.
type foundBucket struct {
	named  ratelimit.Named
	bucket ratelimit.Bucket
}

// shown is the subject for the trail, which holds no credential, and pseudonyms
// where it is to hold no names.
func (f *foundBucket) shown(hidden *pseudonyms) string {
	if slices.ContainsFunc(f.named.By, func(by string) bool {
		return by == "session" || strings.HasPrefix(by, "header:") || strings.HasPrefix(by, "cookie:")
	}) {
		return "(hidden)"
	}
	names, err := hidden.get()
	switch {
	case err != nil:
		return "(hidden)"
	case names == nil:
		return f.bucket.Subject
	}
	return veilSubject(names, f.bucket.Request.Subject)
}

// veilSubject replaces addresses and users in a limit's subject: parts separated by
// NUL, "ip:ADDRESS", "path:PATH", or "user:ISSUER", "tenant:ISSUER" with the ID as
// the part that follows.
func veilSubject(names *audit.Pseudonyms, subject string) string {
	parts := strings.Split(subject, "\x00")
	for n := 0; n < len(parts); n++ {
		kind, value, _ := strings.Cut(parts[n], ":")
		switch kind {
		case "ip":
			parts[n] = "ip:" + names.Of(audit.KindIP, value)
		case "user", "tenant", "session":
			n++
			if kind == "user" && n < len(parts) {
				parts[n] = names.Of(audit.KindUser, parts[n])
			}
		}
	}
	return strings.Join(parts, " ")
}

func (a *App) findLimits(q LimitQuestion) ([]foundBucket, error) {
	var found []foundBucket
	var errs []error
	named := false
	for _, n := range a.limiter.named {
		if n.Name != q.Name || q.Site != "" && n.Site != q.Site {
			continue
		}
		named = true
		buckets, err := n.Buckets(q.Keys, a.issuerNames())
		errs = append(errs, err)
		for _, b := range buckets {
			found = append(found, foundBucket{n, b})
		}
	}
	switch {
	case !named:
		return nil, apiError(http.StatusNotFound, fmt.Errorf("limit %.128q: no such limit; there are: %s", q.Name, a.limitNames(q.Site)))
	case len(found) == 0:
		return nil, apiError(http.StatusBadRequest, errors.Join(append(errs, errors.New("the limit counts nobody by these keys"))...))
	}
	return found, nil
}

func (a *App) limitNames(site string) string {
	var names []string
	for _, n := range a.limiter.named {
		if site == "" || n.Site == site {
			names = append(names, n.Name)
		}
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

func (a *App) limitStates(r *http.Request, found []foundBucket) ([]LimitState, error) {
	states := make([]LimitState, 0, len(found))
	for _, f := range found {
		results, err := a.limiter.store().Take(r.Context(), []ratelimit.Request{f.bucket.Request}, nil)
		if err != nil {
			return nil, fmt.Errorf("limit %s: %w", f.named.Name, err)
		}
		states = append(states, LimitState{
			Site: f.named.Site, Name: f.named.Name, By: f.named.By, Limit: f.bucket.Limit, Subject: f.bucket.Subject,
			Remaining: results[0].Remaining, Degraded: results[0].Degraded,
			RetryAfterMS: milliseconds(results[0].RetryAfter), ResetAfterMS: milliseconds(results[0].ResetAfter),
		})
	}
	return states, nil
}

// milliseconds rounds up: waiting that long is enough.
func milliseconds(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

func (a *App) resetLimits(r *http.Request, found []foundBucket) error {
	var errs []error
	for _, f := range found {
		if err := a.limiter.store().Reset(r.Context(), []ratelimit.Request{f.bucket.Request}); err != nil {
			errs = append(errs, fmt.Errorf("limit %s: %w", f.named.Name, err))
		}
	}
	return errors.Join(errs...)
}

var _ caddy.AdminRouter = Admin{}
