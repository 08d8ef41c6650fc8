package jwt

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/caddymodule/internal/moatapp"
	"github.com/moat-gateway/moat/caddymodule/internal/telemetry"
	"github.com/moat-gateway/moat/internal/canon"
	"github.com/moat-gateway/moat/internal/rbac"
	"github.com/moat-gateway/moat/internal/token"
)

// Provision finds the issuers and checks the settings against them.
func (h *Handler) Provision(ctx caddy.Context) error {
	if h.Realm == "" {
		h.Realm = "moat"
	}
	if len(h.From) == 0 {
		h.From = []Source{{In: inHeader}}
	}
	err := errors.Join(
		h.expand(),
		denial.CheckRealm(h.Realm),
		h.provisionIssuers(ctx),
		h.provisionAnonymous(ctx),
		h.provisionSources(),
		h.provisionForward(),
		h.provisionOrigins(),
		checkLoginURL(h.LoginURL),
		telemetry.Register(ctx),
	)
	if h.InsecureForwardUnverified {
		ctx.Logger().Warn("insecure_forward_unverified: tokens that nobody verified reach the upstream")
	}
	if h.InsecureShadow {
		ctx.Logger().Warn("insecure_shadow: tokens are judged and refuse nothing")
	}
	return err
}

// expand replaces placeholders in what may differ between machines.
func (h *Handler) expand() error {
	var errs []error
	one := func(word string, value *string) {
		if *value == "" {
			return
		}
		out, err := dispense.Expand("jwt: "+word, *value)
		if errs = append(errs, err); err == nil {
			*value = out
		}
	}
	one("realm", &h.Realm)
	one("anonymous", &h.Anonymous)
	one("login_url", &h.LoginURL)
	for i := range h.From {
		one("from", &h.From[i].Name)
		one("from: domain", &h.From[i].Domain)
		one("from: path", &h.From[i].Path)
	}
	for i := range h.Forward {
		one("forward", &h.Forward[i].Header)
	}
	for i := range h.TrustedOrigins {
		one("trusted_origins", &h.TrustedOrigins[i])
	}
	return errors.Join(errs...)
}

func (h *Handler) provisionIssuers(ctx caddy.Context) error {
	if len(h.Issuers) == 0 {
		return errors.New("jwt: needs the name of at least one issuer")
	}
	source, err := moatapp.Load[token.Source](ctx)
	if err != nil {
		return err
	}
	h.verifiers, err = source.Verifiers(h.Issuers)
	if err != nil {
		return fmt.Errorf("jwt: %w", err)
	}
	return nil
}

func (h *Handler) provisionAnonymous(ctx caddy.Context) error {
	if h.Anonymous == "" {
		return nil
	}
	source, err := moatapp.Load[rbac.Source](ctx)
	if err != nil {
		return err
	}
	check := func(roles *rbac.Roles) error {
		if !roles.Has(h.Anonymous) {
			return fmt.Errorf("jwt: anonymous %q: no such role is configured", h.Anonymous)
		}
		return nil
	}
	source.Depend(func(next *rbac.Roles) (func(), error) { return nil, check(next) })
	return check(source.Roles())
}

func (h *Handler) provisionSources() error {
	var errs []error
	seen := make(map[[2]string]bool)
	for i, s := range h.From {
		errs = append(errs, s.checkCookie())
		switch s.In {
		case inHeader:
			if s.Name == "" {
				s.Name = authorization
			}
			s.Name = http.CanonicalHeaderKey(s.Name)
			if !httpguts.ValidHeaderFieldName(s.Name) {
				errs = append(errs, fmt.Errorf("jwt: from header %q: not a header name", s.Name))
			}
		case inCookie:
			if s.Name == "" || strings.ContainsAny(s.Name, " \t;=,\"") {
				errs = append(errs, fmt.Errorf("jwt: from cookie %q: not a cookie name", s.Name))
			}
		default:
			errs = append(errs, fmt.Errorf("jwt: from %q: must be header or cookie", s.In))
		}
		if seen[[2]string{s.In, s.Name}] {
			errs = append(errs, fmt.Errorf("jwt: from %s %s stands twice", s.In, s.Name))
		}
		seen[[2]string{s.In, s.Name}] = true
		h.From[i] = s
	}
	return errors.Join(errs...)
}

// checkCookie checks how a cookie is cleared.
func (s Source) checkCookie() error {
	var errs []error
	if s.In != inCookie && (s.Domain != "" || s.Path != "" || s.Keep) {
		errs = append(errs, fmt.Errorf("jwt: from %s: domain, path and keep are for cookies", s.In))
	}
	if s.Domain != "" && !isHostName(strings.TrimPrefix(s.Domain, ".")) {
		errs = append(errs, fmt.Errorf("jwt: from cookie %s: domain %q: must be a host name", s.Name, s.Domain))
	}
	if s.Path != "" && (s.Path[0] != '/' || !httpguts.ValidHeaderFieldValue(s.Path) || strings.ContainsAny(s.Path, ";,")) {
		errs = append(errs, fmt.Errorf("jwt: from cookie %s: path %q: must begin with / and hold no ; and no comma", s.Name, s.Path))
	}
	if strings.HasPrefix(strings.ToLower(s.Name), "__host-") && (s.Domain != "" || s.Path != "" && s.Path != "/") {
		errs = append(errs, fmt.Errorf("jwt: from cookie %s: a cookie of that name has the path / and no domain", s.Name))
	}
	return errors.Join(errs...)
}

