package rbac

import (
	"errors"
	"fmt"
	"strings"

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
//			when <condition>
//			shadow
//			strip_prefix <prefix>
//			rewrite_ok
//			action <name>
//			trailers
//			encoded_slash
//		}]
//		rules_file <file>
//		preflight refuse|upstream
//		reveal_to <permission>
//		insecure_shadow
//		insecure_reveal_reasons
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.Errf("rbac: unexpected argument %q", d.Val())
	}
	defer func() { h.RulesFileSum = dispense.FileSum(h.RulesFile) }()
	return dispense.EachLine(d, func(line *caddyfile.Dispenser, seen map[string]int) error {
		switch line.Val() {
		case "preflight":
			if err := dispense.OneOf(&h.Preflight, "refuse", "upstream")(line); err != nil {
				return fmt.Errorf("rbac: %w", err)
			}
			return dispense.Leftover(line, "rbac: preflight")
		case "rules_file", "reveal_to":
			return h.parseText(line, seen)
		case "insecure_shadow":
			h.InsecureShadow = true
			return dispense.Leftover(line, "rbac: insecure_shadow")
		case "insecure_reveal_reasons":
			h.InsecureRevealReasons = true
			return dispense.Leftover(line, "rbac: insecure_reveal_reasons")
		}
		return h.parseRule(line)
	})
}

// parseText reads the words of the block that have one value.
func (h *Handler) parseText(line *caddyfile.Dispenser, seen map[string]int) error {
	word := line.Val()
	if seen[word] > 1 {
		return line.Errf("rbac: %q stands twice; it may stand once", word)
	}
	target := &h.RulesFile
	if word == "reveal_to" {
		target = &h.RevealTo
	}
	if err := dispense.String(target)(line); err != nil {
		return fmt.Errorf("rbac: %w", err)
	}
	return dispense.Leftover(line, "rbac: "+word)
}

// parseCondition reads what stands behind when. Several words are taken as they
// are written, quotes included, since a condition has quotes of its own; one
// word in quotes or backticks is taken without them.
func parseCondition(target *string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		switch d.CountRemainingArgs() {
		case 0:
			return d.Err("when: needs a condition such as identity.tenant == params.org")
		case 1:
			*target = dispense.AsWritten(d.RemainingArgs()[0])
		default:
			return joinCondition(target, d)
		}
		return nil
	}
}

func joinCondition(target *string, d *caddyfile.Dispenser) error {
	var words []string
	for d.NextArg() {
		if word := d.Val(); d.Token().Quoted() && strings.Contains(word, `"`) {
			// The Caddyfile has taken the backslash off already: what is written
			// down would be another expression than what was meant.
			return d.Errf("when: the text %q has quotes inside; put the whole condition into backticks", word)
		}
		words = append(words, d.ValRaw())
	}
	*target = dispense.AsWritten(strings.Join(words, " "))
	return nil
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
		"when":          {Parse: parseCondition(&rule.When)},
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
