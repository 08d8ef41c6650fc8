package lint

import (
	"slices"
	"strconv"
	"strings"
)

// Line is one line of a Caddyfile.
type Line struct {
	File   string
	Number int
	// Words are the line's tokens.
	Words []string
}

// lines are searched for the line that a piece of JSON comes from.
type lines []Line

// newLines drops all lines of a file that imports others: a word that stands
// once in it may stand in them, too.
func newLines(all []Line) lines {
	var snippets []string
	for _, line := range all {
		if first := line.Words[0]; strings.HasPrefix(first, "(") {
			snippets = append(snippets, strings.Trim(first, "()"))
		}
	}
	for _, line := range all {
		if line.Words[0] == "import" && (len(line.Words) < 2 || !slices.Contains(snippets, line.Words[1])) {
			return nil
		}
	}
	return all
}

// find returns where the only line stands that begins with a word, which may be
// the host of a site's address, and goes on with the arguments. Where several do, arguments that no line has leave the
// question open.
func (ls lines) find(word string, args ...string) (string, bool) {
	var candidates, exact []Line
	for _, line := range ls {
		if line.Words[0] != word && !strings.HasSuffix(line.Words[0], "://"+word) {
			continue
		}
		candidates = append(candidates, line)
		if !slices.ContainsFunc(args, func(arg string) bool { return !has(line.Words[1:], arg) }) {
			exact = append(exact, line)
		}
	}
	switch {
	case len(exact) == 1:
		return exact[0].place(), true
	case len(candidates) == 1:
		return candidates[0].place(), true
	}
	return "", false
}

// has reports whether one of the words is arg, or the address arg after a
// scheme.
func has(words []string, arg string) bool {
	return slices.ContainsFunc(words, func(word string) bool {
		return word == arg || strings.HasSuffix(word, "://"+arg)
	})
}

func (l Line) place() string { return l.File + ":" + strconv.Itoa(l.Number) }

// at returns the line of a word, or the path in the JSON.
func (l *linter) at(path, word string, args ...string) string {
	if place, ok := l.lines.find(word, args...); ok {
		return place
	}
	return path
}

// natural compares two places with their numbers as numbers, so that line 9
// comes before line 10.
func natural(a, b string) int {
	for a != "" && b != "" {
		da, db := leadingDigits(a), leadingDigits(b)
		if da == "" || db == "" {
			if a[0] != b[0] {
				return int(a[0]) - int(b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		na, nb := strings.TrimLeft(da, "0"), strings.TrimLeft(db, "0")
		if len(na) != len(nb) {
			return len(na) - len(nb)
		}
		if c := strings.Compare(na, nb); c != 0 {
			return c
		}
		a, b = a[len(da):], b[len(db):]
	}
	return len(a) - len(b)
}

func leadingDigits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}
