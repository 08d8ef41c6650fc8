//go:build linux

package integration

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// integrityRules open one tree with a closed one inside it.
const integrityRules = "\nGET,POST,HEAD,OPTIONS /open/** public\n* /open/private/** deny\n* /** authenticated"

// readings are the paths that different applications make of the same bytes: each
// may decode zero to two times, cut parameters off, and take a backslash for a slash.
func readings(raw string) []string {
	var out []string
	for _, cut := range []bool{false, true} {
		for _, slashes := range []bool{false, true} {
			p := raw
			for range 3 {
				q := p
				if slashes {
					q = strings.ReplaceAll(q, `\`, "/")
				}
				if cut {
					q = cutParameters(q)
				}
				out = append(out, path.Clean(q))
				if cut {
					p = cutParameters(p)
				}
				p = lenientDecode(p)
			}
		}
	}
	return out
}

// cutParameters drops what follows a semicolon in each segment.
func cutParameters(p string) string {
	segments := strings.Split(p, "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(s, ";")
	}
	return strings.Join(segments, "/")
}

// lenientDecode undoes every escape it can, also %uHHHH and overlong UTF-8, and
// leaves the rest alone, as the most generous of applications would.
func lenientDecode(p string) string {
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		if p[i] != '%' {
			b.WriteByte(p[i])
			continue
		}
		if i+6 <= len(p) && p[i+1]|0x20 == 'u' {
			if c, err := strconv.ParseUint(p[i+2:i+6], 16, 16); err == nil {
				b.WriteRune(rune(c))
				i += 5
				continue
			}
		}
		if high, low := hexValue(p, i+1), hexValue(p, i+2); high >= 0 && low >= 0 {
			b.WriteByte(byte(high<<4 | low))
			i += 2
			continue
		}
		b.WriteByte('%')
	}
	return strings.NewReplacer(
		"\xc0\xae", ".", "\xe0\x80\xae", ".", "\xc0\xaf", "/", "\xe0\x80\xaf", "/", "\xc1\x9c", `\`, "\xc0\x80", "\x00",
	).Replace(b.String())
}

// hexValue is the value of the hexadecimal digit at s[i]; -1 when there is none.
func hexValue(s string, i int) int {
	if i >= len(s) {
		return -1
	}
	if n := strings.IndexByte("0123456789abcdef", s[i]); n >= 0 {
		return n
	}
	if n := strings.IndexByte("ABCDEF", s[i]); n >= 0 {
		return 10 + n
	}
	return -1
}

// leaves says how a request that reached the upstream escapes the open tree; ""
// when it does not.
func leaves(target string) string {
	raw, _, _ := strings.Cut(target, "?")
	for _, p := range readings(raw) {
		switch {
		case p != "/open" && !strings.HasPrefix(p, "/open/"):
			return fmt.Sprintf("reads as %q, outside /open", p)
		case p == "/open/private" || strings.HasPrefix(p, "/open/private/"):
			return fmt.Sprintf("reads as %q, which is denied", p)
		}
		for _, c := range []byte(p) {
			if c < ' ' || c == 0x7f {
				return fmt.Sprintf("reads as %q, with a control byte", p)
			}
		}
	}
	return ""
}

// canonicalForm is the one rewriting a gateway may do to a path: escapes of
// unreserved characters are undone and hexadecimal digits are upper case. The
// query goes on as it came.
func canonicalForm(target string) string {
	raw, query, asked := strings.Cut(target, "?")
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		high, low := hexValue(raw, i+1), hexValue(raw, i+2)
		if raw[i] != '%' || high < 0 || low < 0 {
			b.WriteByte(raw[i])
			continue
		}
		c := byte(high<<4 | low)
		if strings.IndexByte("-._~", c) >= 0 || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			b.WriteByte(c)
		} else {
			b.WriteString(strings.ToUpper(raw[i : i+3]))
		}
		i += 2
	}
	if asked {
		return b.String() + "?" + query
	}
	return b.String()
}

// dots are spellings of "one level up" and things that some reader takes for it.
var dots = []string{
	"..", "%2e%2e", "%2E%2e", "%2e.", ".%2E", "%252e%252e", "%25%32%65%25%32%65", "%c0%ae%c0%ae", "%e0%80%ae.",
	"%u002e%u002e", "..;", "..;x=1", "%2e%2e;a", "..%3b", "..%00", "..%09", "..%20", "...", "..%0d%0a", "..%c0%80",
	"..%ff", "..\x01", ".", "%2e", ".;", "..%23", "%ef%bc%8e%ef%bc%8e",
}

// slashes are spellings of the separator and things that some reader takes for it.
var slashes = []string{
	"/", "%2f", "%2F", `\`, "%5c", "%5C", "//", "/./", "/;/", "%252f", "%255C", "%c0%af", "%e0%80%af", "%c1%9c",
	"%u002f", "%u2215", "/%2e/", "%00/", "/%20/",
}

// positions say where in a path a trick stands; %[1]s is the separator, %[2]s the dots.
var positions = []string{
	"/open%[1]s%[2]s%[1]sprivate", "/open/a%[1]s%[2]s/%[2]s%[1]sinternal/x", "/%[2]s%[1]sopen%[1]sprivate/x",
	"/open/b/%[2]s%[1]sprivate/x", "/open%[1]sprivate%[1]s%[2]s", "/open/a%[1]s%[2]s",
}

// suffixes follow a target and should change nothing about where it leads.
var suffixes = []string{"", "?x=/../..", "/", ";v=1", ".", "%20", "?", "#f", "/%61", "%2561"}

// single are targets that no cross product makes.
var single = []string{
	"open/a", "http:/open/a", "http:private", "x:%2Fprivate", "*", "?", "/", "", "/open%", "/open/%", "/open/%4", "/open/%zz",
	"/open/a b", "/open/a\tb", "/open/\x00", "/open/\x7f", "/open/caf\xc3\xa9", "/open/\xff", "/open/a#/../private",
	"/open/a%23/../private", "/open/a?/../private", "/open/%3f/../private", "/OPEN/private", "/%6fpen/private",
	"/open/%70rivate/x", "/open/%70%72%69%76%61%74%65", "/open/private", "/open/private/", "/open/private;x/y",
	"/open/private%3bx/y", "/open/;/private", "/open;/private", "/open;x/private/y", "/open;%2f..%2fprivate", "/open/private%2fx",
	"/open/private%00", "/open/private%0a", "/open/%2570rivate/x", "/open/%u0070rivate", "/open/%c1%b0rivate/x",
	"/open/{a}", "/open/<a>", "/open/a|b", "/open/a^b", "/open/\"a\"", "/open/a`b", "/open/$a/[b]", "/~open/a",
	"//open/a", "///open/a", "/\\open/a", "/open/a//private", "/open//private/x", "/openprivate", "/open.", "/open./private/x",
	"/open%20/private", "/%20open/a", "https://evil.test/open/a", "http://evil.test@{host}/open/a", "http://{host}@evil.test/open/a",
	"http://{host}/open/../private", "http://{host}//open/a", "http://{host}\\open/a", "http://{host}?/open/a", "//{host}/open/a",
	"{host}", "file:///open/a", "ws://{host}/open/a", "HTTP://{host}/open/private/x", "http://{host}/open/%2e%2e/private",
}

// harmless pieces arrive, some of them in another spelling.
var harmless = []string{
	"a", "%61", "%7E%7e", "%c3%a9", "%C3%a9", "%e6%97%A5", "%2Dx%2e%5F", "a%3bb", "a;b", "%2B+%2b", "100%25", "%25zz", "a%20b",
	"%5b%5D", "[x]", "a..b", "%3f%23", "$&,:=@", "!'()*", ".hidden", "%ef%bc%8e%ef%bc%8e", "private", "privat%65",
}

// trickTargets is the cross product; the suffix changes from one to the next.
func trickTargets() []string {
	seen := map[string]bool{}
	var out []string
	add := func(target string) {
		if !seen[target] {
			seen[target] = true
			out = append(out, target)
		}
	}
	for i, d := range dots {
		for j, s := range slashes {
			for k, p := range positions {
				if (i+j+k)%2 == 0 || j == 0 || i == 0 {
					add(fmt.Sprintf(p, s, d) + suffixes[(i*7+j*3+k)%len(suffixes)])
				}
			}
		}
	}
	for _, piece := range harmless {
		for _, suffix := range suffixes {
			add("/open/" + piece + suffix)
			add("/open/" + piece + "/" + piece + suffix)
		}
	}
	for _, target := range single {
		add(target)
		add(target + "?q=1;r=%2f")
	}
	return out
}
