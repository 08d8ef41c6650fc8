package follow

import "time"

// Settings are a sink as somebody configured it. A sink that it opens lives as long as
// a configuration with equal settings does, which may be longer than the Settings: what
// the sink holds is given back by its Close.
type Settings interface {
	// Target says where the events go. It is asked once the settings are complete
	// and must be the same for equal settings.
	Target() Target
	// Open returns the sink, which has touched no file and no server yet. It checks
	// every setting and reports all that is wrong at once.
	Open() (Sink, error)
}

// Target is where a sink's events go.
type Target struct {
	// Place tells two sinks of one type apart, and the place in the journal belongs
	// to it: a change of it starts with the oldest event. It is where the events go
	// and not how: a URL or a file, without secrets or certificates.
	Place string
	// Means is everything else that the sink is made with. A change of it makes
	// another sink that goes on where the one before was.
	Means []string
	// Timeout is the budget of one delivery that the sink keeps itself. Zero: it keeps
	// none, and the follower's counts.
	Timeout time.Duration
	// Files are the files that the sink writes. None may lie in the journal's
	// directory.
	Files []string
	// RawOnly says that the sink stores the journal's lines as they stand, and
	// nothing in another format.
	RawOnly bool
}
