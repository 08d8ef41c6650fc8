package limit

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/internal/ratelimit"
)

// statusClientGone is what Caddy's proxy reports when the client went away.
const statusClientGone = 499

// charged is something that was taken for a request and on which its answer has a
// bearing: a unit that only certain answers use up, which was reserved before so
// that parallel requests cannot slip past; a unit of which the answer says how
// many it was; a place that is free again afterwards.
type charged struct {
	limit   *Limit
	request ratelimit.Request
}

// pending reports whether the answer has a bearing on what the limit takes.
func (l *Limit) pending() bool { return len(l.Count) > 0 || l.costFrom != "" || l.Concurrent > 0 }

// settle runs the request and then puts right what was taken for it.
func (h *Handler) settle(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, pending []charged) error {
	seen := &statusWriter{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}}
	start := time.Now()
	var err error
	returned := false
	defer func() {
		if seen.status == 0 && err != nil {
			seen.status = denial.Status(err)
		}
		if seen.status == 0 && returned {
			seen.status, seen.header = http.StatusOK, seen.Header()
		}
		h.putRight(pending, seen, r.Context().Err() != nil, time.Since(start))
	}()
	err = next.ServeHTTP(seen, r)
	returned = true
	return err
}

// putRight gives units and places back and takes what the answer cost, in one call
// each.
func (h *Handler) putRight(pending []charged, seen *statusWriter, gone bool, took time.Duration) {
	var give, debit []ratelimit.Request
	for _, c := range pending {
		req := c.request
		switch {
		case c.limit.Concurrent > 0:
			give = append(give, req)
		case c.limit.costFrom != "":
			if cost := c.limit.costOf(seen); cost == 0 {
				req.Age = took
				give = append(give, req)
			} else if cost > 1 {
				req.Cost = cost - 1
				debit = append(debit, req)
			}
		case !c.limit.counts(seen.status, gone):
			// A unit that has meanwhile come back by itself must not come back twice.
			req.Age = took
			give = append(give, req)
		}
	}
	// Failing keeps a unit taken, a place until it expires: too strict for a while,
	// never too lax. A cost that could not be charged is lost.
	if len(give) > 0 {
		_ = h.store.Give(context.Background(), give)
	}
	if len(debit) > 0 {
		_ = h.store.Debit(context.Background(), debit)
	}
}

// counts reports whether an answer uses a reserved unit up. One that nobody waited
// for does, or hanging up would be a way around the limit.
func (l *Limit) counts(status int, gone bool) bool {
	return status == 0 || status == statusClientGone || gone || slices.Contains(l.Count, status)
}

// maxCost bounds what one answer can cost; above every bucket it is the same.
const maxCost = int64(1) << 40

// costOf is what the answer says that it cost, or 1.
func (l *Limit) costOf(seen *statusWriter) int64 {
	values := seen.header[l.costFrom]
	if len(values) != 1 {
		return 1
	}
	n, err := strconv.ParseUint(values[0], 10, 63)
	if errors.Is(err, strconv.ErrRange) {
		return maxCost
	}
	if err != nil {
		return 1
	}
	return min(int64(n), maxCost) //nolint:gosec // 63 bits.
}

// statusWriter sees the final status and the headers that went with it.
type statusWriter struct {
	caddyhttp.ResponseWriterWrapper
	status int
	header http.Header
}

// WriteHeader notes the first final status.
func (s *statusWriter) WriteHeader(status int) {
	if s.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		s.status, s.header = status, s.Header().Clone() // What outer handlers take off still counts.
	}
	s.ResponseWriterWrapper.WriteHeader(status)
}

// Write sends a 200 first, if nothing else was.
func (s *statusWriter) Write(p []byte) (int, error) {
	if s.status == 0 {
		s.status, s.header = http.StatusOK, s.Header().Clone()
	}
	return s.ResponseWriterWrapper.Write(p)
}
