package redisstore

import "time"

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
