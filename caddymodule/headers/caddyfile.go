package headers

import (
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/headers"
)

func parse(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile reads:
//
//	moat_headers [<matcher>] [html|api] {
//		set <header> <value>
//		keep <header>...
//		remove <header>...
//		csp {
//			<directive> [<source>...]
//			report_only
//			insecure_unsafe_csp
//		}
//		mode enforce|shadow
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		h.Preset = d.Val()
		if h.Preset != "html" && h.Preset != "api" {
			return d.Errf("headers: preset %q: must be html or api", h.Preset)
		}
	}
	if d.NextArg() {
		return d.Errf("headers: unexpected argument %q", d.Val())
	}
	return dispense.Words{
		"set":    {Parse: h.parseSet, Repeats: true},
		"keep":   {Parse: dispense.Strings(&h.Keep), Repeats: true},
		"remove": {Parse: dispense.Strings(&h.Remove), Repeats: true},
		"csp":    {Parse: h.parseCSP},
		"mode":   {Parse: dispense.OneOf(&h.Mode, "enforce", "shadow")},
	}.Block(d, "headers")
}

func (h *Handler) parseSet(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Errf("set: needs a header and one value (quote a value with spaces)")
	}
	h.Set = append(h.Set, headers.Field{Name: args[0], Value: args[1], Place: dispense.Place(d)})
	return nil
}

func (h *Handler) parseCSP(d *caddyfile.Dispenser) error {
	return dispense.EachLine(d, func(line *caddyfile.Dispenser, seen map[string]int) error {
		word := line.Val()
		switch word {
		case "report_only":
			h.ReportOnly = true
		case "insecure_unsafe_csp":
			h.InsecureUnsafeCSP = true
		case "nonce", "hash", "pin", "report":
			return line.Errf("csp: %q is not available in this version", word)
		default:
			h.CSP = append(h.CSP, headers.Directive{
				Name:    strings.ToLower(word),
				Sources: dispense.AllAsWritten(line.RemainingArgs()),
				Place:   dispense.Place(line),
			})
		}
		return dispense.Leftover(line, "csp: "+word)
	})
}

var _ caddyfile.Unmarshaler = (*Handler)(nil)
