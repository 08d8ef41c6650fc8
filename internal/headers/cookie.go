package headers

import (
	"slices"
	"strings"
)

const nameCookie = "Set-Cookie"

// Cookies says what every cookie that an answer sets must have. What a cookie has
// already and is at least as strict stays as it is: nothing is ever weakened, and no
// byte of a name or a value is changed. The zero Cookies changes nothing.
type Cookies struct {
	// Secure adds Secure to answers over TLS, so that browsers never send the cookie
	// without. Over a plain connection browsers would drop the cookie, so nothing is
	// added there.
	Secure bool `json:"secure,omitempty"`
	// HTTPOnly adds HttpOnly, which hides the cookie from scripts.
	HTTPOnly bool `json:"httponly,omitempty"`
	// SameSite is the least that a cookie's SameSite must be: "lax", or "strict", which
	// also leaves the cookie out when somebody follows a link from another site.
	// Default: SameSite is left alone.
	SameSite string `json:"samesite,omitempty"`
	// Except names cookies that are left as they are, case-sensitive, such as the one
	// from which a script has to read its CSRF token.
	Except []string `json:"except,omitempty"`
}

// active reports whether there is anything to do.
func (c *Cookies) active() bool { return c.Secure || c.HTTPOnly || c.SameSite != "" }

// harden returns the lines with what is missing added, and lines itself when nothing
// is. It never writes into lines, which may belong to somebody else.
func (c *Cookies) harden(lines []string, tls bool) []string {
	out := lines
	for i, line := range lines {
		hard := c.one(line, tls)
		if hard == line {
			continue
		}
		if &out[0] == &lines[0] {
			out = slices.Clone(lines)
		}
		out[i] = hard
	}
	return out
}

// one hardens one Set-Cookie line (RFC 6265 section 5.2): what stands before the
// first semicolon is the cookie, the rest are attributes, of which browsers obey the
// last of each name.
func (c *Cookies) one(line string, tls bool) string {
	pair, rest, _ := strings.Cut(line, ";")
	name, _, _ := strings.Cut(pair, "=")
	if slices.Contains(c.Except, trim(name)) {
		return line
	}
	var secure, httpOnly bool
	sameSite, sites := "", 0
	for attribute := range strings.SplitSeq(rest, ";") {
		name, value, _ := strings.Cut(attribute, "=")
		switch strings.ToLower(trim(name)) {
		case "secure":
			secure = true
		case "httponly":
			httpOnly = true
		case "samesite":
			sameSite, sites = strings.ToLower(trim(value)), sites+1
		}
	}
	if c.SameSite != "" && !atLeast(sameSite, c.SameSite) {
		if sites > 0 {
			line = withoutSameSite(line)
		}
		line += sameSites[c.SameSite]
	}
	if c.Secure && tls && !secure {
		line += "; Secure"
	}
	if c.HTTPOnly && !httpOnly {
		line += "; HttpOnly"
	}
	return line
}

// trim takes off what browsers do: spaces and tabs, and nothing else that is white.
func trim(s string) string { return strings.Trim(s, " \t") }

// sameSites are the attributes for the values of SameSite.
var sameSites = map[string]string{"lax": "; SameSite=Lax", "strict": "; SameSite=Strict"}

// atLeast reports whether a SameSite is as strict as the least that is wanted. One
// that browsers do not know counts as none.
func atLeast(is, least string) bool { return is == "strict" || is == least }

// withoutSameSite takes every SameSite out of a line.
func withoutSameSite(line string) string {
	parts := strings.Split(line, ";")
	kept := parts[:1]
	for _, part := range parts[1:] {
		name, _, _ := strings.Cut(part, "=")
		if !strings.EqualFold(trim(name), "samesite") {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, ";")
}
