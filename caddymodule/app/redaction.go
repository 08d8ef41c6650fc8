package app

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/canon"
)

// maxRecordHeaders is how many headers an event carries at most.
const maxRecordHeaders = 16

// Headers that carry a credential, whatever else their names say.
var credentialHeaders = canon.NewHeaderSet(
	"Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "X-Api-Key", "Api-Key", "X-Auth-Token", "X-Auth-*",
)

// Parts of names of headers that carry one.
var credentialWords = []string{"token", "secret", "password", "session", "csrf", "key", "credential"}

// Headers that say from which address a request comes.
var addressHeaders = canon.NewHeaderSet(
	"Forwarded", "X-Forwarded-For", "Forwarded-For", "X-Original-Forwarded-For", "X-Real-IP", "True-Client-IP",
	"X-Client-IP", "Client-IP", "X-Cluster-Client-IP", "CF-Connecting-IP", "WL-Proxy-Client-IP", "Fastly-Client-IP",
)

// mayCarryCredential reports whether a header may not be recorded.
func mayCarryCredential(name string) bool {
	return credentialHeaders.Has(name) || slices.ContainsFunc(credentialWords, func(word string) bool {
		return strings.Contains(strings.ToLower(name), word)
	})
}

// recordHeaders checks record_headers and returns the names in canonical
// spelling.
func (c *Audit) recordHeaders() ([]string, error) {
	var names []string
	var errs []error
	bad := func(name, rule string) {
		errs = append(errs, fmt.Errorf("audit: record_headers %.64q: %s", name, rule))
	}
	for _, name := range c.RecordHeaders {
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case !httpguts.ValidHeaderFieldName(name) || len(name) > 64:
			bad(name, "must be the name of a header, at most 64 bytes")
		case mayCarryCredential(name):
			bad(name, "carries a credential, which is never in an event")
		case c.Pseudonymize.hides(audit.KindIP) && addressHeaders.Has(name):
			bad(name, "carries an address, which pseudonymize is to keep out of the trail")
		case !slices.Contains(names, canonical):
			names = append(names, canonical)
		}
	}
	if len(names) > maxRecordHeaders {
		errs = append(errs, fmt.Errorf("audit: record_headers: %d names; must be at most %d", len(names), maxRecordHeaders))
	}
	return names, errors.Join(errs...)
}

// Pseudonymize replaces what says who somebody is by keyed hashes.
type Pseudonymize struct {
	// KeyFile holds the key: at least 32 bytes, raw, base64 or hex. It is created
	// with mode 0600 and a random key at start when it does not exist. It must not
	// lie in the directory of the journal: who has the trail must not have the key.
	KeyFile string `json:"key_file"`
	// Kinds are what is replaced: "ip" (ip, and addresses in details), "user"
	// (userId, and users in details).
	Kinds []string `json:"kinds"`
}

func (p *Pseudonymize) hides(kind string) bool { return p != nil && slices.Contains(p.Kinds, kind) }

// parsePseudonymize reads:
//
//	pseudonymize <key file> ip|user...
func (c *Audit) parsePseudonymize(args []string) error {
	if len(args) < 2 {
		return errors.New("pseudonymize: needs a key file, and ip, user or both")
	}
	c.Pseudonymize = &Pseudonymize{KeyFile: args[0], Kinds: args[1:]}
	return c.Pseudonymize.check()
}

func (p *Pseudonymize) check() error {
	if len(p.Kinds) == 0 {
		return errors.New("pseudonymize: needs ip, user or both")
	}
	for _, kind := range p.Kinds {
		if kind != audit.KindIP && kind != audit.KindUser {
			return fmt.Errorf("pseudonymize %.32q: must be ip or user", kind)
		}
	}
	return nil
}

// pseudonyms are a configuration's pseudonyms. The key is read by the first who
// needs it, the app's start or a request that is faster, because a configuration
// that is only looked at must create no file.
type pseudonyms struct {
	file  string
	kinds []string

	mu   sync.Mutex
	made atomic.Pointer[audit.Pseudonyms]
}

// pseudonyms checks the settings. It returns nil when nothing is replaced.
func (c *Audit) pseudonyms() (*pseudonyms, error) {
	p := c.Pseudonymize
	if p == nil {
		return nil, nil
	}
	file, err := dispense.Expand("audit: pseudonymize", p.KeyFile)
	if err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if c.Journal != nil {
		if dir, err := dispense.Expand("audit: journal", c.Journal.Dir); err == nil && inside(dir, file) {
			return nil, fmt.Errorf("audit: pseudonymize %q: must not lie in the directory of the journal, %q: who has the trail must not have the key", file, dir)
		}
	}
	return &pseudonyms{file: file, kinds: p.Kinds}, nil
}

// get returns what replaces, or nil when nothing is replaced.
func (p *pseudonyms) get() (*audit.Pseudonyms, error) {
	if p == nil {
		return nil, nil
	}
	if made := p.made.Load(); made != nil {
		return made, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if made := p.made.Load(); made != nil {
		return made, nil
	}
	key, err := audit.EnsurePseudonymKey(p.file)
	if err != nil {
		return nil, fmt.Errorf("audit: pseudonymize: %w", err)
	}
	made, err := audit.NewPseudonyms(key, p.kinds...)
	if err != nil {
		return nil, fmt.Errorf("audit: pseudonymize: %w", err)
	}
	p.made.Store(made)
	return made, nil
}

// inside reports whether a file lies below a directory, links resolved as far as
// there is something.
func inside(dir, file string) bool {
	rel, err := filepath.Rel(resolved(dir), resolved(file))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

func resolved(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	rest := ""
	for at := path; ; at = filepath.Dir(at) {
		if real, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(real, rest)
		}
		if at == filepath.Dir(at) {
			return path
		}
		rest = filepath.Join(filepath.Base(at), rest)
	}
}

// checkRecordHeaders refuses headers in which a gate looks for tokens. Handlers
// are known when the app starts, not before.
func (a *App) checkRecordHeaders() error {
	tokens := canon.NewHeaderSet(a.parts.tokenHeaders()...)
	var errs []error
	for _, name := range a.recordHeaders {
		if tokens.Has(name) {
			errs = append(errs, fmt.Errorf("audit: record_headers %q: jwt reads tokens from it, and a credential is never in an event", name))
		}
	}
	return errors.Join(errs...)
}
