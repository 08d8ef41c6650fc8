package headers

import (
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
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
//		merge Content-Security-Policy
//		remove <header>...
//		cookies [secure] [httponly] [samesite=lax|strict] {
//			except <cookie>...
//		}
//		cache no-store|private|off
//		hsts [<duration>] [subdomains] [preload]
//		csp {
//			<directive> [<source>...]
//			report_only | enforce
//			report <path>
//			nonce
//			hash [<size>]
//			pin <file> [learn] [<size>]
//			insecure_unsafe_csp
//		}
//		path <pattern> [html|api] { ... }
//		mode enforce|shadow
//	}
//
// Begun with a pattern, as in a moat block, it is what path <pattern> says.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	args := d.RemainingArgs()
	if len(args) > 0 && strings.HasPrefix(args[0], "/") {
		return h.parsePath(d, args)
	}
	if err := h.parsePreset(d, args); err != nil {
		return err
	}
	words := h.words()
	words["path"] = dispense.Word{Repeats: true, Parse: func(d *caddyfile.Dispenser) error { return h.parsePath(d, d.RemainingArgs()) }}
	words["mode"] = dispense.Word{Parse: dispense.OneOf(&h.Mode, "enforce", "shadow")}
	return words.Block(d, "headers")
}

// words are the words of a site and of a part of it.
func (s *Settings) words() dispense.Words {
	return dispense.Words{
		"set":     {Parse: s.parseSet, Repeats: true},
		"keep":    {Parse: dispense.Strings(&s.Keep), Repeats: true},
		"merge":   {Parse: dispense.Strings(&s.Merge), Repeats: true},
		"remove":  {Parse: dispense.Strings(&s.Remove), Repeats: true},
		"cookies": {Parse: s.parseCookies},
		"cache":   {Parse: dispense.OneOf(&s.Cache, "no-store", "private", "off")},
		"hsts":    {Parse: s.parseHSTS},
		"csp":     {Parse: s.parseCSP},
	}
}

// parsePreset reads what may stand before the block.
func (s *Settings) parsePreset(d *caddyfile.Dispenser, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if s.Preset = args[0]; s.Preset != "html" && s.Preset != "api" {
		return d.Errf("headers: preset %q: must be html or api", s.Preset)
	}
	if len(args) > 1 {
		return d.Errf("headers: unexpected argument %q", args[1])
	}
	return nil
}

// parsePath reads a part of the site.
func (h *Handler) parsePath(d *caddyfile.Dispenser, args []string) error {
	if len(args) == 0 || !strings.HasPrefix(args[0], "/") {
		return d.Err("path: needs a pattern such as /admin/**")
	}
	p := &Path{Pattern: dispense.AsWritten(args[0]), Place: dispense.Place(d)}
	h.Paths = append(h.Paths, p)
	if err := p.parsePreset(d, args[1:]); err != nil {
		return err
	}
	words := p.words()
	delete(words, "hsts") // of the host, whatever the path
	return words.Block(d, "headers "+p.Pattern)
}

// parseCookies reads what every cookie must have.
func (s *Settings) parseCookies(d *caddyfile.Dispenser) error {
	c := new(headers.Cookies)
	s.Cookies = c
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.Err("cookies: needs secure, httponly or samesite=lax")
	}
	for _, arg := range args {
		site, isSite := strings.CutPrefix(arg, "samesite=")
		switch {
		case arg == "secure" && !c.Secure:
			c.Secure = true
		case arg == "httponly" && !c.HTTPOnly:
			c.HTTPOnly = true
		case isSite && c.SameSite == "" && (site == "lax" || site == "strict"):
			c.SameSite = site
		default:
			return d.Errf("cookies: %q: must be secure, httponly, samesite=lax or samesite=strict, each once", arg)
		}
	}
	return dispense.Words{"except": {Parse: dispense.Strings(&c.Except), Repeats: true}}.Block(d, "cookies")
}

// parseHSTS reads how long, and for what.
func (s *Settings) parseHSTS(d *caddyfile.Dispenser) error {
	s.HSTS = new(HSTS)
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.Err("hsts: needs a duration, subdomains or preload")
	}
	for i, arg := range args {
		switch {
		case arg == "subdomains" && !s.HSTS.Subdomains:
			s.HSTS.Subdomains = true
		case arg == "preload" && !s.HSTS.Preload:
			s.HSTS.Preload = true
		case i == 0:
			age, err := dispense.ParseDuration(arg)
			if err != nil {
				return d.Errf("hsts: %q: %v, subdomains or preload", arg, err)
			}
			s.HSTS.MaxAge = caddy.Duration(age)
		default:
			return d.Errf("hsts: %q: must be subdomains or preload, each once", arg)
		}
	}
	return nil
}

func (s *Settings) parseSet(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Errf("set: needs a header and one value (quote a value with spaces)")
	}
	s.Set = append(s.Set, headers.Field{Name: args[0], Value: args[1], Place: dispense.Place(d)})
	return nil
}

func (s *Settings) parseCSP(d *caddyfile.Dispenser) error {
	return dispense.EachLine(d, func(line *caddyfile.Dispenser, seen map[string]int) error {
		word := line.Val()
		if seen[word] > 1 && slices.Contains([]string{"report_only", "enforce", "insecure_unsafe_csp", "report"}, word) {
			return line.Errf("csp: %q stands twice", word)
		}
		switch word {
		case "report_only":
			s.ReportOnly = true
		case "enforce":
			s.Enforce = true
		case "insecure_unsafe_csp":
			s.InsecureUnsafeCSP = true
		case "report":
			if err := dispense.String(&s.Report)(line); err != nil {
				return err
			}
		case "nonce", "hash", "pin":
			if err := s.parseInline(line, word); err != nil {
				return err
			}
		default:
			s.CSP = append(s.CSP, headers.Directive{
				Name:    strings.ToLower(word),
				Sources: dispense.AllAsWritten(line.RemainingArgs()),
				Place:   dispense.Place(line),
			})
		}
		return dispense.Leftover(line, "csp: "+word)
	})
}

// parseInline reads how inline code is brought under the policy.
func (s *Settings) parseInline(d *caddyfile.Dispenser, word string) error {
	if s.Inline != "" {
		return d.Errf("csp: %s: stands beside %s; a policy has one of nonce, hash and pin", word, s.Inline)
	}
	s.Inline = word
	args := d.RemainingArgs()
	if word == modePin {
		if len(args) == 0 {
			return d.Err("csp: pin: needs a file for the hashes")
		}
		s.Pins, args = args[0], args[1:]
		if len(args) > 0 && args[0] == "learn" {
			s.Learn, args = true, args[1:]
		} else {
			s.PinsSum = dispense.FileSum(s.Pins)
		}
	}
	if len(args) > 0 && word != modeNonce {
		size, err := dispense.ParseSize(args[0])
		if err != nil {
			return d.Errf("csp: %s: %q: %v", word, args[0], err)
		}
		s.MaxInline, args = size, args[1:]
	}
	if len(args) > 0 {
		return d.Errf("csp: %s: unexpected argument %q", word, args[0])
	}
	return nil
}

var _ caddyfile.Unmarshaler = (*Handler)(nil)
