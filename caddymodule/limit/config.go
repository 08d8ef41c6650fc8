package limit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/caddymodule/internal/telemetry"
	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/rbac"
)

const (
	modeShadow  = "shadow"
	onErrorOpen = "open"

	defaultName    = "default"
	defaultRate    = "100/1m"
	defaultMessage = "Too many requests, please try again later"
)

// Limit is one limit.
type Limit struct {
	// Name labels the limit in answers, metrics and events. Default: its keys
	// joined with "-".
	Name string `json:"name,omitempty"`
	// Rate is N/WINDOW, for example 100/1m: a bucket of N units that fills up
	// again evenly over WINDOW.
	Rate string `json:"rate"`
	// By are the keys: ip, user, tenant, session, header:X, cookie:X, path,
	// param:x, all. Several make one combined key.
	By []string `json:"by"`
	// On limits the limit to requests that one of these matches. Default: all.
	On []On `json:"on,omitempty"`
	// Count are the answer statuses that use a unit up. The unit is reserved
	// before and given back when the answer has another status. Default: every
	// request counts.
	Count []int `json:"count,omitempty"`
	// Tier gives callers with a role another rate. Of several the highest counts.
	Tier map[string]string `json:"tier,omitempty"`
	// Burst is the bucket's capacity. Default: N.
	Burst int64 `json:"burst,omitempty"`
	// Except are addresses and prefixes that the limit does not apply to.
	Except []string `json:"except,omitempty"`
	// Mode is "enforce" (default) or "shadow": count and record, refuse nothing.
	Mode string `json:"mode,omitempty"`
	// Message is the title of the refusal.
	Message string `json:"message,omitempty"`
	// OnError says what holds while the shared store is away: "local" (this
	// instance's own count of N divided by Instances), "open" or "closed" (503).
	// Default: the redis block's on_error.
	OnError string `json:"on_error,omitempty"`
	// Instances is the number of gateways that share the limit. Default: the
	// redis block's instances.
	Instances int `json:"instances,omitempty"`
	// Place is where the limit stands, as "file:line", for errors.
	Place string `json:"place,omitempty"`

	bucket   string
	rate     ratelimit.Rate
	tiers    map[string]ratelimit.Rate
	keys     []key
	on       []*rbac.On
	except   []netip.Prefix
	identity bool
	fold     bool

	allowed, blocked, shadowed prometheus.Counter
}

// On selects requests by method and path pattern.
type On struct {
	// Methods, or ["*"].
	Methods []string `json:"methods"`
	// Pattern as in a rule.
	Pattern string `json:"pattern"`
}

type key struct{ kind, name string }

// NeedsIdentity reports whether the limit is charged to an authenticated
// caller, so that it has to run after authentication.
func (l *Limit) NeedsIdentity() bool {
	return slices.ContainsFunc(l.By, func(by string) bool {
		return by == "user" || by == "tenant" || by == "session"
	})
}

func (l *Limit) compile(fold bool) error {
	if l.Name == "" {
		l.Name = strings.Join(l.By, "-")
	}
	l.identity, l.fold = l.NeedsIdentity(), fold
	err := errors.Join(
		l.compileRate(), l.compileKeys(), l.compileOn(fold), l.compileTiers(), l.compileExcept(), l.checkWords(),
	)
	if err == nil {
		l.allowed = telemetry.Limits.WithLabelValues(l.Name, "allowed")
		l.blocked = telemetry.Limits.WithLabelValues(l.Name, "blocked")
		l.shadowed = telemetry.Limits.WithLabelValues(l.Name, "shadow_blocked")
	}
	return err
}

// place names the limit in errors.
func (l *Limit) place() string {
	if l.Place == "" {
		return fmt.Sprintf("limit %q", l.Name)
	}
	return fmt.Sprintf("limit %q at %s", l.Name, l.Place)
}

// shape is what the limit counts: its name, keys, requests and answers.
func (l *Limit) shape() string {
	text := fmt.Sprint(l.By, l.On, l.Count)
	sum := sha256.Sum256([]byte(text))
	return l.Name + "-" + hex.EncodeToString(sum[:4])
}

// expand replaces placeholders in what may differ between machines.
func (l *Limit) expand() error {
	var errs []error
	one := func(word string, value *string) {
		if *value == "" {
			return
		}
		out, err := dispense.Expand(word, *value)
		if errs = append(errs, err); err == nil {
			*value = out
		}
	}
	one("rate", &l.Rate)
	one("message", &l.Message)
	for i := range l.Except {
		one("except", &l.Except[i])
	}
	return errors.Join(errs...)
}

