package rbac

import (
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/rbac"
)

func parse(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile reads:
//
//	moat_rbac [<matcher>] {
//		<methods> <pattern> <requirement>... [owner={param}] [tenant={param}] [{
//			shadow
//			strip_prefix <prefix>
//			rewrite_ok
//			action <name>
//			trailers
//			encoded_slash
//		}]
//		preflight refuse|upstream
//		insecure_shadow
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.Errf("rbac: unexpected argument %q", d.Val())
	}
	return dispense.EachLine(d, func(line *caddyfile.Dispenser, seen map[string]int) error {
		switch line.Val() {
		case "preflight":
			if err := dispense.OneOf(&h.Preflight, "refuse", "upstream")(line); err != nil {
				return fmt.Errorf("rbac: %w", err)
			}
			return dispense.Leftover(line, "rbac: preflight")
		case "insecure_shadow":
			h.InsecureShadow = true
			return dispense.Leftover(line, "rbac: insecure_shadow")
		}
		return h.parseRule(line)
	})
}

func (h *Handler) parseRule(d *caddyfile.Dispenser) error {
	place := dispense.Place(d)
	words := append([]string{d.Val()}, d.RemainingArgs()...)
	rule, err := rbac.ParseRule(dispense.AllAsWritten(words))
	if err != nil {
		err = d.Errf("rbac: %v", err)
	}
	rule.Place = place
	blockErr := dispense.Words{
		"shadow":        {Parse: dispense.Flag(&rule.Shadow)},
		"rewrite_ok":    {Parse: dispense.Flag(&rule.RewriteOK)},
		"trailers":      {Parse: dispense.Flag(&rule.Trailers)},
		"encoded_slash": {Parse: dispense.Flag(&rule.EncodedSlash)},
		"strip_prefix":  {Parse: dispense.String(&rule.StripPrefix)},
		"action":        {Parse: dispense.String(&rule.Action)},
	}.Block(d, "rbac: rule "+words[0])
	h.Rules = append(h.Rules, rule)
	return errors.Join(err, blockErr)
}

var _ caddyfile.Unmarshaler = (*Handler)(nil)
