package audit

// Trail is where a gateway's events go, as those who produce them see it.
type Trail interface {
	// Record hands an event over. An error means that the event may be lost.
	Record(e *Event) error
	// Down returns why the trail cannot take events at the moment, or nil. While
	// it is not nil, requests that would be allowed are to be refused. It must
	// be quick: it is asked on every request.
	Down() error
}

// Source offers the configured trail.
type Source interface {
	Trail() Trail
}
