package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
)

// maxCases bounds the size of a file of cases, in bytes.
const maxCases = 8 << 20

const (
	expectAllow = "allow"
	expectDeny  = "deny"
)

// testCase is one request of a file and what is expected of the gate.
type testCase struct {
	place   string // file:line
	name    string
	request *request
	// expect is allow, deny or the status of a refusal.
	expect string
	reason string // empty: any
}

// matches reports whether a verdict is the expected one.
func (c *testCase) matches(v verdict) bool {
	if c.reason != "" && c.reason != v.Reason {
		return false
	}
	switch c.expect {
	case expectAllow:
		return v.Result == resultAllowed
	case expectDeny:
		return v.Result == resultRefused
	}
	return v.Result == resultRefused && strconv.Itoa(v.Status) == c.expect
}

// readCases reads a file of cases. Everything that is wrong with it is reported
// at once, with its line.
func readCases(name string, in io.Reader) ([]testCase, error) {
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("--cases: %w", err)
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	data, err := io.ReadAll(io.LimitReader(in, maxCases+1))
	if err != nil {
		return nil, fmt.Errorf("--cases: %w", err)
	}
	if len(data) > maxCases {
		return nil, fmt.Errorf("%s: is larger than %d MiB", name, maxCases>>20)
	}
	return parseCases(name, data)
}

func parseCases(name string, data []byte) ([]testCase, error) {
	top, err := parseDocument(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if top.Kind != yaml.SequenceNode || len(top.Content) == 0 {
		return nil, fmt.Errorf("%s:%d: must be a list of cases", name, top.Line)
	}
	r := &caseReader{file: name}
	cases := make([]testCase, 0, len(top.Content))
	for _, node := range top.Content {
		cases = append(cases, r.read(node))
	}
	return cases, errors.Join(r.errs...)
}

// caseReader reads cases and collects what is wrong with them.
type caseReader struct {
	file string
	errs []error
	// label names the case at hand in errors.
	label string
}

func (r *caseReader) fail(line int, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%s:%d: %s%s", r.file, line, r.label, fmt.Sprintf(format, args...)))
}

// caseWords are the words of a case.
type caseWords struct {
	testCase
	url, address, at     string
	user, tenant, issuer string
	roles                []string
	claims               map[string]any
	hasCaller, hasBearer bool
}

func (r *caseReader) read(n *yaml.Node) testCase {
	c := caseWords{testCase: testCase{
		place: fmt.Sprintf("%s:%d", r.file, n.Line), request: new(request),
	}, address: defaultAddress}
	r.label = "case: "
	if n.Kind != yaml.MappingNode {
		r.fail(n.Line, "must have words such as method, url and expect")
		return c.testCase
	}
	if name := valueOf(n, "name"); name != nil && name.Kind == yaml.ScalarNode {
		r.label = fmt.Sprintf("case %q: ", name.Value)
	}
	r.words(n, &c)
	r.finish(n, &c)
	return c.testCase
}

func valueOf(n *yaml.Node, word string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == word {
			return n.Content[i+1]
		}
	}
	return nil
}

// words gives each word of a case to what reads it.
func (r *caseReader) words(n *yaml.Node, c *caseWords) {
	text := func(target *string) func(*yaml.Node, string) {
		return func(v *yaml.Node, word string) { *target = r.text(v, word) }
	}
	caller := func(target *string) func(*yaml.Node, string) {
		return func(v *yaml.Node, word string) { *target, c.hasCaller = r.text(v, word), true }
	}
	known := map[string]func(*yaml.Node, string){
		"name": text(&c.name), "method": text(&c.request.method), "url": text(&c.url),
		"address": text(&c.address), "at": text(&c.at), "expect": text(&c.expect), "reason": text(&c.reason),
		"user": caller(&c.user), "tenant": caller(&c.tenant), "issuer": caller(&c.issuer),
		"token":   func(v *yaml.Node, word string) { c.request.token, c.hasBearer = r.text(v, word), true },
		"roles":   func(v *yaml.Node, word string) { c.roles, c.hasCaller = r.texts(v, word), true },
		"claims":  func(v *yaml.Node, _ string) { c.claims, c.hasCaller = r.claims(v), true },
		"headers": func(v *yaml.Node, _ string) { c.request.header = r.headers(v) },
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		word, value := n.Content[i], n.Content[i+1]
		read := known[word.Value]
		switch {
		case read == nil:
			r.fail(word.Line, "unknown word %q; known are: %s", word.Value, strings.Join(sortedWords(known), ", "))
		case seen[word.Value]:
			r.fail(word.Line, "%s: stands twice", word.Value)
		default:
			read(value, word.Value)
		}
		seen[word.Value] = true
	}
	for _, word := range []string{"method", "url", "expect"} {
		if !seen[word] {
			r.fail(n.Line, "%s: is missing", word)
		}
	}
}

