// Package gate is the moat directive of a site: one block in, the handlers out,
// in the one safe order, whatever the order of the lines. It knows the other
// modules by their IDs only.
package gate

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
)

func init() { httpcaddyfile.RegisterDirective("moat", parse) }

// block is what a moat block says. Modules are kept as their JSON: the gate
// needs a few fields of them and must not know their types.
type block struct {
	site    string // label in metrics
	scope   string // keeps counters apart
	realm   string
	shadow  bool
	guard   map[string]any
	headers map[string]any
	paths   []any // headers of parts of the site
	preset  bool  // the headers of the site have been read
	jwt     map[string]any
	rbac    map[string]any
	limits  []any
}

// parse reads:
//
//	moat {
//		site <label>
//		realm <name>
//		guard { ... } // its words may also stand here
//		headers [html|api] { ... }
//		headers <pattern> [html|api] { ... }
//		limit [<name>] <n>/<window> by <key>... { ... }
//		jwt <issuer>... { ... }
//		rbac { ... }
//		insecure_shadow
//	}
func parse(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next()
	if err := placed(h); err != nil {
		return nil, err
	}
	b := &block{guard: map[string]any{}, headers: map[string]any{}}
	if err := b.words().Block(h.Dispenser, "moat"); err != nil {
		return nil, err
	}
	if b.scope = b.site; b.site == "" {
		b.site, b.scope = dispense.Site(h), dispense.Scope(h)
	}
	if err := b.check(h); err != nil {
		return nil, err
	}
	return b.values(h), nil
}

// placed checks that the directive stands where its error route is heard: once,
// at the top level of a site, without a matcher.
func placed(h httpcaddyfile.Helper) error {
	singles := "use moat_guard, moat_headers, moat_limit, moat_jwt, moat_rbac and moat_audit there"
	if h.IsNamedRoute() {
		return h.Errf("moat guards a whole site and cannot stand in a named route; %s", singles)
	}
	if reflect.ValueOf(h.State).Pointer() != reflect.ValueOf(h.BlockState).Pointer() {
		return h.Errf("moat guards a whole site and cannot stand inside handle, route or another block; %s", singles)
	}
	if h.NextArg() {
		return h.Errf("moat takes no matcher and no argument, but got %q: it guards the whole site, and rules say what is open", h.Val())
	}
	key := "moat.gate/" + dispense.Site(h)
	if first, twice := h.State[key]; twice {
		return h.Errf("moat stands twice in one site; the first is at %v", first)
	}
	h.State[key] = dispense.Place(h.Dispenser)
	return nil
}

func (b *block) words() dispense.Words {
	words := dispense.Words{
		"site":            {Parse: dispense.String(&b.site)},
		"realm":           {Parse: dispense.String(&b.realm)},
		"guard":           {Parse: module("moat_guard", &b.guard)},
		"headers":         {Parse: b.parseHeaders, Repeats: true},
		"jwt":             {Parse: module("moat_jwt", &b.jwt)},
		"rbac":            {Parse: module("moat_rbac", &b.rbac)},
		"limit":           {Parse: b.parseLimit, Repeats: true},
		"concurrent":      {Parse: b.parseLimit, Repeats: true},
		"insecure_shadow": {Parse: dispense.Flag(&b.shadow)},
	}
	for _, word := range guardWords {
		words[word] = dispense.Word{Parse: b.parseGuardWord}
	}
	return words
}

// guardWords are what the guard's block takes that may also stand in the moat
// block itself.
var guardWords = []string{
	"methods", "case_insensitive", "refuse_parameters", "max_body", "max_headers", "max_header", "max_path", "max_query",
	"insecure_allow_encoded_slash", "insecure_allow_empty_segments", "insecure_allow_tls12",
}

// parseGuardWord reads a word as if it stood in a guard block of its own.
func (b *block) parseGuardWord(d *caddyfile.Dispenser) error {
	d.Reset()
	d.Next()
	line := d.NextSegment()
	first, last := line[0], line[len(line)-1]
	open, end := first, last
	first.Text, first.Line = "guard", first.Line-1
	open.Text, open.Line = "{", open.Line-1
	end.Text, end.Line = "}", end.Line+1
	tokens := append([]caddyfile.Token{first, open}, line...)
	block := caddyfile.NewDispenser(append(tokens, end))
	block.Next()
	return module("moat_guard", &b.guard)(block)
}

// module parses a word with the Caddyfile syntax of a handler's own directive.
func module(name string, target *map[string]any) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		info, err := caddy.GetModule("http.handlers." + name)
		if err != nil {
			return err
		}
		instance := info.New()
		unmarshaler, ok := instance.(caddyfile.Unmarshaler)
		if !ok {
			return fmt.Errorf("%s cannot be configured by a Caddyfile", name)
		}
		d.Reset()
		if err := unmarshaler.UnmarshalCaddyfile(d); err != nil {
			return err
		}
		text, err := json.Marshal(instance)
		if err != nil {
			return err
		}
		return json.Unmarshal(text, target)
	}
}

