package audit

// Severity is how much an event should worry a reader.
type Severity string

const (
	// Low is everyday life.
	Low Severity = "low"
	// Medium deserves a look when it piles up.
	Medium Severity = "medium"
	// High deserves a look now.
	High Severity = "high"
)

// SeverityOf returns the severity of an event from its class, its outcome and
// what it is about: the code of a refusal, or the action of anything else.
//
// A refusal is low when well-behaved clients cause it every day (no token yet,
// an expired one, a limit, a size, a method), else medium, also when the code
// is unknown. Trouble of the trail and a degraded store are high, whatever the
// outcome. Of the rest, what was allowed or aborted is low; other changes by an
// operator and failures are medium.
func SeverityOf(class Class, outcome Outcome, what string) Severity {
	if outcome.Known() == Deny {
		return refusalSeverity(what)
	}
	switch what {
	case ActionGap, ActionRecovered, "store.degraded", "sink.lost", "sink.set-aside":
		return High
	case ActionSegment, ActionRemoved, ActionCheckpoint:
		return Low
	}
	switch {
	case outcome.Known() == Failure:
		return Medium
	case class.Known() == Access, outcome.Known() == Aborted:
		return Low
	default:
		return Medium
	}
}

func refusalSeverity(code string) Severity {
	switch code {
	case "token-missing", "token-expired", "rate-limited", "method-not-allowed",
		"content-too-large", "uri-too-long", "headers-too-large", "too-early":
		return Low
	default:
		return Medium
	}
}
