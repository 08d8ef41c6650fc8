package ratelimit

// Source offers stores to whoever charges limits.
type Source interface {
	// Limiter returns the store for limits with this policy for the time in
	// which the shared store is away, and this number of instances that share
	// it. An empty policy and zero instances mean the configured defaults.
	Limiter(onError string, instances int) (Store, error)
}
