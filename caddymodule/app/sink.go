package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/redis/go-redis/v9"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/format"
)

// sinkModules is the namespace of the modules that know one type of sink each.
const sinkModules = "moat.sinks"

const sinkStdout = "stdout"

// Sink is one place that the events also go to. Its JSON object has the keys of
// the module that its type names beside those that are described here.
type Sink struct {
	// Type is the name of a module in the namespace moat.sinks.
	Type string `json:"type"`
	// Name is what the sink is called in metrics, events and the log, and what its
	// place in the journal belongs to: with a name the place outlives a change of
	// where the events go. 1 to 32 of a-z, 0-9, "-" and "_". Default: the type, and
	// the place belongs to where the events go.
	Name string `json:"name,omitempty"`
	// Class limits the events to classes: access, security, admin. With a "!" before
	// each, to all others. Default: all.
	Class []string `json:"class,omitempty"`
	// Outcome limits the events to outcomes: allow, deny, error, aborted; or with a
	// "!" before each to all others. Default: all.
	Outcome []string `json:"outcome,omitempty"`
	// Severity limits the events to severities: low, medium, high; or with a "!"
	// before each to all others. Default: all.
	Severity []string `json:"severity,omitempty"`
	// Action limits the events to actions such as keys.changed or, of requests,
	// "GET /orders/{id}"; or with a "!" before each to all others. A "*" at the end stands for any rest. Default: all.
	Action []string `json:"action,omitempty"`
	// Format is what the sink carries: moat (the journal's line as it stands), ocsf,
	// ecs or cloudevents. Default: moat. The chain can be verified in moat only.
	Format string `json:"format,omitempty"`
	// Required keeps each event in the journal until this sink has it, whatever keep
	// and max_size say; when the journal can grow no further, on_full decides about
	// requests. Default: false, and what is removed before the sink has it is counted
	// and told.
	Required bool `json:"required,omitempty"`
	// Settings are the module's, as one object. Empty: it has none.
	Settings json.RawMessage `json:"-"`
}

// common are the settings that every sink has.
type common Sink

// MarshalJSON puts the module's settings beside the common ones.
func (s *Sink) MarshalJSON() ([]byte, error) {
	raw, err := json.Marshal((*common)(s))
	settings, object := bytes.CutPrefix(bytes.TrimSpace(s.Settings), []byte("{"))
	if err != nil || !object || bytes.Equal(bytes.TrimSpace(settings), []byte("}")) {
		return raw, err
	}
	return slices.Concat(raw[:len(raw)-1], []byte(","), settings), nil
}

// UnmarshalJSON takes the module's settings apart from the common ones.
func (s *Sink) UnmarshalJSON(raw []byte) error {
	if err := json.Unmarshal(raw, (*common)(s)); err != nil {
		return err
	}
	var settings map[string]json.RawMessage
	if err := json.Unmarshal(raw, &settings); err != nil {
		return err
	}
	for _, word := range append(commonWords(), "type") {
		delete(settings, word)
	}
	s.Settings = nil
	if len(settings) == 0 {
		return nil
	}
	var err error
	s.Settings, err = json.Marshal(settings)
	return err
}

// commonWords are the words that no module is shown.
func commonWords() []string {
	return []string{"name", "class", "outcome", "severity", "action", "format", "required"}
}

func (s *Sink) filter() follow.Filter {
	return follow.Filter{Class: s.Class, Outcome: s.Outcome, Severity: s.Severity, Action: s.Action}
}

// load makes the module's settings and checks what all sinks have.
func (s *Sink) load(ctx caddy.Context) (follow.Settings, error) {
	if _, err := caddy.GetModule(sinkModules + "." + s.Type); err != nil {
		return nil, unknownSink(s.Type)
	}
	module, err := ctx.LoadModuleByID(sinkModules+"."+s.Type, s.Settings)
	if err != nil {
		return nil, err
	}
	settings, ok := module.(follow.Settings)
	if !ok {
		return nil, fmt.Errorf("module %s.%s: is no sink", sinkModules, s.Type)
	}
	return settings, errors.Join(s.checkName(), s.filter().Validate())
}

var sinkName = regexp.MustCompile(`^[a-z0-9_-]{1,32}$`)

func (s *Sink) checkName() error {
	if s.Name == "" || sinkName.MatchString(s.Name) {
		return nil
	}
	return fmt.Errorf("name %.40q: must be 1 to 32 of a-z, 0-9, - and _", s.Name)
}

// identity is what the sink's place in the journal belongs to: its name, or where
// the events go and not how, since a rotated secret must not start over.
func (s *Sink) identity(to follow.Target) string {
	if s.Name != "" {
		return digest(s.Type, "", s.Name)
	}
	return digest(s.Type, to.Place)
}

func unknownSink(name string) error {
	var known []string
	for _, m := range caddy.GetModules(sinkModules) {
		known = append(known, m.ID.Name())
	}
	slices.Sort(known)
	return fmt.Errorf("unknown; known are: %s", strings.Join(known, ", "))
}

// redisUser is a sink that goes through the client of the redis block.
type redisUser interface {
	UseRedis(block string, client redis.UniversalClient)
}

// errElsewhere says that a sink cannot be made for a reason that another part of
// the configuration reports.
var errElsewhere = errors.New("reported elsewhere")

