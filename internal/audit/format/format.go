// Package format turns one line of the journal into the form that another system
// reads: OCSF, ECS or a CloudEvent, each as one JSON object without a line break.
// It knows what the fields of a line mean and what those schemas ask for; it does
// not know where a line came from or where it goes.
//
// No fact of a line is lost: what a schema has no place for stands under
// "unmapped" (OCSF) or "moat" (ECS), under the name and with the digits that it
// has in the line. Values are copied as they are and never decoded and written
// again, unless the schema wants them in another form.
package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Errors of Append.
var (
	// ErrNoEvent says that the line is not one JSON object in UTF-8.
	ErrNoEvent = errors.New("format: the line is not a JSON object in UTF-8")
	// ErrLineBreak says that there is a line break in the line.
	ErrLineBreak = errors.New("format: the line holds a line break")
)

// Format turns lines into one form. It is safe for concurrent use.
type Format interface {
	// Name is the name by which Of finds the format.
	Name() string
	// Append appends the event in line, which has no line end, to dst and
	// returns the extended slice: one JSON object without a line break, in valid
	// UTF-8. On an error it returns dst as it was. A field that is missing or
	// not of its type is no error. The format "moat" appends the line as it is
	// and does not look at it.
	Append(dst, line []byte) ([]byte, error)
}

// formats are all there are, in the order of Names.
var formats = []Format{
	verbatim{},
	mapped{"ocsf", appendOCSF},
	mapped{"ecs", appendECS},
	mapped{"cloudevents", appendCloudEvent},
}

// Names returns the names of all formats, "moat" first.
func Names() []string {
	names := make([]string, len(formats))
	for i, f := range formats {
		names[i] = f.Name()
	}
	return names
}

// Of returns the format of a name: moat (the line itself), ocsf, ecs or
// cloudevents.
func Of(name string) (Format, error) {
	for _, f := range formats {
		if f.Name() == name {
			return f, nil
		}
	}
	return nil, fmt.Errorf("format %.32q: must be one of %s", name, strings.Join(Names(), ", "))
}

// verbatim is the line itself.
type verbatim struct{}

func (verbatim) Name() string { return "moat" }

func (verbatim) Append(dst, line []byte) ([]byte, error) { return append(dst, line...), nil }

// mapped is a format that is written from the fields of a line.
type mapped struct {
	name   string
	append func(dst []byte, e *event) []byte
}

func (m mapped) Name() string { return m.name }

func (m mapped) Append(dst, line []byte) ([]byte, error) {
	// JSON allows line breaks between its tokens. One that got into the output
	// would make two lines of it for whoever reads lines.
	if bytes.ContainsAny(line, "\n\r") {
		return dst, ErrLineBreak
	}
	if !utf8.Valid(line) || !json.Valid(line) {
		return dst, ErrNoEvent
	}
	line = bytes.TrimSpace(line)
	if line[0] != '{' {
		return dst, ErrNoEvent
	}
	e := event{line: line}
	e.read()
	return m.append(dst, &e), nil
}