func isHostName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.')
	})
}

// checkLoginURL makes sure that the redirect stays on the site: a path, with a
// query of its own if need be.
func checkLoginURL(text string) error {
	if text == "" {
		return nil
	}
	path, query, _ := strings.Cut(text, "?")
	canonical, err := canon.Path(path)
	if err != nil || canonical != path || !httpguts.ValidHeaderFieldValue(query) || strings.ContainsAny(query, "# ") {
		return fmt.Errorf("jwt: login_url %q: must be a canonical path on this site, such as /login", text)
	}
	return nil
}

func (h *Handler) provisionForward() error {
	var errs []error
	names := make([]string, 0, len(h.Forward))
	seen := make(map[string]bool)
	for i, f := range h.Forward {
		f.Header = http.CanonicalHeaderKey(f.Header)
		h.Forward[i] = f
		names = append(names, f.Header)
		folded := canon.FoldHeader(f.Header)
		switch {
		case !httpguts.ValidHeaderFieldName(f.Header) || reserved[folded]:
			errs = append(errs, fmt.Errorf("jwt: forward %q: not a header that can carry identity", f.Header))
		case values[f.Value] == nil:
			errs = append(errs, fmt.Errorf("jwt: forward %s %q: must be id, tenant, roles, session or issuer", f.Header, f.Value))
		case seen[folded]:
			errs = append(errs, fmt.Errorf("jwt: forward %s stands twice", f.Header))
		}
		seen[folded] = true
	}
	if h.ForwardToken != "" && h.ForwardToken != "on" && h.ForwardToken != "off" {
		errs = append(errs, fmt.Errorf("jwt: forward_token %q: must be on or off", h.ForwardToken))
	}
	h.strip = canon.NewHeaderSet(names...)
	return errors.Join(errs...)
}

// reserved are headers that mean something else on the way to the upstream.
var reserved = map[string]bool{
	"": true, "host": true, "connection": true, "content-length": true, "content-type": true,
	"transfer-encoding": true, "te": true, "trailer": true, "upgrade": true, "cookie": true,
	"authorization": true, "x-request-id": true,
}

func (h *Handler) provisionOrigins() error {
	var errs []error
	h.origins = make(map[string]bool)
	for _, origin := range h.TrustedOrigins {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.Path != "" || u.RawQuery != "" || u.User != nil {
			errs = append(errs, fmt.Errorf("jwt: trusted_origins %q: must be an origin such as https://app.example.com", origin))
			continue
		}
		h.origins[strings.ToLower(origin)] = true
	}
	return errors.Join(errs...)
}

func parse(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile reads:
//
//	moat_jwt [<matcher>] <issuer>... {
//		from header [<name>]
//		from cookie <name> [{
//			domain <domain>
//			path <path>
//			keep
//		}]
//		anonymous <role>
//		forward <header> id|tenant|roles|session|issuer
//		forward_token on|off
//		trusted_origins <origin>...
//		login_url <path>
//		realm <name>
//		insecure_forward_unverified
//		insecure_shadow
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	h.Issuers = d.RemainingArgs()
	if len(h.Issuers) == 0 {
		return d.Errf("jwt: needs the name of at least one issuer")
	}
	return dispense.Words{
		"from":                        {Parse: h.parseFrom, Repeats: true},
		"anonymous":                   {Parse: dispense.String(&h.Anonymous)},
		"forward":                     {Parse: h.parseForward, Repeats: true},
		"forward_token":               {Parse: dispense.OneOf(&h.ForwardToken, "on", "off")},
		"trusted_origins":             {Parse: dispense.Strings(&h.TrustedOrigins), Repeats: true},
		"login_url":                   {Parse: dispense.String(&h.LoginURL)},
		"realm":                       {Parse: dispense.String(&h.Realm)},
		"insecure_forward_unverified": {Parse: dispense.Flag(&h.InsecureForwardUnverified)},
		"insecure_shadow":             {Parse: dispense.Flag(&h.InsecureShadow)},
	}.Block(d, "jwt")
}

func (h *Handler) parseFrom(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	switch {
	case len(args) == 1 && args[0] == inHeader, len(args) == 2 && args[0] == inHeader, len(args) == 2 && args[0] == inCookie:
		s := Source{In: args[0]}
		if len(args) == 2 {
			s.Name = args[1]
		}
		words := dispense.Words{}
		if s.In == inCookie {
			words = dispense.Words{
				"domain": {Parse: dispense.String(&s.Domain)},
				"path":   {Parse: dispense.String(&s.Path)},
				"keep":   {Parse: dispense.Flag(&s.Keep)},
			}
		}
		err := words.Block(d, "from "+s.In)
		h.From = append(h.From, s)
		return err
	}
	return d.Errf("from %q: must be `header`, `header NAME` or `cookie NAME`", strings.Join(args, " "))
}

func (h *Handler) parseForward(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Errf("forward %q: needs a header and one of id, tenant, roles, session, issuer", strings.Join(args, " "))
	}
	h.Forward = append(h.Forward, Forward{Header: args[0], Value: args[1]})
	return nil
}

var _ caddyfile.Unmarshaler = (*Handler)(nil)
