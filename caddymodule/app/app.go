// Package app is the moat app: what sites share and what outlives a reload.
// The limit store, the Redis client, remote key sets and the audit journal live
// in usage pools; everything else is built anew with every configuration.
package app

import (
	"errors"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/telemetry"
	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/rbac"
	"github.com/moat-gateway/moat/internal/token"
)

func init() {
	caddy.RegisterModule(new(App))
	httpcaddyfile.RegisterGlobalOption("moat", parseGlobal)
}

// App holds what all guarded sites share. Loading it opens no socket and
// creates no file; that happens when it starts, or when the first request needs
// it.
type App struct {
	// Redis makes limits hold across instances. Default: none, and limits hold
	// in this instance only.
	Redis *Redis `json:"redis,omitempty"`
	// Limits are the settings that all limits share.
	Limits *Limits `json:"limits,omitempty"`
	// Issuers are the token issuers that sites may name.
	Issuers []*Issuer `json:"issuer,omitempty"`
	// TokenCache is how many verified tokens are remembered, so that one that is
	// shown again costs no cryptography. 0 turns the cache off. Default: 10000; at
	// most 1000000.
	TokenCache *int `json:"token_cache,omitempty"`
	// RoleConfigs are the roles that issuers can grant and rules can ask for.
	RoleConfigs []rbac.RoleConfig `json:"role,omitempty"`
	// RolesFile is a JSON or YAML file with further roles. It is watched: a new
	// content counts within two seconds, unless something is wrong with it or a
	// site needs a role that it lacks; then the old one stays. Default: none.
	RolesFile string `json:"roles_file,omitempty"`
	// RolesFileSum is the SHA-256 of the file when the configuration was made
	// from a Caddyfile, in hex. Nothing is checked against it: it makes another
	// configuration of a changed file, so that a reload is none of nothing.
	RolesFileSum string `json:"roles_file_sum,omitempty"`
	// Audit is the trail. Default: events go to the log moat.audit only.
	Audit *Audit `json:"audit,omitempty"`

	ctx     caddy.Context
	logger  *zap.Logger
	roles   rbac.Live
	files   policyFiles
	keys    map[string]*issuerKeys
	tokens  *rememberedTokens // nil: none are remembered
	limiter *limiter
	trail   *trailHandle
	// recordHeaders is checked and in canonical spelling.
	recordHeaders []string
	// parts is the configuration, known from the start on; before is the one that
	// was live before it, if any.
	parts, before parts
	// provisioned and established say how far it has come.
	provisioned, established bool

	lasts   []func() // before the trail is given back
	pooled  []func()
	watches []func()
}

// CaddyModule returns the module's registration.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "moat", New: func() caddy.Module { return new(App) }}
}

// Provision builds everything that requests need. All errors are reported at
// once.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.logger = ctx, ctx.Logger()
	err := errors.Join(
		telemetry.Register(ctx),
		a.provisionRoles(),
		a.provisionTokenCache(),
		a.provisionIssuers(),
		a.provisionLimiter(),
		a.provisionTrail(),
	)
	a.provisioned = true
	return err
}

// Start opens the trail and looks at what stands beside the gates. What others
// would see of a configuration that may still fail waits until it is
// established.
func (a *App) Start() error {
	a.parts = a.configuredParts()
	if err := a.checkRecordHeaders(); err != nil {
		return err
	}
	if err := a.trail.start(); err != nil {
		return err
	}
	a.succeed()
	if a.limiter.redis != nil {
		a.limiter.redis.warm()
	}
	for _, k := range a.keys {
		k.start()
	}
	a.inspect()
	return nil
}

// Stop has nothing to do: requests of this configuration may still be running.
func (a *App) Stop() error { return nil }

// Cleanup gives back exactly what this app took from the pools, also after half
// a Provision, and lets the app that started after it take over.
func (a *App) Cleanup() error {
	for _, last := range a.lasts {
		last()
	}
	a.lasts = nil
	// First: from here on another configuration may report what files say.
	a.files.stop()
	next := a.resign()
	a.reject()
	for _, release := range slices.Backward(a.pooled) {
		release()
	}
	a.pooled = nil
	// Not before: a sink of this configuration must have ended when one of the
	// next continues at its place in the journal.
	if next != nil {
		next.before = a.parts
		next.establish()
	}
	for _, remove := range a.watches {
		remove()
	}
	a.watches = nil
	live.CompareAndSwap(a, nil)
	return nil
}

// hold takes key from the pool, making it if it is not there, and remembers to
// give it back.
func hold[T caddy.Destructor](a *App, pool *caddy.UsagePool, key string, construct func() (T, error)) (T, error) {
	var none T
	value, _, err := pool.LoadOrNew(key, func() (caddy.Destructor, error) { return construct() })
	if err != nil {
		return none, err
	}
	a.pooled = append(a.pooled, func() {
		if _, err := pool.Delete(key); err != nil {
			a.logger.Warn("releasing a shared resource", zap.Error(err))
		}
	})
	t, ok := value.(T)
	if !ok {
		return none, fmt.Errorf("pool holds a %T under %s", value, key)
	}
	return t, nil
}

// Interface guards.
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
	_ token.Source       = (*App)(nil)
	_ audit.Source       = (*App)(nil)
	_ ratelimit.Source   = (*App)(nil)
	_ rbac.Source        = (*App)(nil)
)
