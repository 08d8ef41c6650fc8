package guard

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
)

func parse(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile reads:
//
//	moat_guard [<matcher>] {
//		methods <method>...
//		identity <header>...
//		case_insensitive
//		refuse_parameters
//		credentials <header>...
//		encoded_slash
//		max_body <size>
//		max_path <bytes>
//		max_query <bytes>
//		max_headers <count>
//		max_header <bytes>
//		insecure_allow_encoded_slash
//		insecure_allow_empty_segments
//		insecure_allow_tls12
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.Errf("guard: unexpected argument %q", d.Val())
	}
	return dispense.Words{
		"methods":                       {Parse: dispense.Strings(&h.Methods)},
		"identity":                      {Parse: dispense.Strings(&h.Identity)},
		"refuse_parameters":             {Parse: dispense.Flag(&h.RefuseParameters)},
		"case_insensitive":              {Parse: dispense.Flag(&h.CaseInsensitive)},
		"credentials":                   {Parse: dispense.Strings(&h.Credentials)},
		"encoded_slash":                 {Parse: dispense.Flag(&h.EncodedSlash)},
		"max_body":                      {Parse: dispense.Size(&h.MaxBody)},
		"max_path":                      {Parse: dispense.Count(&h.MaxPath, 1)},
		"max_headers":                   {Parse: dispense.Count(&h.MaxHeaders, 1)},
		"max_header":                    {Parse: dispense.Count(&h.MaxHeader, 64)},
		"max_query":                     {Parse: dispense.Count(&h.MaxQuery, 1)},
		"insecure_allow_encoded_slash":  {Parse: dispense.Flag(&h.InsecureAllowEncodedSlash)},
		"insecure_allow_empty_segments": {Parse: dispense.Flag(&h.InsecureAllowEmptySegments)},
		"insecure_allow_tls12":          {Parse: dispense.Flag(&h.InsecureAllowTLS12)},
	}.Block(d, "guard")
}

var _ caddyfile.Unmarshaler = (*Handler)(nil)
