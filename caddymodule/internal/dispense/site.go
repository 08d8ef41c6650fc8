package dispense

import (
	"reflect"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// Site is the first address of the site block that a directive stands in, for
// example orders.example.com, or empty where it cannot be told. It labels
// metrics. Caddy does not hand
// it to directives, so it is read from the helper's unexported block; a test
// holds it to Caddy's current shape.
func Site(h httpcaddyfile.Helper) string {
	keys := reflect.ValueOf(h).FieldByName("parentBlock")
	if !keys.IsValid() || keys.Kind() != reflect.Struct {
		return ""
	}
	keys = keys.FieldByName("Keys")
	if !keys.IsValid() || keys.Kind() != reflect.Slice || keys.Len() == 0 {
		return ""
	}
	text := keys.Index(0).FieldByName("Text")
	if !text.IsValid() || text.Kind() != reflect.String {
		return ""
	}
	return text.String()
}

// Scope is the host of the site that a directive stands in, without scheme, port
// and path. It keeps the counters of different sites apart and is the same for
// instances that serve one site at different ports.
func Scope(h httpcaddyfile.Helper) string {
	address, err := httpcaddyfile.ParseAddress(Site(h))
	if err != nil {
		return Site(h)
	}
	return strings.ToLower(address.Host)
}