func sortedWords[T any](known map[string]T) []string {
	words := make([]string, 0, len(known))
	for word := range known {
		words = append(words, word)
	}
	slices.Sort(words)
	return words
}

// finish checks the words against each other and makes the request.
func (r *caseReader) finish(n *yaml.Node, c *caseWords) {
	if c.hasBearer && c.hasCaller {
		r.fail(n.Line, "token says who the caller is; user, tenant, roles, issuer and claims cannot stand beside it")
	}
	if c.hasCaller {
		c.request.caller = &explanation.Caller{ID: c.user, Tenant: c.tenant, Roles: c.roles, Issuer: c.issuer, Claims: c.claims}
	}
	if status, err := strconv.Atoi(c.expect); c.expect != "" && c.expect != expectAllow && c.expect != expectDeny &&
		(err != nil || strconv.Itoa(status) != c.expect || status != http.StatusSeeOther && (status < 400 || status > 599)) {
		r.fail(n.Line, "expect %q: must be allow, deny or the status of a refusal, such as 403 (303 to a login page)", c.expect)
	}
	if c.url == "" || c.request.method == "" {
		return
	}
	if err := c.request.fill(c.url, c.address, c.at); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			r.fail(n.Line, "%s", line)
		}
	}
}

// text reads a value that is one text.
func (r *caseReader) text(n *yaml.Node, word string) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Value == "" {
		r.fail(n.Line, "%s: must be one text, and not empty", word)
		return ""
	}
	return n.Value
}

// texts reads a value that is a list of texts, or one with commas.
func (r *caseReader) texts(n *yaml.Node, word string) []string {
	if n.Kind == yaml.MappingNode {
		r.fail(n.Line, "%s: must be a text or a list of texts", word)
		return nil
	}
	if n.Kind == yaml.SequenceNode {
		var out []string
		for _, item := range n.Content {
			out = append(out, r.text(item, word))
		}
		return out
	}
	var out []string
	for part := range strings.SplitSeq(r.text(n, word), ",") {
		out = append(out, strings.TrimSpace(part))
	}
	return out
}

func (r *caseReader) claims(n *yaml.Node) map[string]any {
	var value any
	err := n.Decode(&value)
	text, jsonErr := json.Marshal(value)
	if err = errors.Join(err, jsonErr); err != nil {
		r.fail(n.Line, "claims: must be an object of JSON values")
		return nil
	}
	claims, err := parseClaims(string(text))
	if err != nil {
		r.fail(n.Line, "%v", err)
	}
	return claims
}

// headers reads an object of names, each with a value or a list of values.
func (r *caseReader) headers(n *yaml.Node) []string {
	if n.Kind != yaml.MappingNode {
		r.fail(n.Line, "headers: must be an object of names and values")
		return nil
	}
	var lines []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, values := n.Content[i].Value, []*yaml.Node{n.Content[i+1]}
		if values[0].Kind == yaml.SequenceNode {
			values = values[0].Content
		}
		for _, value := range values {
			lines = append(lines, name+": "+r.text(value, "headers: "+name))
		}
	}
	return lines
}
