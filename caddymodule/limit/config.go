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

// Limit is one limit: a rate, or with Concurrent of requests at one time.
type Limit struct {
	// Name labels the limit in answers, metrics and events. Default: its keys
	// joined with "-", behind "concurrent-" for a concurrency limit.
	Name string `json:"name,omitempty"`
	// Rate is N/WINDOW, for example 100/1m: a bucket of N units that fills up
	// again evenly over WINDOW. Several, separated by spaces, hold together, for
	// example "10/1s 1000/1h". In RateLimit headers each is then named
	// NAME-WINDOW.
	Rate string `json:"rate,omitempty"`
	// Concurrent makes it a limit of that many requests at one time, in place of
	// Rate. A request that an instance left behind when it crashed is forgotten
	// after 30 seconds. Between 1 and 1000000. Default: none.
	Concurrent int64 `json:"concurrent,omitempty"`
	// By are the keys: ip, user, tenant, session, header:X, cookie:X, path,
	// param:x, all. Several make one combined key.
	By []string `json:"by"`
	// On limits the limit to requests that one of these matches. Default: all.
	On []On `json:"on,omitempty"`
	// Count are the answer statuses that use a unit up. The unit is reserved
	// before and given back when the answer has another status. Default: every
	// request counts.
	Count []int `json:"count,omitempty"`
	// Cost is how many units a request takes: a number, or "header:X" for the
	// number in that header of the answer. Of the latter one unit is taken before
	// and the rest when the answer has ended, as far as the bucket holds it; an
	// answer without one whole number there costs one unit. Default: 1.
	Cost string `json:"cost,omitempty"`
	// Tier gives callers with a role another rate, or number of places. Of several
	// the highest counts.
	Tier map[string]string `json:"tier,omitempty"`
	// Burst is the bucket's capacity. Only beside one rate; tiers keep their own.
	// Default: N.
	Burst int64 `json:"burst,omitempty"`
	// Lease is how many units an instance takes in advance for a subject that is
	// busy, so that a very hot key is not a call to Redis each time. Up to that
	// many units per instance may be granted beyond the rate in one window, never
	// over a long time. At most a tenth of the bucket. Default: none, exact.
	Lease int64 `json:"lease,omitempty"`
	// Except are addresses and prefixes that the limit does not apply to.
	Except []string `json:"except,omitempty"`
	// IPv6Prefix is how many bits of an IPv6 address the key ip goes by. Between 1
	// and 128. Default: 64, which is what one subscriber gets.
	IPv6Prefix int `json:"ipv6_prefix,omitempty"`
	// Mode is "enforce" (default) or "shadow": count and record, refuse nothing.
	Mode string `json:"mode,omitempty"`
	// Message is the title of the refusal.
	Message string `json:"message,omitempty"`
	// Quiet keeps the limit out of the headers of answers that it allows.
	Quiet bool `json:"quiet,omitempty"`
	// OnError says what holds while the shared store is away: "local" (this
	// instance's own count of N divided by Instances), "open" or "closed" (503).
	// Default: the redis block's on_error.
	OnError string `json:"on_error,omitempty"`
	// Instances is the number of gateways that share the limit. Default: the
	// redis block's instances.
	Instances int `json:"instances,omitempty"`
	// Place is where the limit stands, as "file:line", for errors.
	Place string `json:"place,omitempty"`

	grants   []grant // for whoever has no tier
	tiers    map[string][]grant
	keys     []key
	on       []*rbac.On
	except   []netip.Prefix
	cost     int64
	costFrom string // header of the answer
	shadow   bool
	identity bool
	fold     bool
	silent   bool // tells nothing in the headers of allowed answers
	fallback ratelimit.Fallback

	allowed, blocked, shadowed prometheus.Counter
}

// grant is one of the things that a limit grants: units at a rate, or places.
type grant struct {
	bucket string // limit name in the store
	told   string // name in RateLimit headers
	rate   ratelimit.Rate
	slots  int64
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

func (l *Limit) name() string {
	switch {
	case l.Name != "":
		return l.Name
	case l.Concurrent > 0:
		return concurrentWord + "-" + strings.Join(l.By, "-")
	}
	return strings.Join(l.By, "-")
}

func (l *Limit) compile(fold bool, fallback ratelimit.Fallback) error {
	l.Name, l.identity, l.fold = l.name(), l.NeedsIdentity(), fold
	l.shadow = l.Mode == modeShadow
	// What a login limit has left tells a stranger how often others failed.
	l.silent = l.Quiet || l.shadow || len(l.Count) > 0 && !l.identity
	err := errors.Join(
		l.compileGrants(), l.compileCost(), l.compileKeys(), l.compileOn(fold), l.compileTiers(), l.compileExcept(),
		l.compileLease(), l.compileFallback(fallback), l.checkWords(),
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
	if l.Concurrent > 0 {
		text += concurrentWord
	}
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

// identify names the buckets: prefix is unique to the limit, and told says how the
// limit is named in answers. Where several have one name the window tells them
// apart.
func (l *Limit) identify(prefix string, names map[string]int) {
	each := func(grants []grant) {
		for i := range grants {
			g := &grants[i]
			// The first keeps the name a limit with one rate has, so that a second
			// rate leaves the count of the first as it was.
			g.bucket, g.told = prefix, l.Name
			if i > 0 {
				g.bucket += "." + strconv.Itoa(i)
			}
			if g.slots == 0 && names[l.Name] > 1 {
				g.told += "-" + window(g.rate.Window)
			}
		}
	}
	each(l.grants)
	for role, grants := range l.tiers {
		each(grants)
		for i := range grants {
			// A bucket of their own: in one that several people share, or one with
			// several roles, each request would go on at another pace.
			grants[i].bucket += "~" + role
		}
	}
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
			name = canonicalHeader(name)
			// The server takes Host out of the headers.
			valid = httpguts.ValidHeaderFieldName(name) && name != "Host"
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
	l.tiers = make(map[string][]grant, len(l.Tier))
	for role, text := range l.Tier {
		grants, err := l.parseGrants(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("tier %s: %w", role, err))
			continue
		}
		for _, g := range grants {
			if g.slots == 0 && l.cost > g.rate.Capacity() {
				errs = append(errs, fmt.Errorf("tier %s: cost %d never fits into a bucket of %d", role, l.cost, g.rate.Capacity()))
			}
		}
		l.tiers[role] = grants
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
		if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
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
	if l.IPv6Prefix < 0 || l.IPv6Prefix > 128 {
		errs = append(errs, fmt.Errorf("ipv6_prefix %d: must be between 1 and 128", l.IPv6Prefix))
	}
	if l.Concurrent > 0 && len(l.Count) > 0 {
		errs = append(errs, errors.New("count: a place is free again when the request ends"))
	}
	if l.costFrom != "" && len(l.Count) > 0 {
		errs = append(errs, errors.New("cost from a header beside count: only one of them can say what an answer costs"))
	}
	for _, status := range l.Count {
		if status < 100 || status > 599 {
			errs = append(errs, fmt.Errorf("count %s: must be an HTTP status", strconv.Itoa(status)))
		}
	}
	return errors.Join(errs...)
}
