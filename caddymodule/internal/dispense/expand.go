package dispense

import (
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// Expand replaces Caddy's global placeholders ({env.X}, {file./path}, …) in a
// configured value. A placeholder that is unknown or expands to nothing is an
// error, as is a value that is empty afterwards: an unset variable must never
// turn a check off. Place names the setting in the error; the value itself is
// shown as configured, never as expanded, because it may be a secret.
func Expand(place, value string) (string, error) {
	out, err := caddy.NewReplacer().ReplaceOrErr(value, true, true)
	if err != nil {
		return "", fmt.Errorf("%s %q: a placeholder in it is unknown, unset or empty", place, value)
	}
	if strings.TrimSpace(out) == "" {
		return "", fmt.Errorf("%s %q: must not be empty", place, value)
	}
	return out, nil
}

// ExpandAll is Expand for a list.
func ExpandAll(place string, values []string) ([]string, error) {
	out := make([]string, 0, len(values))
	for _, v := range values {
		e, err := Expand(place, v)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}
