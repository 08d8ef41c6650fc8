package follow

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/jsonline"
)

// Filter says which events a sink is given. An event must fit each list that is
// not empty. It fits a list when it is one of its values, or when the list has
// values with "!" before them only and it is none of those. The zero Filter lets
// everything pass.
type Filter struct {
	// Class of the event: access, security or admin.
	Class []string
	// Outcome of the event: allow, deny, error or aborted.
	Outcome []string
	// Severity of the event: low, medium or high.
	Severity []string
	// Action of the event, such as keys.changed or, of a request, "GET /orders/{id}".
	// A "*" at the end stands for any rest, so that limit.* is every action on limits.
	Action []string
}

// maxFilter bounds each list.
const maxFilter = 64

// Validate returns everything that is wrong with the lists, joined.
func (f Filter) Validate() error {
	return errors.Join(
		checkWords("class", f.Class, string(audit.Access), string(audit.Security), string(audit.Admin)),
		checkWords("outcome", f.Outcome, string(audit.Allow), string(audit.Deny), string(audit.Failure), string(audit.Aborted)),
		checkWords("severity", f.Severity, string(audit.Low), string(audit.Medium), string(audit.High)),
		checkWords("action", f.Action),
	)
}

// checkWords checks one list. Without any known words each value is an action.
func checkWords(name string, list []string, known ...string) error {
	var errs []error
	if len(list) > maxFilter {
		errs = append(errs, fmt.Errorf("%s: %d values: must be at most %d", name, len(list), maxFilter))
	}
	nots := 0
	for _, value := range list {
		word, not := strings.CutPrefix(value, "!")
		if not {
			nots++
		}
		switch {
		case len(known) > 0 && !slices.Contains(known, word):
			errs = append(errs, fmt.Errorf("%s %.64q: must be %s, with or without ! before it", name, value, strings.Join(known, ", ")))
		case len(known) == 0 && !isAction(word):
			errs = append(errs, fmt.Errorf("%s %.64q: must be like keys.changed, limit.* or \"GET /orders/{id}\", with or without ! before it", name, value))
		}
	}
	if nots > 0 && nots < len(list) {
		errs = append(errs, fmt.Errorf("%s: some values have a ! and some have none: must be all or none", name))
	}
	return errors.Join(errs...)
}

// isAction reports whether a word is an action, or the beginning of some and *.
func isAction(word string) bool {
	word, _ = strings.CutSuffix(word, "*")
	return word != "" && len(word) <= maxName && !strings.ContainsFunc(word, func(r rune) bool { return !unicode.IsPrint(r) })
}

// Keeps reports whether a line is for the sink. A line that is no event is not.
func (f *Filter) Keeps(line []byte) bool {
	h, err := readHead(line)
	return err == nil && f.keeps(h)
}

// keeps reports whether the event is for the sink.
func (f *Filter) keeps(h head) bool {
	return fits(f.Class, h.class) && fits(f.Outcome, h.outcome) && fits(f.Severity, h.severity) && fits(f.Action, h.action)
}

// fits reports whether a JSON value is in the list. A list has a ! before all of
// its values or before none.
func fits(list []string, value []byte) bool {
	if len(list) == 0 {
		return true
	}
	plain := jsonline.Text(value)
	not := list[0][0] == '!'
	return not != slices.ContainsFunc(list, func(word string) bool {
		word = strings.TrimPrefix(word, "!")
		if start, open := strings.CutSuffix(word, "*"); open {
			return strings.HasPrefix(plain, start)
		}
		return plain == word
	})
}
