package otlp

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"unicode"

	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/post"
)

const (
	protobufType = "application/x-protobuf"
	jsonType     = "application/json"

	// maxText bounds what is passed on of the server's words, in bytes.
	maxText = 200
	// minSecret is the length from which a header's value is looked for in what
	// a server says. A shorter one, such as a tenant's number, keeps nothing out.
	minSecret = 4
)

// judge turns an answer into success or an error.
func (s *Sink) judge(a post.Answer) error {
	if a.Success() {
		return s.accepted(a)
	}
	err := fmt.Errorf("otlp: answered %d", a.Status)
	switch a.Status {
	case http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: %w", err, follow.ErrTooLarge)
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: %w", err, follow.ErrRefused)
	}
	if after := a.RetryAfter(s.now()); after > 0 {
		return &follow.RetryAfter{After: after, Err: err}
	}
	return err
}

// accepted looks into a 2xx answer for records that were rejected after all. A
// message without them is a warning, and those are no failure (OTLP, "Partial
// Success").
func (s *Sink) accepted(a post.Answer) error {
	response, err := responseOf(a)
	if err != nil {
		return fmt.Errorf("otlp: answered %d: %w", a.Status, err)
	}
	partial := response.GetPartialSuccess()
	switch n := partial.GetRejectedLogRecords(); {
	case n < 0:
		return fmt.Errorf("otlp: answered %d: with a negative number of rejected records", a.Status)
	case n > 0:
		return fmt.Errorf("otlp: %d rejected, %q: %w", n, s.words(partial.GetErrorMessage()), follow.ErrRefused)
	}
	return nil
}

// responseOf reads the body. An empty one is the empty message, which says that
// all went well. Something else than an OTLP answer is no success: the login
// page of a proxy is a 200 as well, and took no events.
func responseOf(a post.Answer) (*collector.ExportLogsServiceResponse, error) {
	response := &collector.ExportLogsServiceResponse{}
	if len(a.Body) == 0 {
		return response, nil
	}
	if len(a.Body) > post.MaxAnswer {
		return nil, fmt.Errorf("with more than %d bytes", post.MaxAnswer)
	}
	var err error
	switch kind, _, _ := mime.ParseMediaType(a.Header.Get("Content-Type")); kind {
	case protobufType, "application/protobuf", "": // the request's, when none is named
		err = proto.Unmarshal(a.Body, response)
	case jsonType:
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(a.Body, response)
	default:
		return nil, errors.New("with a body that is neither protobuf nor JSON")
	}
	if err != nil {
		return nil, errors.New("with a body that is no OTLP answer")
	}
	return response, nil
}

// words returns a short printable piece of the server's message, or that it
// repeats a secret. It is looked for in the whole message, since a cut one may
// hold half of it.
func (s *Sink) words(message string) string {
	message = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, message)
	for _, secret := range s.secrets {
		if strings.Contains(message, secret) {
			return "(withheld: it repeats a secret)"
		}
	}
	if len(message) > maxText {
		message = strings.ToValidUTF8(message[:maxText], "") + "…"
	}
	return message
}

// secretsOf returns what must not be repeated of a server's words: the values
// of the headers, those without their scheme ("Bearer"), and those of the query.
func secretsOf(set settings) []string {
	var values, secrets []string
	for _, header := range set.header {
		values = append(values, header[0], header[0][strings.LastIndexByte(header[0], ' ')+1:])
	}
	for _, query := range set.url.Query() {
		values = append(values, query...)
	}
	for _, value := range values {
		if len(value) >= minSecret {
			secrets = append(secrets, value)
		}
	}
	return secrets
}
