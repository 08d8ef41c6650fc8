package limit

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/internal/ratelimit"
)

// statusClientGone is what Caddy's proxy reports when the client went away.
const statusClientGone = 499

// reservation is a unit of a limit that counts certain answers only. It was
// taken before the request went on, so that parallel requests cannot slip past,
// and goes back unless the answer counts.
type reservation struct {
	limit   *Limit
	store   ratelimit.Store
	request ratelimit.Request
	at      time.Time
}

func giveBack(reserved []reservation) {
	for _, u := range reserved {
		// A unit that has meanwhile come back by itself must not come back twice.
		u.request.Age = time.Since(u.at)
		// Failing keeps the unit taken: too strict for a while, never too lax.
		_ = u.store.Give(context.Background(), []ratelimit.Request{u.request})
	}
}

// settle runs the request and gives back the units whose answer does not count.
func settle(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, reserved []reservation) error {
	seen := &statusWriter{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}}
	var err error
	returned := false
	defer func() {
		status := seen.status
		if status == 0 && err != nil {
			status = denial.Status(err)
		}
		if status == 0 && returned {
			status = http.StatusOK
		}
		giveBack(slices.DeleteFunc(reserved, func(u reservation) bool {
			// An answer that nobody waited for counts, or hanging up would be a
			// way around the limit.
			return status == 0 || status == statusClientGone || r.Context().Err() != nil || slices.Contains(u.limit.Count, status)
		}))
	}()
	err = next.ServeHTTP(seen, r)
	returned = true
	return err
}

// statusWriter sees the final status.
type statusWriter struct {
	caddyhttp.ResponseWriterWrapper
	status int
}

// WriteHeader notes the first final status.
func (s *statusWriter) WriteHeader(status int) {
	if s.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		s.status = status
	}
	s.ResponseWriterWrapper.WriteHeader(status)
}

// Write sends a 200 first, if nothing else was.
func (s *statusWriter) Write(p []byte) (int, error) {
	if s.status == 0 {
		s.status = http.StatusOK
	}
	return s.ResponseWriterWrapper.Write(p)
}
