package dispense

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

var placeholder = regexp.MustCompile(`\{[A-Za-z$][^{}]*\}`)

// Expand replaces Caddy's global placeholders ({env.X}, {file./path}, …) in a
// configured value. A placeholder that is unknown or expands to nothing is an
// error, as is a value that is empty afterwards: an unset variable must never
// turn a check off. Place names the setting in the error; the value itself is
// not shown, because it may be a secret, only the placeholders in it.
func Expand(place, value string) (string, error) {
	out, err := caddy.NewReplacer().ReplaceOrErr(value, true, true)
	if err != nil {
		return "", fmt.Errorf("%s: of the placeholders %s one is unknown, unset or empty (write \\{ for a brace of the value itself)",
			place, strings.Join(placeholder.FindAllString(value, -1), ", "))
	}
	if strings.TrimSpace(out) == "" {
		return "", fmt.Errorf("%s: must not be empty", place)
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
