package app

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/audit"
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
	// RecordHeaders names request headers whose first 256 bytes are put into the
	// events, at most 16 headers; of one that a request has several times, the
	// number of its values only. A header that may carry a credential is an error.
	// Default: none.
	RecordHeaders []string `json:"record_headers,omitempty"`
	// Pseudonymize replaces addresses, users or both by keyed hashes before
	// anything is written. Default: they are written as they are.
	Pseudonymize *Pseudonymize `json:"pseudonymize,omitempty"`
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
	// MaxSize is the size in bytes above which the oldest events are removed, at
	// least 64 MiB. Default: 80 % of the space that is free at start.
	MaxSize int64 `json:"max_size,omitempty"`
	// Reserve is the space in bytes that the trail leaves free on its disk: the
	// oldest events go, and when that does not help the trail is full. 0 reserves
	// nothing; at most 1 PiB. Default: 268435456 (256 MiB).
	Reserve *int64 `json:"reserve,omitempty"`
	// Wait says by class what an answer waits for: that its event is "queued" (lost
	// when the process is killed), "written" (with the operating system: survives
	// kill -9) or "synced" (on disk: survives a loss of power). Fsync always makes
	// all of them synced. Default: access queued, security and admin written.
	Wait map[string]string `json:"wait,omitempty"`
	// Key is the PEM file (PKCS #8) with the Ed25519 keys that sign checkpoints,
	// the current one first. It is created with mode 0600 at start when it does not
	// exist. Keep it elsewhere than the trail: who can write both can sign a
	// changed trail. Default: checkpoint.key in the directory.
	Key string `json:"key,omitempty"`
}

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
	headers, headersErr := a.Audit.recordHeaders()
	names, namesErr := a.Audit.pseudonyms()
	a.recordHeaders = headers
	errs := []error{err, headersErr, namesErr}
	if a.Audit.Journal == nil {
		for n, s := range a.Audit.Sinks {
			if s == nil {
				errs = append(errs, fmt.Errorf("audit: sink %d: is empty", n+1))
				continue
			}
			if s.Type != sinkStdout || s.Required {
				errs = append(errs, fmt.Errorf("audit: sink %s: needs a journal to follow; only stdout works without one, and is not required then", s.Type))
			}
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		a.trail, err = a.directTrail(instance, names)
		return err
	}
	config, err := a.Audit.Journal.config(instance)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	a.trail, err = a.journalTrail(config, a.Audit.Sinks, names)
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
		MaxSize:  cmp.Or(j.MaxSize, journal.AutoSize),
		Reserve:  journal.DefaultReserve,
		KeyFile:  filepath.Join(dir, "checkpoint.key"),
	}
	if j.Reserve != nil {
		c.Reserve = *j.Reserve
	}
	if j.Key != "" {
		var keyErr error
		c.KeyFile, keyErr = dispense.Expand("audit: journal: key", j.Key)
		errs = append(errs, keyErr)
	}
	var waitErr error
	c.Waits, waitErr = j.waits()
	if waitErr != nil {
		errs = append(errs, fmt.Errorf("audit: journal: %w", waitErr))
	}
	var fsyncErr error
	switch j.Fsync {
	case "":
	case "always":
		c.FsyncAlways = true
	default:
		c.Fsync, fsyncErr = dispense.ParseDuration(j.Fsync)
		if fsyncErr != nil {
			errs = append(errs, fmt.Errorf("audit: journal: fsync %q: %w, or always", j.Fsync, fsyncErr))
		}
	}
	if err == nil && fsyncErr == nil {
		errs = append(errs, c.Validate())
	}
	return c, errors.Join(errs...)
}

// waits reads Wait.
func (j *Journal) waits() (map[audit.Class]journal.Level, error) {
	waits := map[audit.Class]journal.Level{
		audit.Access: journal.Queued, audit.Security: journal.Written, audit.Admin: journal.Written,
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(j.Wait)) {
		class := audit.Class(name)
		if _, known := waits[class]; !known {
			errs = append(errs, fmt.Errorf("wait %.32q: must be for %s, %s or %s", name, audit.Access, audit.Security, audit.Admin))
			continue
		}
		level, err := journal.ParseLevel(j.Wait[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("wait %s %.32q: must be %s, %s or %s",
				name, j.Wait[name], journal.Queued, journal.Written, journal.Synced))
			continue
		}
		waits[class] = level
	}
	return waits, errors.Join(errs...)
}
