package headers

import (
	"maps"
	"slices"
)

// didYouMean returns a hint with the known word nearest to what was written,
// or nothing when none is near. Of words equally near it names the first in
// the alphabet, so that the text is always the same.
func didYouMean[V any](word string, known map[string]V) string {
	if len(word) > 64 {
		return ""
	}
	best, least := "", 4
	for _, candidate := range slices.Sorted(maps.Keys(known)) {
		if d := distance(word, candidate); d < least && d < len(candidate) {
			best, least = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance counts the single-byte edits between two words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// clip shortens a word for an error text.
func clip(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
