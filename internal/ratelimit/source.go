package ratelimit

// Source offers the store to whoever charges limits.
type Source interface {
	// Limiter returns the store and what holds while a shared one is away, unless
	// a limit says otherwise.
	Limiter() (Store, Fallback)
	// Announce makes a limit known to those who show and reset limits by name. It
	// fails when another one counts the same at another rate: each request would
	// then set the pace of both.
	Announce(Named) error
}

// Named is a limit as an operator speaks of it.
type Named struct {
	// Site whose limit it is; Name is not unique to one site.
	Site string
	// Name of the limit.
	Name string
	// By are the keys that it counts by.
	By []string
	// Grants is what each bucket grants, in words.
	Grants map[string]string
	// Buckets returns looks (Cost 0) at everything that the limit counts for one
	// value of each of its keys. A user, tenant or session is looked for with
	// every one of the issuers, unless the value names one: ISSUER/VALUE. The error
	// says what is wrong with the values.
	Buckets func(values, issuers []string) ([]Bucket, error)
}

// Bucket is what a limit counts for one subject.
type Bucket struct {
	// Subject as an operator reads it.
	Subject string
	// Limit in words, such as 100/1m.
	Limit string
	// Request looks at it.
	Request Request
}
