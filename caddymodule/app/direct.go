package app

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/follow"
)

// directs holds the one trail that is used without a journal.
var directs = caddy.NewUsagePool()

// direct is the trail without a journal: events go to the log moat.audit, and
// to standard output when it is a sink. They are chained like those of a
// journal, but nothing keeps them. A reader that stands still makes it drop
// events; it never makes a request wait.
type direct struct {
	instance string
	flood    *audit.Flood
	done     chan struct{}

	mu     sync.Mutex
	seq    uint64
	prev   string
	queue  chan printed
	stdout *printer // nil: nothing is printed
}

// printed is a line that waits for being printed.
type printed struct {
	line []byte
	to   *printer
}

// printer says which events are printed, and how.
type printer struct {
	filter follow.Filter
	format func(dst, line []byte) ([]byte, error)
}

// add appends the event's printed form and a newline, or nothing.
func (p *printer) add(dst, line []byte) ([]byte, error) {
	if !p.filter.Keeps(line) {
		return dst, nil
	}
	if p.format == nil {
		return append(append(dst, line...), '\n'), nil
	}
	dst, err := p.format(dst, line)
	return append(dst, '\n'), err
}

const directQueue = 4096

func (a *App) directTrail(instance string, names *pseudonyms) (*trailHandle, error) {
	stdout, err := a.printer()
	if err != nil {
		return nil, err
	}
	d, err := hold(a, directs, "direct "+instance, func() (*direct, error) { return newDirect(instance, stdout), nil })
	if err != nil {
		return nil, err
	}
	return &trailHandle{trail: &directView{d, stdout}, names: names}, nil
}

// printer returns what standard output is to get, nil when it is no sink. All sinks
// are known to be stdout.
func (a *App) printer() (*printer, error) {
	if len(a.Audit.Sinks) == 0 {
		return nil, nil
	}
	s := a.Audit.Sinks[0]
	if len(a.Audit.Sinks) > 1 {
		return nil, fmt.Errorf("audit: sink %s: stands twice; without a journal it may stand once", s.Type)
	}
	settings, err := a.settings(s)
	if err != nil {
		return nil, fmt.Errorf("audit: sink %s: %w", s.Type, err)
	}
	format, err := s.formatOf(settings.Target())
	if err != nil {
		return nil, fmt.Errorf("audit: sink %s: %w", s.Type, err)
	}
	return &printer{s.filter(), format}, nil
}

// directView switches standard output on or off when its configuration is
// established.
type directView struct {
	*direct
	wanted *printer
}

func (v *directView) start() error { return nil }

func (v *directView) establish(*App) {
	v.mu.Lock()
	v.stdout = v.wanted
	v.mu.Unlock()
}

func newDirect(instance string, stdout *printer) *direct {
	d := &direct{
		instance: instance,
		stdout:   stdout,
		prev:     strings.Repeat("0", 2*sha256.Size),
		queue:    make(chan printed, directQueue),
		done:     make(chan struct{}),
	}
	d.flood = audit.NewFlood(audit.FloodConfig{Emit: func(e *audit.Event) { _ = d.write(e) }})
	go sweep(d.flood, d.done)
	go d.print()
	return d
}

// Record takes an event; refusals that flood are counted and summed up.
func (d *direct) Record(e *audit.Event) error {
	if !d.flood.Admit(e) {
		return nil
	}
	return d.write(e)
}

func (d *direct) write(e *audit.Event) error {
	d.mu.Lock()
	line, stdout, err := d.chain(e), d.stdout, error(nil)
	if stdout != nil {
		err = d.enqueue(stdout, line)
	}
	d.mu.Unlock()
	if c := logger().Named("audit").Check(zap.InfoLevel, "event"); c != nil {
		c.Write(zap.Any("event", json.RawMessage(line)))
	}
	return counted(e, err)
}

// enqueue hands a line over to be printed.
func (d *direct) enqueue(to *printer, line []byte) error {
	select {
	case d.queue <- printed{line, to}:
		return nil
	default:
		return audit.ErrFull
	}
}

// chain numbers the event and links it to the one before. The caller's event
// is left as it is.
func (d *direct) chain(e *audit.Event) []byte {
	d.seq++
	numbered := *e
	numbered.Seq, numbered.Instance, numbered.Prev = d.seq, d.instance, d.prev
	line := numbered.AppendJSON(nil)
	sum := sha256.Sum256(line)
	d.prev = hex.EncodeToString(sum[:])
	return line
}

// print writes the line, if it is one that is printed.
func (p printed) print() error {
	text, err := p.to.add(nil, p.line)
	if err != nil || len(text) == 0 {
		return err
	}
	_, err = os.Stdout.Write(text)
	return err
}

func (d *direct) print() {
	for {
		select {
		case p := <-d.queue:
			_ = p.print() // Nobody is left to tell.
		case <-d.done:
			return
		}
	}
}

// Down is never set: this trail makes no promise that it could break.
func (d *direct) Down() error { return nil }

// Destruct prints what is queued and ends.
func (d *direct) Destruct() error {
	d.flood.Close()
	close(d.done)
	for {
		select {
		case p := <-d.queue:
			if err := p.print(); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}