// settings makes a sink's settings ready to open.
func (a *App) settings(s *Sink) (follow.Settings, error) {
	settings, err := s.load(a.ctx)
	if err != nil {
		return nil, err
	}
	if user, ok := settings.(redisUser); ok {
		switch {
		case a.Redis == nil:
			return nil, errors.New("needs the redis block")
		case a.limiter.redis == nil:
			return nil, errElsewhere
		}
		user.UseRedis(a.limiter.redis.key, a.limiter.redis.client)
	}
	return settings, nil
}

// formatOf returns how lines are written for a sink, nil when as they stand.
func (s *Sink) formatOf(to follow.Target) (func(dst, line []byte) ([]byte, error), error) {
	if s.Format == "" || s.Format == "moat" {
		return nil, nil
	}
	f, err := format.Of(s.Format)
	switch {
	case err != nil:
		return nil, fmt.Errorf("format %.32q: must be %s", s.Format, strings.Join(format.Names(), ", "))
	case to.RawOnly:
		return nil, fmt.Errorf("format %s: this sink stores the journal's lines as they stand; must be moat", s.Format)
	}
	return f.Append, nil
}

// checkFiles refuses files among the segments, which a reader would take for some,
// and files that another sink writes. Written are those of the sinks before it.
func checkFiles(dir string, files []string, written map[string]bool) error {
	for _, file := range files {
		real := resolved(file)
		switch {
		case inside(dir, file):
			return fmt.Errorf("file %q: lies in the journal's directory; must lie elsewhere", file)
		case written[real]:
			return fmt.Errorf("file %q: another sink writes it", file)
		}
		written[real] = true
	}
	return nil
}

// parseSink reads:
//
//	sink <type> <arguments of the module> {
//		name <name>
//		class [!]<class>...
//		outcome [!]<outcome>...
//		severity [!]<severity>...
//		action [!]<action>[*]...
//		format moat|ocsf|ecs|cloudevents
//		required
//		<words of the module>
//	}
func (c *Audit) parseSink(d *caddyfile.Dispenser) error {
	s, word := new(Sink), d.Token()
	if !d.NextArg() {
		return d.Err("sink: needs a type")
	}
	s.Type = d.Val()
	place := "sink " + s.Type
	info, err := caddy.GetModule(sinkModules + "." + s.Type)
	if err != nil {
		return d.Errf("sink %q: %v", s.Type, unknownSink(s.Type))
	}
	module, ok := info.New().(caddyfile.Unmarshaler)
	if !ok {
		return d.Errf("%s: its module %s has no Caddyfile form; use JSON", place, info.ID)
	}
	c.Sinks = append(c.Sinks, s)
	own, theirs := split(d, word, commonWords())
	own.Next()
	err = errors.Join(
		dispense.Words{
			"name":     {Parse: dispense.String(&s.Name)},
			"class":    {Parse: dispense.Strings(&s.Class), Repeats: true},
			"outcome":  {Parse: dispense.Strings(&s.Outcome), Repeats: true},
			"severity": {Parse: dispense.Strings(&s.Severity), Repeats: true},
			"action":   {Parse: dispense.Strings(&s.Action), Repeats: true},
			"format":   {Parse: dispense.OneOf(&s.Format, format.Names()...)},
			"required": {Parse: dispense.Flag(&s.Required)},
		}.Block(own, place),
		module.UnmarshalCaddyfile(theirs),
		dispense.Leftover(theirs, place),
	)
	if err != nil {
		return err
	}
	if err := errors.Join(s.checkName(), s.filter().Validate()); err != nil {
		return d.Errf("%s: %v", place, err)
	}
	s.Settings = caddyconfig.JSON(module, nil)
	return wrap(d, s.checkSettings())
}

func wrap(d *caddyfile.Dispenser, err error) error {
	if err == nil {
		return nil
	}
	return d.WrapErr(err)
}

// checkSettings refuses a module whose own words are the gateway's.
func (s *Sink) checkSettings() error {
	var settings map[string]json.RawMessage
	if err := json.Unmarshal(s.Settings, &settings); err != nil {
		return fmt.Errorf("sink %s: its module has settings that are no JSON object", s.Type)
	}
	for _, word := range append(commonWords(), "type") {
		if _, taken := settings[word]; taken {
			return fmt.Errorf("sink %s: its module has a setting %q, which is a word of all sinks", s.Type, word)
		}
	}
	return nil
}

// split reads a segment that d stands on and takes the lines of its block that
// begin with one of the words apart: own stands before a block of these lines,
// theirs has all the rest.
func split(d *caddyfile.Dispenser, word caddyfile.Token, words []string) (own, theirs *caddyfile.Dispenser) {
	head := []caddyfile.Token{d.Token()}
	for d.NextArg() {
		head = append(head, d.Token())
	}
	var mine, rest []caddyfile.Token
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		lines := &rest
		if slices.Contains(words, d.Val()) {
			lines = &mine
		}
		*lines = append(*lines, d.NextSegment()...)
	}
	return caddyfile.NewDispenser(braced(word, head[:1], mine)), caddyfile.NewDispenser(braced(word, head, rest))
}

// braced puts lines into a block behind a head. The braces come from where the word
// does, which nobody puts in quotes.
func braced(word caddyfile.Token, head, lines []caddyfile.Token) []caddyfile.Token {
	if len(lines) == 0 {
		return head
	}
	open, end, last := word, word, lines[len(lines)-1]
	open.Text, open.Line = "{", head[len(head)-1].Line+head[len(head)-1].NumLineBreaks()
	end.Text, end.Line = "}", last.Line+last.NumLineBreaks()+1
	return slices.Concat(head, []caddyfile.Token{open}, lines, []caddyfile.Token{end})
}
