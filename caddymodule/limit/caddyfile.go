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

// concurrentWord begins a limit on requests at one time.
const concurrentWord = "concurrent"

func canonicalHeader(name string) string { return http.CanonicalHeaderKey(name) }

func parse(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := &Handler{Site: dispense.Scope(h)}
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile reads one limit:
//
//	moat_limit [<matcher>] [<name>] <n>/<window>... by <key>... {
//		on [<methods>] <pattern>
//		count <status>...
//		cost <n>|header:<name>
//		tier <role> <n>/<window>...
//		burst <n>
//		lease <n>
//		except <address>...
//		ipv6_prefix <bits>
//		mode enforce|shadow
//		message <text>
//		quiet
//		on_error local|open|closed
//		instances <n>
//	}
//
// or, for requests at one time, with the same words except count, cost, burst
// and lease, and places in place of the rates:
//
//	moat_limit [<matcher>] concurrent [<name>] <n> by <key>... { ... }
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	limit, err := Parse(d)
	h.Limits = append(h.Limits, limit)
	return err
}

// Parse reads one limit whose directive or word d stands on.
func Parse(d *caddyfile.Dispenser) (*Limit, error) {
	l := &Limit{Place: dispense.Place(d)}
	word := d.Val()
	concurrent := word == concurrentWord
	args := dispense.AllAsWritten(d.RemainingArgs())
	line := strings.Join(args, " ")
	if !concurrent && len(args) > 1 && args[0] == concurrentWord && !strings.Contains(args[1], "/") {
		concurrent, args = true, args[1:]
	}
	read := l.readRate
	if concurrent {
		read = l.readPlaces
	}
	if !read(args) {
		return l, d.Errf("%s %q: must be `limit [NAME] N/WINDOW... by KEY...`, for example `limit login 5/15m by ip`, "+
			"or `limit default`, or `concurrent [NAME] N by KEY...`, for example `concurrent 10 by user`", word, line)
	}
	if err := l.words().Block(d, "limit "+l.name()); err != nil {
		return l, err
	}
	l.Name = l.name()
	return l, nil
}

// readRate reads [NAME] N/WINDOW... by KEY..., or default.
func (l *Limit) readRate(args []string) bool {
	if len(args) == 1 && args[0] == defaultName {
		l.Name, l.Rate, l.By, l.Message = defaultName, defaultRate, []string{"ip"}, defaultMessage
		return true
	}
	if len(args) > 0 && !strings.Contains(args[0], "/") {
		l.Name, args = args[0], args[1:]
	}
	var rates []string
	for len(args) > 0 && args[0] != "by" {
		rates, args = append(rates, args[0]), args[1:]
	}
	l.Rate = strings.Join(rates, " ")
	if len(rates) == 0 || len(args) < 2 {
		return false
	}
	l.By = args[1:]
	return true
}

// readPlaces reads [NAME] N by KEY...
func (l *Limit) readPlaces(args []string) bool {
	if len(args) > 1 && args[1] != "by" {
		l.Name, args = args[0], args[1:]
	}
	if len(args) < 3 || args[1] != "by" {
		return false
	}
	var err error
	l.Concurrent, err = strconv.ParseInt(args[0], 10, 64)
	l.By = args[2:]
	return err == nil && l.Concurrent > 0
}

func (l *Limit) words() dispense.Words {
	words := dispense.Words{
		"on":          {Parse: l.parseOn, Repeats: true},
		"tier":        {Parse: l.parseTier, Repeats: true},
		"except":      {Parse: dispense.Strings(&l.Except), Repeats: true},
		"ipv6_prefix": {Parse: dispense.Count(&l.IPv6Prefix, 1)},
		"mode":        {Parse: dispense.OneOf(&l.Mode, "enforce", modeShadow)},
		"message":     {Parse: dispense.String(&l.Message)},
		"quiet":       {Parse: dispense.Flag(&l.Quiet)},
		"on_error":    {Parse: dispense.OneOf(&l.OnError, "local", onErrorOpen, "closed")},
		"instances":   {Parse: dispense.Count(&l.Instances, 1)},
	}
	if l.Concurrent == 0 {
		words["count"] = dispense.Word{Parse: l.parseCount, Repeats: true}
		words["cost"] = dispense.Word{Parse: dispense.String(&l.Cost)}
		words["burst"] = dispense.Word{Parse: dispense.Count(&l.Burst, 1)}
		words["lease"] = dispense.Word{Parse: dispense.Count(&l.Lease, 1)}
	}
	return words
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
	if len(args) < 2 {
		return d.Errf("tier %q: needs a role and what it may, for example `tier admin 10000/1m`", strings.Join(args, " "))
	}
	if _, twice := l.Tier[args[0]]; twice {
		return d.Errf("tier %s: stands twice", args[0])
	}
	if l.Tier == nil {
		l.Tier = make(map[string]string)
	}
	l.Tier[args[0]] = strings.Join(args[1:], " ")
	return nil
}

var _ caddyfile.Unmarshaler = (*Handler)(nil)
