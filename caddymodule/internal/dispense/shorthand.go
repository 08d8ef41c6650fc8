package dispense

import (
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// Caddy expands its placeholder shorthands in a site's tokens before a
// directive sees them, so a parameter that a rule calls {file} or {path}
// arrives as {http.request.uri.path.file}. These are the shorthands that are
// also possible parameter names; what each became is asked of Caddy itself.
var shorthandNames = []string{
	"host", "hostport", "port", "orig_method", "orig_uri", "orig_path", "orig_dir",
	"orig_file", "orig_query", "method", "uri", "path", "dir", "file", "query",
	"remote", "remote_host", "remote_port", "scheme", "uuid", "tls_cipher",
	"tls_version", "tls_client_fingerprint", "tls_client_issuer",
	"tls_client_serial", "tls_client_subject", "tls_client_certificate_pem",
	"tls_client_certificate_der_base64", "upstream_hostport", "client_ip",
}

var (
	shorthands = newShorthandReverser()
	// One-parameter shorthands ({header.x}, {cookie.x}, …) are no parameter
	// names; they are mapped back so that errors show what was written.
	dotted = []struct {
		long  *regexp.Regexp
		short string
	}{
		{regexp.MustCompile(`\{http\.request\.header\.([\w-]*)\}`), "{header.$1}"},
		{regexp.MustCompile(`\{http\.request\.cookie\.([\w-]*)\}`), "{cookie.$1}"},
		{regexp.MustCompile(`\{http\.request\.host\.labels\.([\w-]*)\}`), "{labels.$1}"},
		{regexp.MustCompile(`\{http\.request\.uri\.path\.file\.([\w-]*)\}`), "{file.$1}"},
		{regexp.MustCompile(`\{http\.request\.uri\.path\.([\w-]*)\}`), "{path.$1}"},
		{regexp.MustCompile(`\{http\.request\.uri\.query\.([\w-]*)\}`), "{query.$1}"},
		{regexp.MustCompile(`\{http\.vars\.([\w-]*)\}`), "{vars.$1}"},
	}
)

func newShorthandReverser() *strings.Replacer {
	caddys := httpcaddyfile.NewShorthandReplacer()
	pairs := make([]string, 0, 2*len(shorthandNames))
	for _, name := range shorthandNames {
		short := "{" + name + "}"
		segment := caddyfile.Segment{{Text: short}}
		caddys.ApplyToSegment(&segment)
		if long := segment[0].Text; long != short {
			pairs = append(pairs, long, short)
		}
	}
	return strings.NewReplacer(pairs...)
}

// AsWritten returns a site token as the user wrote it, before Caddy expanded
// placeholder shorthands in it.
func AsWritten(token string) string {
	if !strings.Contains(token, "{http.") {
		return token
	}
	token = shorthands.Replace(token)
	for _, r := range dotted {
		token = r.long.ReplaceAllString(token, r.short)
	}
	return token
}

// AllAsWritten is AsWritten for a list.
func AllAsWritten(tokens []string) []string {
	out := make([]string, len(tokens))
	for i, t := range tokens {
		out[i] = AsWritten(t)
	}
	return out
}
