package app

import (
	"fmt"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/token"
)

const (
	defaultTokenCache = 10_000
	mostTokenCache    = 1_000_000
)

// tokenCaches hold the caches of verified tokens, by size. They survive reloads:
// a verdict is found under the rules that it was made under only.
var tokenCaches = caddy.NewUsagePool()

type rememberedTokens struct{ *token.Cache }

// Destruct has nothing to close.
func (*rememberedTokens) Destruct() error { return nil }

func (a *App) provisionTokenCache() (err error) {
	size := defaultTokenCache
	if a.TokenCache != nil {
		size = *a.TokenCache
	}
	switch {
	case size < 0 || size > mostTokenCache:
		return fmt.Errorf("token_cache %d: must be 0 (off) to %d", size, mostTokenCache)
	case size == 0:
		return nil
	}
	a.tokens, err = hold(a, tokenCaches, strconv.Itoa(size), func() (*rememberedTokens, error) {
		return &rememberedTokens{token.NewCache(size)}, nil
	})
	return err
}

// parseTokenCache reads:
//
//	token_cache <n>|off
func (a *App) parseTokenCache(d *caddyfile.Dispenser) error {
	var text string
	if err := dispense.String(&text)(d); err != nil {
		return err
	}
	size, err := strconv.Atoi(text)
	if text == "off" {
		size, err = 0, nil
	}
	if err != nil || size < 0 || size > mostTokenCache {
		return d.Errf("token_cache %q: must be off or a whole number of at most %d", text, mostTokenCache)
	}
	a.TokenCache = &size
	return nil
}
