package journal

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

// entry is an event on its way to the writer. It goes back to the pool from
// whoever holds it last: the one who waits for it, else the writer.
type entry struct {
	line  []byte // everything but the chain
	class audit.Class
	level Level      // how safe it has to be before the answer
	done  chan error // holds one answer, nil before the first wait
	timer *time.Timer
	state atomic.Int32
}

// lineRoom is enough for an ordinary event.
const lineRoom = 1024

const (
	unattended int32 = iota // nobody waits, the writer releases it
	attended                // somebody waits
	answered                // the answer is in done
)

// arm makes en wait for its answer, for at most d.
func (en *entry) arm(d time.Duration) {
	en.state.Store(attended)
	if en.timer == nil {
		en.timer, en.done = time.NewTimer(d), make(chan error, 1)
		return
	}
	en.timer.Reset(d)
}

// drops counts events that were not taken: in total, and since the last time
// this was written down.
type drops struct {
	mu       sync.Mutex
	total    [3]uint64
	pending  [3]uint64
	from, to time.Time
}

func (d *drops) add(class audit.Class, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pending == ([3]uint64{}) {
		d.from = now
	}
	d.to = now
	d.total[order(class)]++
	d.pending[order(class)]++
}

func (d *drops) totals() map[audit.Class]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return byClass(d.total)
}

// gap returns the event that writes the drops down, or nil when there is
// nothing to tell, and starts anew.
func (d *drops) gap(now time.Time) *audit.Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.pending
	if n == ([3]uint64{}) {
		return nil
	}
	d.pending = [3]uint64{}
	e := &audit.Event{
		Timestamp: now, ID: audit.NewID(now), Action: audit.ActionGap, Resource: "trail",
		Class: audit.Security, Outcome: audit.Failure, Reason: "queue-full", Severity: audit.High,
	}
	e.Details.Set("count", int64(n[0]+n[1]+n[2])) // #nosec G115 -- far below 2^63
	for _, class := range []audit.Class{audit.Access, audit.Security, audit.Admin} {
		e.Details.Set(string(class), int64(n[order(class)])) // #nosec G115 -- far below 2^63
	}
	e.Details.Set("from", d.from.UTC().Format(time.RFC3339Nano))
	e.Details.Set("to", d.to.UTC().Format(time.RFC3339Nano))
	return e
}
