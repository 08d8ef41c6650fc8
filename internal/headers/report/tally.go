package report

import (
	"maps"
	"slices"
	"time"
)

// Seen is the evidence for one line of a proposal.
type Seen struct {
	// Count is the number of reports.
	Count int64
	// Documents is the number of different pages, and Example is one of them.
	Documents int
	Example   string
	// Networks is the least number of networks that the reports came from; 0 when
	// that is unknown. Anybody can send one report often, and few can send it from
	// many networks.
	Networks int
	// First and Last are when it was seen first and last. Zero when unknown.
	First, Last time.Time
}

// tally sums evidence.
type tally struct {
	under       map[string]bool
	documents   map[string]bool
	from        map[string]bool
	networks    int // the most of one piece of evidence
	count       int64
	first, last time.Time
}

// add counts one piece of evidence.
func (t *tally) add(e Evidence) {
	t.under[e.Directive] = true
	if e.Document != "" {
		t.documents[e.Document] = true
	}
	if e.From != "" {
		t.from[e.From] = true
	}
	t.sum(e.Count, e.Networks, e.First, e.Last)
}

// merge adds what another tally has.
func (t *tally) merge(other *tally) {
	maps.Copy(t.under, other.under)
	maps.Copy(t.documents, other.documents)
	maps.Copy(t.from, other.from)
	t.sum(other.count, other.networks, other.first, other.last)
}

func (t *tally) sum(count int64, networks int, first, last time.Time) {
	t.count += count
	t.networks = max(t.networks, networks)
	if !first.IsZero() && (t.first.IsZero() || first.Before(t.first)) {
		t.first = first
	}
	if last.After(t.last) {
		t.last = last
	}
}

func newTally() *tally {
	return &tally{under: make(map[string]bool), documents: make(map[string]bool), from: make(map[string]bool)}
}

// spread is the least number of networks that the tally can come from.
func (t *tally) spread() int { return max(t.networks, len(t.from)) }

func (t *tally) seen() Seen {
	s := Seen{Count: t.count, Documents: len(t.documents), Networks: t.spread(), First: t.first, Last: t.last}
	if len(t.documents) > 0 {
		s.Example = slices.Min(slices.Collect(maps.Keys(t.documents)))
	}
	return s
}
