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

// Durable is implemented by a trail that may promise that an event is safe when
// Record returns.
type Durable interface {
	// Durable reports whether it does so for events of the class. Then the end of
	// an answer must not leave before its event is recorded, and, where strict, not
	// at all when that fails.
	Durable(Class) (durable, strict bool)
}

// Source offers the configured trail.
type Source interface {
	Trail() Trail
	// RecordHeaders are the names of the request headers that events carry, in
	// canonical spelling.
	RecordHeaders() []string
	// BeforeEnd has f called before the configuration gives the trail back, for events
	// that were held back until then.
	BeforeEnd(f func())
}
