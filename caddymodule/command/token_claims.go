package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/moat-gateway/moat/internal/token"
)

// first returns the first of the values, or "".
func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// claimSet collects claims and what is wrong with them.
type claimSet struct {
	claims map[string]any
	errs   []error
}

// text sets a claim that is a text. An empty path or text sets nothing.
func (c *claimSet) text(path, value string) {
	if path != "" && value != "" {
		c.put(path, value)
	}
}

// list sets a claim that is one text or several. Of the configured values one is
// enough.
func (c *claimSet) list(path string, values, configured []string) {
	if len(values) == 0 && len(configured) > 0 {
		values = configured[:1]
	}
	switch len(values) {
	case 0:
	case 1:
		c.put(path, values[0])
	default:
		c.put(path, values)
	}
}

func (c *claimSet) put(path string, value any) {
	names, err := token.ParseClaimPath(path)
	if err != nil {
		c.errs = append(c.errs, err)
		return
	}
	object := c.claims
	for _, name := range names[:len(names)-1] {
		inner, present := object[name]
		if !present {
			inner = map[string]any{}
			object[name] = inner
		}
		next, ok := inner.(map[string]any)
		if !ok {
			c.errs = append(c.errs, fmt.Errorf("claim %s: %q is there already and no object", path, name))
			return
		}
		object = next
	}
	object[names[len(names)-1]] = value
}

// parse sets a claim from path=JSON.
func (c *claimSet) parse(text string) {
	path, value, ok := cutPath(text)
	var v any
	d := json.NewDecoder(strings.NewReader(value))
	d.UseNumber()
	err := d.Decode(&v)
	if _, more := d.Token(); !ok || err != nil || !errors.Is(more, io.EOF) {
		c.errs = append(c.errs, fmt.Errorf(`--claim %q: must be path=JSON, and a text needs its quotes: --claim 'email="u@example.com"'`, text))
		return
	}
	c.put(path, v)
}

// has reports whether there is a claim at a path.
func (c *claimSet) has(name string) bool {
	names, err := token.ParseClaimPath(name)
	if err != nil {
		return false
	}
	var at any = c.claims
	for _, name := range names {
		at = objectIn(at)[name]
	}
	return at != nil
}

// need notes that a claim is missing.
func (c *claimSet) need(claim, flag string, waived bool) {
	if _, present := c.claims[claim]; !present && !waived {
		c.errs = append(c.errs, fmt.Errorf("%s: is missing; a token needs it", flag))
	}
}

// cutPath parts path=JSON at the first equals sign outside double quotes.
func cutPath(text string) (path, value string, ok bool) {
	quoted := false
	for i, c := range text {
		switch {
		case c == '"':
			quoted = !quoted
		case c == '=' && !quoted:
			return text[:i], text[i+1:], true
		}
	}
	return "", "", false
}