// checkTiers makes sure that every tier is of a role that somebody can have.
func (l *Limit) checkTiers(roles *rbac.Roles) error {
	var errs []error
	for role := range l.Tier {
		if !roles.Has(role) {
			errs = append(errs, fmt.Errorf("tier %s: no such role is configured", role))
		}
	}
	return errors.Join(errs...)
}

func (l *Limit) compileRate() (err error) {
	if l.rate, err = ratelimit.ParseRate(l.Rate); err != nil {
		return err
	}
	if l.Burst < 0 {
		return fmt.Errorf("burst %d: must be at least 1", l.Burst)
	}
	l.rate.Burst = l.Burst
	return l.rate.Validate()
}

func (l *Limit) compileKeys() error {
	if len(l.By) == 0 {
		return errors.New("by: needs at least one key")
	}
	var errs []error
	for _, by := range l.By {
		kind, name, named := strings.Cut(by, ":")
		valid := false
		switch kind {
		case "ip", "user", "tenant", "session", "path", "all":
			valid = !named
		case "header":
			valid = httpguts.ValidHeaderFieldName(name)
			name = canonicalHeader(name)
		case "cookie":
			valid = httpguts.ValidHeaderFieldName(name)
		case "param":
			valid = name != ""
			if len(l.On) == 0 {
				errs = append(errs, fmt.Errorf("by %q: needs `on METHODS PATTERN` with that parameter", by))
			}
		}
		if !valid {
			errs = append(errs, fmt.Errorf("by %q: must be ip, user, tenant, session, path, all, header:NAME, cookie:NAME or param:NAME", by))
		}
		l.keys = append(l.keys, key{kind, name})
	}
	return errors.Join(errs...)
}

func (l *Limit) compileOn(fold bool) error {
	var errs []error
	for _, on := range l.On {
		compiled, err := rbac.CompileOn(on.Methods, on.Pattern)
		if err != nil {
			errs = append(errs, fmt.Errorf("on %s %s: %w", strings.Join(on.Methods, ","), on.Pattern, err))
			continue
		}
		if fold {
			compiled = compiled.CaseInsensitive()
		}
		l.on = append(l.on, compiled)
		for _, k := range l.keys {
			if k.kind == "param" && !strings.Contains(on.Pattern, "{"+k.name+"}") && !strings.Contains(on.Pattern, "{"+k.name+"...}") {
				errs = append(errs, fmt.Errorf("by param:%s: the pattern %s has no such parameter", k.name, on.Pattern))
			}
		}
	}
	return errors.Join(errs...)
}

func (l *Limit) compileTiers() error {
	if len(l.Tier) > 0 && !l.identity {
		return errors.New("tier: needs a limit by user, tenant or session; before authentication nobody has a role")
	}
	var errs []error
	l.tiers = make(map[string]ratelimit.Rate, len(l.Tier))
	for role, text := range l.Tier {
		rate, err := ratelimit.ParseRate(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("tier %s: %w", role, err))
		}
		l.tiers[role] = rate
	}
	return errors.Join(errs...)
}

func (l *Limit) compileExcept() error {
	var errs []error
	for _, text := range l.Except {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			addr, addrErr := netip.ParseAddr(text)
			if addrErr != nil {
				errs = append(errs, fmt.Errorf("except %q: must be an address or a prefix such as 10.0.0.0/8", text))
				continue
			}
			addr = addr.Unmap()
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		l.except = append(l.except, prefix.Masked())
	}
	return errors.Join(errs...)
}

func (l *Limit) checkWords() error {
	var errs []error
	if l.Mode != "" && l.Mode != "enforce" && l.Mode != modeShadow {
		errs = append(errs, fmt.Errorf("mode %q: must be enforce or shadow", l.Mode))
	}
	if l.OnError != "" && l.OnError != "local" && l.OnError != onErrorOpen && l.OnError != "closed" {
		errs = append(errs, fmt.Errorf("on_error %q: must be local, open or closed", l.OnError))
	}
	for _, status := range l.Count {
		if status < 100 || status > 599 {
			errs = append(errs, fmt.Errorf("count %s: must be an HTTP status", strconv.Itoa(status)))
		}
	}
	return errors.Join(errs...)
}
