package journal

import (
	"fmt"
	"time"
)

// spaceEvery is how often the free space is asked for.
const spaceEvery = time.Second

// room sees to the space that is to stay free and to the size of the trail: the
// oldest segments go, and when that does not help the trail is full.
func (w *writer) room() error {
	set := w.j.settings.Load()
	now := w.j.now()
	if w.removing || now.Sub(w.spaceAt) < spaceEvery && w.err == nil && now.After(w.spaceAt) {
		return nil
	}
	w.spaceAt = now
	w.short = 0
	if set.reserve > 0 {
		if free, err := w.fs.Space(w.j.dir); err == nil && free < set.reserve {
			w.short = set.reserve - free
		}
	}
	total := w.segment.size
	for _, s := range w.old {
		total += s.size
	}
	// One segment more than the size, because that much comes before the oldest
	// one goes.
	over := set.maxSize > 0 && total > set.maxSize+set.segment
	if w.short > 0 && w.expired(0) == "" {
		return fmt.Errorf("%w: %d bytes of %d are missing and no segment can go", errReserve, w.short, set.reserve)
	}
	if over && w.expired(0) == "" {
		return fmt.Errorf("%w: the trail has %d bytes, max_size is %d, and no segment can go", errReserve, total, set.maxSize)
	}
	w.removeDue = w.removeDue || w.short > 0 || over
	return nil
}
