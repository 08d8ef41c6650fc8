package headers

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Bounds of a content security policy. Browsers and proxies drop answers with
// headers of more than 8 KiB in all kinds of ways.
const (
	maxCSP        = 8192
	maxDirectives = 64
	maxSources    = 256
	maxSource     = 1024
)

// Directive is one line of a content security policy.
type Directive struct {
	// Name is the directive's name, such as script-src. Case does not matter.
	Name string `json:"name"`
	// Sources are its values in order, keywords in single quotes: 'self'. Only
	// sandbox and directives without a value may have none; write 'none' to
	// allow nothing.
	Sources []string `json:"sources,omitempty"`
	// Place is where the line stands, for error texts only.
	Place string `json:"place,omitempty"`
}

// CSP is a content security policy (W3C CSP Level 3): its directives in the
// order they are sent. Only ParseCSP and New check one.
type CSP []Directive

// String returns the policy as a header's value.
func (c CSP) String() string {
	var b strings.Builder
	for i, d := range c {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(d.Name)
		for _, s := range d.Sources {
			b.WriteByte(' ')
			b.WriteString(s)
		}
	}
	return b.String()
}

// ParseCSP reads one serialized policy. It is stricter than browsers, which
// skip what they do not know: an unknown directive, an unquoted keyword, a
// repetition or a comma (which would start a second policy) is an error, and
// all errors are returned at once. It does not judge whether a source is
// dangerous.
func ParseCSP(s string) (CSP, error) {
	if len(s) > maxCSP {
		return nil, fmt.Errorf("csp: %d bytes: at most %d are allowed", len(s), maxCSP)
	}
	var c CSP
	for segment := range strings.SplitSeq(s, ";") {
		words := strings.FieldsFunc(segment, isASCIISpace)
		if len(words) > 0 {
			c = append(c, Directive{Name: words[0], Sources: words[1:]})
		}
	}
	if len(c) == 0 {
		return nil, errors.New("csp: the policy is empty")
	}
	c, err := normalizeAll(c)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func isASCIISpace(r rune) bool {
	return r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == '\f'
}

// normalizeAll checks directives that stand in one policy. It returns those
// that are right in normal form, and every error.
func normalizeAll(lines []Directive) (CSP, error) {
	if len(lines) > maxDirectives {
		return nil, fmt.Errorf("csp: %d directives: at most %d are allowed", len(lines), maxDirectives)
	}
	var errs []error
	out := make(CSP, 0, len(lines))
	for _, line := range lines {
		d, err := line.normalize()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if first := out.find(d.Name); first != nil {
			errs = append(errs, d.errorf("the directive stands twice%s; browsers obey the first only, so put all sources in one line", at(first.Place)))
			continue
		}
		out = append(out, d)
	}
	if n := len(out.String()); n > maxCSP {
		errs = append(errs, fmt.Errorf("csp: %d bytes: at most %d are allowed", n, maxCSP))
	}
	return out, errors.Join(errs...)
}

// find returns the directive of that name, or nil.
func (c CSP) find(name string) *Directive {
	i := slices.IndexFunc(c, func(d Directive) bool { return d.Name == name })
	if i < 0 {
		return nil
	}
	return &c[i]
}

// with returns the policy with the given lines in the place of its own
// directives of the same names; others follow at the end.
func (c CSP) with(lines CSP) CSP {
	out := slices.Clone(c)
	for _, line := range lines {
		if d := out.find(line.Name); d != nil {
			*d = line
			continue
		}
		out = append(out, line)
	}
	return out
}

// normalize returns the directive in the form it is sent, or every error.
func (d Directive) normalize() (Directive, error) {
	d.Name = strings.ToLower(d.Name)
	check, ok := directives[d.Name]
	if !ok {
		return d, d.errorf("unknown directive%s", didYouMean(d.Name, directives))
	}
	if len(d.Sources) > maxSources {
		return d, d.errorf("%d sources: at most %d are allowed", len(d.Sources), maxSources)
	}
	var errs []error
	out := make([]string, 0, len(d.Sources))
	for _, word := range d.Sources {
		normal, err := checkWord(word, check.word)
		switch {
		case err != nil:
			errs = append(errs, d.errorf("source %q: %w", word, err))
		case slices.Contains(out, normal):
			errs = append(errs, d.errorf("source %q: stands twice", word))
		default:
			out = append(out, normal)
		}
	}
	if len(out) > 1 && slices.Contains(out, "'none'") {
		errs = append(errs, d.errorf("'none' stands alone; browsers ignore it beside other sources"))
	}
	if err := check.count(len(d.Sources)); err != nil {
		errs = append(errs, d.errorf("%w", err))
	}
	d.Sources = out
	return d, errors.Join(errs...)
}

// errorf returns an error that begins with where the directive stands.
func (d Directive) errorf(format string, args ...any) error {
	name := clip(d.Name)
	if !only(d.Name, "-") {
		name = strconv.Quote(name)
	}
	return fmt.Errorf("%scsp %s: %w", before(d.Place), name, fmt.Errorf(format, args...))
}

func before(place string) string {
	if place == "" {
		return ""
	}
	return place + ": "
}

func at(place string) string {
	if place == "" {
		return ""
	}
	return " (first at " + place + ")"
}
