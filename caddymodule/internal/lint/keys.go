package lint

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// fields are the names that decide what runs. Go, and so Caddy, takes a key for a
// field in any letter case; whoever reads the JSON, here or with their own eyes,
// would not see it.
var fields = []string{
	"apps", "http", "servers", "routes", "named_routes", "errors", "handle", "handler", "handle_response", "group", "match",
	"listen", "listen_protocols", "protocols", "trusted_proxies", "trusted_proxies_strict", "tls_connection_policies",
	"protocol_min", "strict_sni_host", "allow_0rtt", "automatic_https", "admin", "disabled", "grace_period",
	"moat", "audit", "redis", "issuer", "role", "roles_file", "rules", "rules_file", "stage", "limits", "transport", "protocol",
	"upstreams", "rewrite", "uri", "method", "abort", "body",
}

// foreign are objects whose keys are the operator's own.
var foreign = map[string]bool{
	"header": true, "headers": true, "set": true, "add": true, "replace": true, "delete": true, "vars": true, "servers": true,
	"named_routes": true, "query": true, "tier": true, "role_map": true, "claims": true, "logs": true, "logger_names": true,
	"mappings": true, "header_regexp": true, "path_regexp": true, "environment": true, "env": true,
}

// CheckKeys refuses a configuration with a key that is read as a field and not
// written like it.
func CheckKeys(config []byte) error {
	var root object
	if err := json.Unmarshal(config, &root); err != nil {
		return fmt.Errorf("the configuration is not a JSON object: %w", err)
	}
	return checkKeys(root)
}

func checkKeys(root object) error {
	var errs []error
	visit("", root, func(path, key string, _ object, _ any) {
		above := strings.Split(path, "/")
		if n := len(above); n > 1 && foreign[above[n-2]] {
			return
		}
		for _, field := range fields {
			if key != field && strings.EqualFold(key, field) {
				errs = append(errs, fmt.Errorf("%s: the key %q is read as %q: write it so", path, key, field))
			}
		}
	})
	return errors.Join(errs...)
}
