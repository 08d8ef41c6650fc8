package redisstore

import (
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

// HoldPlacesFor shortens the time after which a place that is not renewed is free.
func (s *Store) HoldPlacesFor(ttl time.Duration) { s.holdPlacesFor(ttl) }

// Renewing reports whether places are being renewed.
func (s *Store) Renewing() bool {
	s.places.mu.Lock()
	defer s.places.mu.Unlock()
	return s.places.renewing
}

// Renew renews all places now.
func (s *Store) Renew() { s.renew(s.places.snapshot()) }

// Key is where the bucket of a limit and a subject is kept.
func (s *Store) Key(limit, subject string) string {
	return s.keys([]ratelimit.Request{{Limit: limit, Subject: subject}})[0]
}
