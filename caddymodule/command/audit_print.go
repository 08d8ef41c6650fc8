package command

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/moat-gateway/moat/internal/audit/reader"
)

// eventTime has a fixed width, and --since and --until take it.
const eventTime = "2006-01-02T15:04:05.000Z"

// eventColumns are the columns of the table, with the most characters that a cell
// may have.
var eventColumns = []struct {
	title string
	most  int
}{
	{"TIME", 24}, {"SEVERITY", 8}, {"OUTCOME", 8}, {"STATUS", 6}, {"REQUEST OR ACTION", 72},
	{"USER", 40}, {"IP", 40}, {"REASON", 48}, {"REQUEST ID", 64},
}

// tableRows is how many rows are aligned at once. A trail is too long to be looked
// at as a whole first; columns grow with what comes, and never shrink.
const tableRows = 200

// eventPrinter prints events as a table, or as the lines they are.
type eventPrinter struct {
	out    *bufio.Writer
	asIs   bool
	titled bool
	widths []int
	rows   [][]string
}

func newEventPrinter(w io.Writer, asIs bool) *eventPrinter {
	p := &eventPrinter{out: bufio.NewWriterSize(w, 64<<10), asIs: asIs, widths: make([]int, len(eventColumns))}
	for i, c := range eventColumns {
		p.widths[i] = len(c.title)
	}
	return p
}

// print takes an event. It may be seen only after flush.
func (p *eventPrinter) print(e *reader.Event) error {
	if p.asIs {
		_, _ = p.out.Write(e.Raw) // The writer repeats an error.
		return p.out.WriteByte('\n')
	}
	p.rows = append(p.rows, eventRow(e))
	if len(p.rows) < tableRows {
		return nil
	}
	return p.align()
}

func (p *eventPrinter) flush() error {
	if err := p.align(); err != nil {
		return err
	}
	return p.out.Flush()
}

// align writes the rows that wait.
func (p *eventPrinter) align() error {
	if len(p.rows) == 0 {
		return nil
	}
	for _, row := range p.rows {
		for i, cell := range row {
			p.widths[i] = max(p.widths[i], utf8.RuneCountInString(cell))
		}
	}
	if !p.titled {
		p.titled = true
		titles := make([]string, len(eventColumns))
		for i, c := range eventColumns {
			titles[i] = c.title
		}
		p.row(titles)
	}
	for _, row := range p.rows {
		p.row(row)
	}
	p.rows = p.rows[:0]
	_, err := p.out.Write(nil) // The writer repeats an error.
	return err
}

func (p *eventPrinter) row(cells []string) {
	last := len(cells) - 1
	for i, cell := range cells[:last] {
		_, _ = fmt.Fprintf(p.out, "%-*s  ", p.widths[i], cell)
	}
	_, _ = fmt.Fprintln(p.out, cells[last])
}

func eventRow(e *reader.Event) []string {
	what, status := e.Action, ""
	if e.Method != "" {
		what = e.Method + " " + e.Path
	}
	if e.Status != 0 {
		status = strconv.Itoa(e.Status)
	}
	row := []string{e.Time.UTC().Format(eventTime), e.Severity, e.Outcome, status, what, e.User, e.IP, e.Reason, e.RequestID}
	for i, text := range row {
		row[i] = cell(text, eventColumns[i].most)
	}
	return row
}

// cell makes a text harmless for a terminal and for the table, of at most so many
// characters: a control or bidirectional character becomes an escape, and so does a
// space that could pass for the gap between two columns.
func cell(text string, most int) string {
	if text == "" {
		return "-"
	}
	var b strings.Builder
	width, cut := 0, 0 // Cut is where the text ends if it is too long.
	before := ' '
	for _, r := range text {
		shown := shownRune(r, before)
		before = r
		width += utf8.RuneCountInString(shown)
		if width > most {
			return b.String()[:cut] + "…"
		}
		b.WriteString(shown)
		if width < most {
			cut = b.Len()
		}
	}
	return b.String()
}

func shownRune(r, before rune) string {
	switch {
	case r == '\\':
		return `\\`
	case r == ' ' && before == ' ', !unicode.IsPrint(r) && r <= 0xffff:
		return fmt.Sprintf(`\u%04x`, r)
	case !unicode.IsPrint(r):
		return fmt.Sprintf(`\U%08x`, r)
	}
	return string(r)
}
