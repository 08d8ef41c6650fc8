// Package sinks holds the modules of the namespace moat.sinks: the settings of
// each kind of place that audit events can also go to. A module reads its
// settings, expands their placeholders and makes the sink; that the sink is fed
// from the journal, in which format and with which events, is the moat app's.
package sinks

import (
	"errors"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/audit/follow"
)

func init() {
	for _, m := range []settings{
		new(Stdout), new(RedisStream), new(Webhook), new(Postgres), new(Kafka), new(Syslog), new(OTLP), new(File), new(SQLite),
	} {
		caddy.RegisterModule(m)
	}
}

// settings is what every module here is.
type settings interface {
	caddy.Module
	caddyfile.Unmarshaler
	follow.Settings
}

// module is the registration of the sink of a name.
func module(name string, construct func() caddy.Module) caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: caddy.ModuleID("moat.sinks." + name), New: construct}
}

// expand replaces the placeholders in settings, each named for errors. An empty
// setting stays empty.
func expand(fields map[string]*string) error {
	var errs []error
	for name, field := range fields {
		if *field == "" {
			continue
		}
		var err error
		*field, err = dispense.Expand(name, *field)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// named reads the sink's name and then its only argument.
func named(d *caddyfile.Dispenser, target *string) error {
	d.Next()
	return dispense.String(target)(d)
}

// one reads a word with one argument that may come again.
func one(target *[]string) dispense.Word {
	return dispense.Word{Repeats: true, Parse: func(d *caddyfile.Dispenser) error {
		var value string
		if err := dispense.String(&value)(d); err != nil {
			return err
		}
		*target = append(*target, value)
		return nil
	}}
}

// word reads a word with one argument.
func word(target *string) dispense.Word { return dispense.Word{Parse: dispense.String(target)} }

// flag reads a word without arguments.
func flag(target *bool) dispense.Word { return dispense.Word{Parse: dispense.Flag(target)} }

// timeout reads the budget of one delivery.
func timeout(target *caddy.Duration) dispense.Word {
	return dispense.Word{Parse: dispense.Duration(target)}
}

// meansOf lists what a sink is made with, for comparison only.
func meansOf(budget caddy.Duration, values ...string) []string {
	return append(values, strconv.FormatInt(time.Duration(budget).Nanoseconds(), 10))
}
