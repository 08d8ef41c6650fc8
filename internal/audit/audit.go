// Package audit knows what an audit event is: its fields, how it is written as
// one line of JSON, how grave it is, and how a flood of equal refusals becomes
// one summary. It knows nothing of files, requests or where events go; those
// who keep events implement Recorder.
package audit

import (
	"context"
	"errors"
	"time"
)

// Class says what kind of event it is, and with that how hard a Recorder tries
// to keep it.
type Class string

const (
	// Access is a request that was allowed. It may be dropped, and is then
	// counted, by a Recorder that cannot keep up.
	Access Class = "access"
	// Security is a refused request or a change of what protects the site. The
	// empty and every unknown Class read as Security, the careful one.
	Security Class = "security"
	// Admin is something an operator or the gateway itself did: start, stop,
	// configuration, the upkeep of the trail.
	Admin Class = "admin"
)

// Known returns c, or Security when c is none of the three classes.
func (c Class) Known() Class {
	switch c {
	case Access, Security, Admin:
		return c
	default:
		return Security
	}
}

// Outcome says how the thing that happened ended.
type Outcome string

const (
	// Allow says that it was allowed and done.
	Allow Outcome = "allow"
	// Deny says that the gateway refused it.
	Deny Outcome = "deny"
	// Failure says that it could not be done. The empty and every unknown
	// Outcome read as Failure.
	Failure Outcome = "error"
	// Aborted says that the client went away before the end.
	Aborted Outcome = "aborted"
)

// Known returns o, or Failure when o is none of the four outcomes.
func (o Outcome) Known() Outcome {
	switch o {
	case Allow, Deny, Failure, Aborted:
		return o
	default:
		return Failure
	}
}

// Actions of the events that a trail writes about itself.
const (
	// ActionSegment begins each file of a trail.
	ActionSegment = "audit.segment"
	// ActionRecovered says that a torn end was cut off at start.
	ActionRecovered = "audit.recovered"
	// ActionGap says how many events could not be taken, and when.
	ActionGap = "audit.gap"
	// ActionRemoved says that an old file was removed because of its age or
	// the size of the trail.
	ActionRemoved = "audit.removed"
	// ActionCheckpoint signs the line before it.
	ActionCheckpoint = "audit.checkpoint"
	// ActionKey says which key signs from here on, signed by the one before.
	ActionKey = "audit.key"
	// ActionViolation says what browsers report about a content security policy.
	ActionViolation = "csp.violation"
	// ActionSummary stands for refusals that were not written one by one.
	ActionSummary = "audit.summary"
)

// Errors of a Recorder. They may be wrapped together with a cause.
var (
	// ErrFull says that the wait budget was over before the event was known to
	// be kept. An event that was already queued may still be written later.
	ErrFull = errors.New("audit: the trail cannot take the event in time")
	// ErrClosed says that the recorder was closed and did not take the event.
	ErrClosed = errors.New("audit: the trail is closed")
)

// Recorder keeps events.
type Recorder interface {
	// Record keeps e. It returns nil when the event is as safe as its class
	// asks for, ErrFull when that could not be reached within the wait budget,
	// and ErrClosed after the end. It does not keep e or change it.
	Record(ctx context.Context, e *Event) error
}

// Event is one thing that happened. AppendJSON lists the field names and
// bounds of its JSON form. No field may hold a token, a cookie, a body, a query
// value or a secret.
type Event struct {
	// Timestamp is when it happened. Written in UTC with microseconds.
	Timestamp time.Time
	// UserID is the known caller. Empty is written as "anonymous".
	UserID string
	// Action is what was done, in dotted words such as "http.request".
	Action string
	// Resource is what it was done to.
	Resource string
	// Details are further facts. How the caller was authenticated is "auth".
	Details Details
	// IP is the address of the client.
	IP string
	// ID identifies the event, see NewID.
	ID string
	// Class decides how hard a Recorder tries. Empty is Security.
	Class Class
	// Outcome is how it ended. Empty is Failure.
	Outcome Outcome
	// Reason is the fine reason of a refusal, such as "rbac.no-rule".
	Reason string
	// Severity is how grave it is. Empty is computed by SeverityOf.
	Severity Severity
	// RequestID joins the event with the answer and the logs.
	RequestID string
	// Tenant is the caller's tenant. May be empty.
	Tenant string
	// Roles are the caller's roles.
	Roles []string
	// Method is the request method.
	Method string
	// Host is the requested host.
	Host string
	// Path is the canonical path, without a query.
	Path string
	// Route is the pattern of the rule that matched. May be empty.
	Route string
	// Status is the status of the answer. 0 when there was none.
	Status int
	// Duration is how long it took. Written in milliseconds.
	Duration time.Duration
	// BytesIn is how much of a body the client sent.
	BytesIn int64
	// BytesOut is how much of a body the client got.
	BytesOut int64

	// Seq is the number of the event in its trail. Set by the journal.
	Seq uint64
	// Instance is the gateway that wrote it. Set by the journal.
	Instance string
	// Prev is the SHA-256 of the line before, in hex. Set by the journal.
	Prev string

	// veil replaces what says who somebody is when the event is written. May be
	// nil.
	veil *Pseudonyms
}

// Code returns the public code of a refusal: the detail "code" when there is
// one, else the Reason.
func (e *Event) Code() string {
	if code, ok := e.Details.text("code"); ok && code != "" {
		return code
	}
	return e.Reason
}