// parseHeaders reads the headers of the site, or of a part of it.
func (b *block) parseHeaders(d *caddyfile.Dispenser) error {
	var one map[string]any
	if err := module("moat_headers", &one)(d); err != nil {
		return err
	}
	paths, _ := one["paths"].([]any)
	b.paths = append(b.paths, paths...)
	d.Reset()
	d.Next()
	if segment := d.NextSegment(); len(segment) > 1 && strings.HasPrefix(segment[1].Text, "/") {
		return nil
	}
	if b.preset {
		return d.Err("headers: stands twice; it may stand once, and once for each path")
	}
	b.preset, b.headers = true, one
	return nil
}

func (b *block) parseLimit(d *caddyfile.Dispenser) error {
	var one map[string]any
	if err := module("moat_limit", &one)(d); err != nil {
		return err
	}
	limits, _ := one["limits"].([]any)
	b.limits = append(b.limits, limits...)
	return nil
}

// values is the chain, in the one safe order, and the error route.
func (b *block) values(h httpcaddyfile.Helper) []httpcaddyfile.ConfigValue {
	before, after := b.splitLimits()
	b.prepare()
	chain := []json.RawMessage{
		handler("moat_audit", map[string]any{"site": b.site}),
		handler("moat_headers", b.headers),
		handler("moat_guard", b.guard),
		handler("moat_rbac", with(b.rbac, "stage", "match")),
	}
	if len(before) > 0 {
		chain = append(chain, b.limit(before))
	}
	if b.jwt != nil {
		chain = append(chain, handler("moat_jwt", b.jwt))
	}
	if len(after) > 0 {
		chain = append(chain, b.limit(after))
	}
	decide := map[string]any{"stage": "decide"}
	for _, key := range []string{"realm", "insecure_shadow", "reveal_to", "insecure_reveal_reasons"} {
		if v, ok := b.rbac[key]; ok {
			decide[key] = v
		}
	}
	chain = append(chain, handler("moat_rbac", decide))
	return []httpcaddyfile.ConfigValue{
		{Class: "route", Value: caddyhttp.Route{HandlersRaw: chain}},
		{Class: "error_route", Value: &caddyhttp.Subroute{Routes: []caddyhttp.Route{{
			HandlersRaw: b.refusals(),
		}}}},
	}
}

// prepare tells each part what it has to know of the others.
func (b *block) prepare() {
	if names := texts(b.jwt, "forward", "header"); len(names) > 0 {
		existing, _ := b.guard["identity"].([]any)
		for _, name := range names {
			existing = append(existing, name)
		}
		b.guard["identity"] = existing
	}
	if names := texts(b.jwt, "from", "name"); len(names) > 0 {
		b.guard["credentials"] = names
	}
	if login, ok := b.jwt["login_url"]; ok {
		b.rbac["login_url"] = login
	}
	if len(b.paths) > 0 {
		b.headers["paths"] = b.paths
	}
	if len(b.reportPaths()) > 0 {
		b.headers["site"] = b.site
	}
	if fold, _ := b.guard["case_insensitive"].(bool); fold {
		b.rbac["case_insensitive"] = true
		if len(b.paths) > 0 {
			b.headers["case_insensitive"] = true
		}
	}
	for _, rule := range list(b.rbac, "rules") {
		if on, _ := rule["encoded_slash"].(bool); on {
			b.guard["encoded_slash"] = true
		}
	}
	if _, inFile := b.rbac["rules_file"]; inFile {
		// What the file says changes without the guard; rules that do not say
		// encoded_slash refuse it themselves.
		b.guard["encoded_slash"] = true
		if b.jwt == nil {
			b.rbac["anonymous_only"] = true
		}
	}
	if b.realm != "" {
		b.rbac["realm"] = b.realm
		if b.jwt != nil {
			b.jwt["realm"] = b.realm
		}
	}
	if b.shadow {
		b.rbac["insecure_shadow"] = true
		b.headers["mode"] = "shadow"
		if b.jwt != nil {
			b.jwt["insecure_shadow"] = true
		}
		for _, l := range b.limits {
			l.(map[string]any)["mode"] = "shadow"
		}
	}
}

// refusals answers errors. What Caddy refuses before the gate has no headers yet, and
// gets the site's without what needs a page or its path.
func (b *block) refusals() []json.RawMessage {
	refusal := handler("moat_refusal", nil)
	if b.headers["mode"] == "shadow" {
		return []json.RawMessage{refusal}
	}
	headers := make(map[string]any)
	for key, value := range b.headers {
		switch key {
		case "paths", "inline", "pins", "pins_sum", "learn", "max_inline", "report", "site", "case_insensitive":
		default:
			headers[key] = value
		}
	}
	return []json.RawMessage{handler("moat_headers", headers), refusal}
}

func (b *block) limit(limits []any) json.RawMessage {
	settings := map[string]any{"site": b.scope, "limits": limits}
	if fold, ok := b.guard["case_insensitive"]; ok {
		settings["case_insensitive"] = fold
	}
	return handler("moat_limit", settings)
}

func (b *block) splitLimits() (before, after []any) {
	for _, l := range b.limits {
		if byIdentity(l) {
			after = append(after, l)
		} else {
			before = append(before, l)
		}
	}
	return before, after
}

func handler(name string, settings map[string]any) json.RawMessage {
	return caddyconfig.JSON(with(settings, "handler", name), nil)
}

func with(settings map[string]any, key string, value any) map[string]any {
	out := map[string]any{key: value}
	for k, v := range settings {
		out[k] = v
	}
	return out
}
