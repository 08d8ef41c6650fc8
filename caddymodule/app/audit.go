package app

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/audit/journal"
)

// Audit is the trail and where it goes from there.
type Audit struct {
	// Journal keeps the events on disk. Every sink but stdout needs it.
	Journal *Journal `json:"journal,omitempty"`
	// Sinks follow the journal, each at its own pace.
	Sinks []*Sink `json:"sink,omitempty"`
	// Instance names this gateway in every event. Default: the host name.
	Instance string `json:"instance,omitempty"`
	// OnFull is "closed" (default) or "open": whether requests that would be
	// allowed are refused with 503 while the trail cannot take events.
	OnFull string `json:"on_full,omitempty"`
}

// Journal is the directory of the trail.
type Journal struct {
	// Dir is created with mode 0700 at start when it does not exist.
	Dir string `json:"dir"`
	// Fsync is the longest time until an event is on disk, or "always": then
	// the end of an answer waits for its event. Default: 100ms.
	Fsync string `json:"fsync,omitempty"`
	// Keep is the age at which old events are removed. Default: never.
	Keep caddy.Duration `json:"keep,omitempty"`
	// MaxSize is the size in bytes above which the oldest events are removed.
	// Default: no bound.
	MaxSize int64 `json:"max_size,omitempty"`
}

// Sink is one place that the events also go to.
type Sink struct {
	// Type is stdout, redis_stream, webhook or postgres.
	Type string `json:"type"`
	// Key of the Redis stream; the instance's name is appended.
	Key string `json:"key,omitempty"`
	// URL of the webhook.
	URL string `json:"url,omitempty"`
	// Secret signs webhook deliveries; several during a rotation.
	Secret []string `json:"secret,omitempty"`
	// DSN of the PostgreSQL database.
	DSN string `json:"dsn,omitempty"`
}

const (
	sinkStdout   = "stdout"
	sinkRedis    = "redis_stream"
	sinkWebhook  = "webhook"
	sinkPostgres = "postgres"
)

// provisionTrail checks the audit block and prepares the trail. Nothing is
// opened before the app starts.
func (a *App) provisionTrail() error {
	if a.Audit == nil {
		a.logger.Warn("no audit block: events go to the log moat.audit only, and nothing keeps them")
		a.Audit = new(Audit)
	}
	if a.Audit.OnFull == "open" {
		a.logger.Warn("audit: on_full open: requests pass while the trail cannot take events")
	}
	instance, err := a.Audit.instance()
	errs := []error{err}
	if a.Audit.Journal == nil {
		for _, s := range a.Audit.Sinks {
			if s.Type != sinkStdout {
				errs = append(errs, fmt.Errorf("audit: sink %s: needs a journal to follow; only stdout works without one", s.Type))
			}
		}
		a.trail, err = a.directTrail(instance)
		return errors.Join(append(errs, err)...)
	}
	config, err := a.Audit.Journal.config(instance)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	a.trail, err = a.journalTrail(config, a.Audit.Sinks)
	return err
}

func (c *Audit) instance() (string, error) {
	if c.Instance != "" {
		return dispense.Expand("audit: instance", c.Instance)
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		return "moat", nil //nolint:nilerr // A machine without a name still has a trail.
	}
	clean := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, host)
	return clean[:min(len(clean), 64)], nil
}

func (j *Journal) config(instance string) (journal.Config, error) {
	dir, err := dispense.Expand("audit: journal", j.Dir)
	errs := []error{err}
	c := journal.Config{
		Dir:      dir,
		Instance: instance,
		Keep:     time.Duration(j.Keep),
		MaxSize:  j.MaxSize,
	}
	switch j.Fsync {
	case "":
	case "always":
		c.FsyncAlways = true
	default:
		c.Fsync, err = dispense.ParseDuration(j.Fsync)
		if err != nil {
			errs = append(errs, fmt.Errorf("audit: journal: fsync %q: %w, or always", j.Fsync, err))
		}
	}
	if err == nil && dir != "" {
		errs = append(errs, c.Validate())
	}
	return c, errors.Join(errs...)
}
