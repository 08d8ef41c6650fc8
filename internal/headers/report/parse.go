package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"strconv"
	"strings"
)

// Bounds of what is posted.
const (
	// MaxBody is the most bytes of a body. Read one more, so that a longer body
	// is refused and not cut.
	MaxBody = 64 << 10
	// MaxReports is the most reports that are read of one body.
	MaxReports = 50
	maxLine    = 1 << 24
)

// Errors of Parse. None repeats what was posted.
var (
	// ErrMediaType is returned for a body that is no report by its media type.
	ErrMediaType = errors.New("report: the media type is neither application/csp-report nor application/reports+json")
	// ErrTooLarge is returned for a body of more than MaxBody bytes.
	ErrTooLarge = errors.New("report: the body is too large")
	// ErrMalformed is returned for a body that has not the shape of its type.
	ErrMalformed = errors.New("report: the body is malformed")
)

// Site says about which pages reports are taken.
type Site struct {
	// Host is the host of the pages, with the port where it is not the
	// scheme's own. A report about a page of another host is counted as foreign.
	// Empty: every report is foreign.
	Host string
	// Paths keeps the path of what was blocked, so that a policy can name
	// single files. Default: false, only the origin is kept.
	Paths bool
}

// Batch is what one body held.
type Batch struct {
	// Violations are at most MaxReports, in the order they were sent.
	Violations []Violation
	// OtherTypes counts reports that are not about a content security policy.
	OtherTypes int
	// Foreign counts reports about pages of other hosts.
	Foreign int
	// Malformed counts reports without the shape of one.
	Malformed int
	// Dropped counts the reports beyond MaxReports, which nobody looked at.
	Dropped int
}

// fields are what is read of a report. Whatever is not here is never decoded:
// samples, referrers and user agents may hold personal data.
type fields struct {
	document, blocked, effective, violated, disposition, source string
	line                                                        lineNumber
}

// lineNumber is 0 where a report has no number there: it is worth as much without.
type lineNumber int64

// UnmarshalJSON implements json.Unmarshaler.
func (l *lineNumber) UnmarshalJSON(b []byte) error {
	if n, err := strconv.ParseFloat(strings.Trim(string(b), `"`), 64); err == nil && n > 0 {
		*l = lineNumber(min(n, maxLine))
	}
	return nil
}

// legacy is the report of report-uri.
type legacy struct {
	Report *struct {
		Document    string     `json:"document-uri"`
		Blocked     string     `json:"blocked-uri"`
		Effective   string     `json:"effective-directive"`
		Violated    string     `json:"violated-directive"`
		Disposition string     `json:"disposition"`
		Source      string     `json:"source-file"`
		Line        lineNumber `json:"line-number"`
	} `json:"csp-report"`
}

// queued is one report of report-to.
type queued struct {
	Type string `json:"type"`
	URL  string `json:"url"`
	// Body is decoded when the type says whose shape it has.
	Body json.RawMessage `json:"body"`
}

type queuedBody struct {
	Document    string     `json:"documentURL"`
	Blocked     string     `json:"blockedURL"`
	Effective   string     `json:"effectiveDirective"`
	Disposition string     `json:"disposition"`
	Source      string     `json:"sourceFile"`
	Line        lineNumber `json:"lineNumber"`
}

// Parse reads a body of either media type. A body in the wrong shape is an
// error; a single wrong report among others is counted.
func (s Site) Parse(contentType string, body []byte) (Batch, error) {
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return Batch{}, ErrMediaType
	}
	if len(body) > MaxBody {
		return Batch{}, ErrTooLarge
	}
	switch mediaType {
	case "application/csp-report":
		return s.parseLegacy(body)
	case "application/reports+json":
		return s.parseQueue(body)
	default:
		return Batch{}, ErrMediaType
	}
}

func (s Site) parseLegacy(body []byte) (Batch, error) {
	var l legacy
	if json.Unmarshal(body, &l) != nil || l.Report == nil {
		return Batch{}, ErrMalformed
	}
	r := l.Report
	var b Batch
	b.take(s, fields{r.Document, r.Blocked, r.Effective, r.Violated, r.Disposition, r.Source, r.Line})
	return b, nil
}

func (s Site) parseQueue(body []byte) (Batch, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	if open, err := d.Token(); err != nil || open != json.Delim('[') {
		return Batch{}, ErrMalformed
	}
	var b Batch
	for n := 0; d.More(); n++ {
		var raw json.RawMessage
		if d.Decode(&raw) != nil {
			return Batch{}, ErrMalformed
		}
		if n >= MaxReports {
			b.Dropped++
			continue
		}
		b.takeQueued(s, raw)
	}
	if _, err := d.Token(); err != nil {
		return Batch{}, ErrMalformed
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Batch{}, ErrMalformed
	}
	return b, nil
}

// takeQueued reads one report of a queue.
func (b *Batch) takeQueued(s Site, raw json.RawMessage) {
	var q queued
	if json.Unmarshal(raw, &q) != nil || q.Type == "" {
		b.Malformed++
		return
	}
	if q.Type != "csp-violation" {
		b.OtherTypes++
		return
	}
	var r *queuedBody
	if json.Unmarshal(q.Body, &r) != nil || r == nil {
		b.Malformed++
		return
	}
	if r.Document == "" {
		r.Document = q.URL
	}
	b.take(s, fields{r.Document, r.Blocked, r.Effective, "", r.Disposition, r.Source, r.Line})
}

// take keeps what is worth keeping of a report.
func (b *Batch) take(s Site, f fields) {
	if f.effective == "" && f.violated == "" {
		b.Malformed++
		return
	}
	document, u, ok := anyAddress(f.document)
	if !ok || !document.isAt(s.Host) {
		b.Foreign++
		return
	}
	v := Violation{Directive: directive(f.effective, f.violated), Document: documentPath(u)}
	v.Blocked, v.Kind = s.classify(f.blocked, document)
	if f.disposition == "enforce" || f.disposition == "report" {
		v.Disposition = f.disposition
	}
	var foreignCode bool
	v.Source, foreignCode = sourceFile(f.source, document)
	v.Noise = v.Kind == KindExtension || foreignCode
	if v.Source != "" {
		v.Line = int(f.line)
	}
	// A part of a string keeps the whole of it in memory: up to MaxBody for
	// every violation that is remembered.
	v.Blocked, v.Document, v.Source = strings.Clone(v.Blocked), strings.Clone(v.Document), strings.Clone(v.Source)
	v.Directive, v.Disposition = strings.Clone(v.Directive), strings.Clone(v.Disposition)
	b.Violations = append(b.Violations, v)
}

// isAt reports whether o is served at a host as a request names it.
func (o origin) isAt(host string) bool {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.Trim(host, "[]"), ""
	}
	if port == defaultPorts[o.scheme] {
		port = ""
	}
	return (o.scheme == "http" || o.scheme == "https") && strings.EqualFold(o.host, name) && o.port == port
}

// sourceFile reduces where the code stands, and reports whether that is code
// which no page asked for.
func sourceFile(raw string, document origin) (file string, noisy bool) {
	if name := scheme(raw); noise[name] {
		return name + ":", true
	}
	o, u, ok := address(raw)
	switch {
	case !ok:
		return "", false
	case o == document:
		return documentPath(u), false
	default:
		return o.String(), isInjected(o.host)
	}
}
