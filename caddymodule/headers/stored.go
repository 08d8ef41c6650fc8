package headers

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// dependsOn are what tells a page from the same address fetched by a script, which has
// no nonce and no hashes: caches must not give one for the other.
var dependsOn = []string{"Accept", "Sec-Fetch-Dest"}

// vary adds to Vary what it lacks.
func vary(h http.Header) {
	var missing []string
	said := list(h, "Vary")
	for _, name := range dependsOn {
		if !slices.Contains(said, "*") && !slices.Contains(said, strings.ToLower(name)) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		h.Add("Vary", strings.Join(missing, ", "))
	}
}

// list returns the elements of a list header in lower case. Commas within quotes cut
// as well, for what is looked for stands in none.
func list(h http.Header, name string) []string {
	var all []string
	for _, value := range h.Values(name) {
		for element := range strings.SplitSeq(value, ",") {
			if element = strings.ToLower(strings.TrimSpace(element)); element != "" {
				all = append(all, element)
			}
		}
	}
	return all
}

// stale are the headers that speak of the page as the upstream sent it.
var stale = []string{
	"Content-Length", "Etag", "Last-Modified", "Accept-Ranges", "Content-Md5", "Digest", "Content-Digest", "Repr-Digest", "Expires", "Age",
}

// targeted reports whether a header tells some cache to store what Cache-Control keeps
// from it: the fields of RFC 9213, and what was there before it.
func targeted(name string) bool {
	switch name {
	case "Surrogate-Control", "X-Accel-Expires", "Edge-Control":
		return true
	}
	return strings.HasSuffix(name, "-Cache-Control")
}

// change makes the header that of a page with a nonce: it is nobody's who asks again.
// Where the upstream says nothing about a page for a known caller and the policy fills
// in no-store, that is left to it.
func (p *page) change(h http.Header) {
	for name := range h {
		if canonical := http.CanonicalHeaderKey(name); slices.Contains(stale, canonical) || targeted(canonical) {
			delete(h, name)
		}
	}
	said := list(h, "Cache-Control")
	if slices.Contains(said, "no-store") || len(said) == 0 && p.known && p.unstored {
		return
	}
	h.Set("Cache-Control", "private, no-cache")
}

// checkStored refuses headers that would have a page stored for others than who asked,
// with its nonce.
func (s *Settings) checkStored() error {
	set, err := s.expand()
	errs := []error{err}
	if names(s.Remove, "Cache-Control") {
		errs = append(errs, fmt.Errorf("headers: remove Cache-Control: a page with a nonce is for one answer, and without it caches keep what they like; "+
			"leave it out beside csp %s", s.Inline))
	}
	for _, f := range set {
		name := http.CanonicalHeaderKey(f.Name)
		value := list(http.Header{"Cache-Control": {f.Value}}, "Cache-Control")
		own := name == "Cache-Control" && (slices.Contains(value, "no-store") || slices.Contains(value, "private"))
		if (name == "Cache-Control" || targeted(name)) && !own {
			errs = append(errs, fmt.Errorf("headers: set %s %q at %s: a page with a nonce is for one answer, so no cache may give it to others; "+
				"Cache-Control must say no-store or private beside csp %s", f.Name, f.Value, f.Place, s.Inline))
		}
	}
	return errors.Join(errs...)
}
