package limit

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
)

func canonicalHeader(name string) string { return http.CanonicalHeaderKey(name) }

func parse(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := &Handler{Site: dispense.Scope(h)}
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile reads one limit:
//
//	moat_limit [<matcher>] [<name>] <n>/<window> by <key>... {
//		on [<methods>] <pattern>
//		count <status>...
//		tier <role> <n>/<window>
//		burst <n>
//		except <address>...
//		mode enforce|shadow
//		message <text>
//		on_error local|open|closed
//		instances <n>
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	limit, err := Parse(d)
	h.Limits = append(h.Limits, limit)
	return err
}

// Parse reads one limit whose directive or word d stands on.
func Parse(d *caddyfile.Dispenser) (*Limit, error) {
	l := &Limit{Place: dispense.Place(d)}
	args := dispense.AllAsWritten(d.RemainingArgs())
	if len(args) > 0 && !strings.Contains(args[0], "/") {
		l.Name, args = args[0], args[1:]
	}
	switch {
	case l.Name == defaultName && len(args) == 0:
		l.Rate, l.By, l.Message = defaultRate, []string{"ip"}, defaultMessage
	case len(args) >= 3 && args[1] == "by":
		l.Rate, l.By = args[0], args[2:]
	default:
		return l, d.Errf("limit %q: must be `limit [NAME] N/WINDOW by KEY...`, for example `limit login 5/15m by ip`, or `limit default`", strings.Join(args, " "))
	}
	if l.Name == "" {
		l.Name = strings.Join(l.By, "-")
	}
	if err := l.words().Block(d, "limit "+l.Name); err != nil {
		return l, err
	}
	return l, nil
}

func (l *Limit) words() dispense.Words {
	return dispense.Words{
		"on":        {Parse: l.parseOn, Repeats: true},
		"count":     {Parse: l.parseCount, Repeats: true},
		"tier":      {Parse: l.parseTier, Repeats: true},
		"burst":     {Parse: dispense.Count(&l.Burst, 1)},
		"except":    {Parse: dispense.Strings(&l.Except), Repeats: true},
		"mode":      {Parse: dispense.OneOf(&l.Mode, "enforce", modeShadow)},
		"message":   {Parse: dispense.String(&l.Message)},
		"on_error":  {Parse: dispense.OneOf(&l.OnError, "local", onErrorOpen, "closed")},
		"instances": {Parse: dispense.Count(&l.Instances, 1)},
	}
}

func (l *Limit) parseOn(d *caddyfile.Dispenser) error {
	args := dispense.AllAsWritten(d.RemainingArgs())
	if len(args) == 1 && strings.HasPrefix(args[0], "/") {
		args = []string{"*", args[0]}
	}
	if len(args) != 2 {
		return d.Errf("on %q: needs a pattern, with methods before it or none for all, for example `on POST /auth/login`", strings.Join(args, " "))
	}
	l.On = append(l.On, On{Methods: strings.Split(args[0], ","), Pattern: args[1]})
	return nil
}

func (l *Limit) parseCount(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	for _, arg := range args {
		status, err := strconv.Atoi(arg)
		if err != nil || status < 100 || status > 599 {
			return d.Errf("count %q: must be an HTTP status", arg)
		}
		l.Count = append(l.Count, status)
	}
	if len(args) == 0 {
		return d.Errf("count: needs at least one status")
	}
	return nil
}

func (l *Limit) parseTier(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Errf("tier %q: needs a role and a rate, for example `tier admin 10000/1m`", strings.Join(args, " "))
	}
	if _, twice := l.Tier[args[0]]; twice {
		return d.Errf("tier %s: stands twice", args[0])
	}
	if l.Tier == nil {
		l.Tier = make(map[string]string)
	}
	l.Tier[args[0]] = args[1]
	return nil
}

var _ caddyfile.Unmarshaler = (*Handler)(nil)
