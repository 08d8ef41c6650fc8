package telemetry

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// watch is a metric whose values are asked for when somebody looks. One label
// value has one function; a later one replaces it.
type watch struct {
	desc    *prometheus.Desc
	kind    prometheus.ValueType
	labeled bool

	mu     sync.Mutex
	values map[string]*value
}

// value is asked by Collect; ok false means that there is nothing to report.
type value struct {
	ask func() (v float64, ok bool)
}

// newWatch returns a watch with at most one label.
func newWatch(name, help string, label ...string) *watch {
	return &watch{
		kind:    prometheus.GaugeValue,
		desc:    prometheus.NewDesc(name, help, label, nil),
		labeled: len(label) > 0,
		values:  make(map[string]*value),
	}
}

// newCount is newWatch for a number that only grows.
func newCount(name, help string, label ...string) *watch {
	w := newWatch(name, help, label...)
	w.kind = prometheus.CounterValue
	return w
}

// set returns what removes the function again, unless it was replaced: who
// comes later may set before who was there first removes.
func (w *watch) set(label string, ask func() (float64, bool)) (remove func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	mine := &value{ask}
	w.values[label] = mine
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.values[label] == mine {
			delete(w.values, label)
		}
	}
}

// Describe implements prometheus.Collector.
func (w *watch) Describe(ch chan<- *prometheus.Desc) { ch <- w.desc }

// Collect implements prometheus.Collector.
func (w *watch) Collect(ch chan<- prometheus.Metric) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for label, value := range w.values {
		v, ok := value.ask()
		if !ok {
			continue
		}
		var labels []string
		if w.labeled {
			labels = []string{label}
		}
		ch <- prometheus.MustNewConstMetric(w.desc, w.kind, v, labels...)
	}
}

// WatchKeys reports the age of an issuer's key set, nothing until it has one,
// until remove is called.
func WatchKeys(issuer string, age func() (time.Duration, bool)) (remove func()) {
	return keysAge.set(issuer, func() (float64, bool) {
		d, ok := age()
		return d.Seconds(), ok
	})
}

// SinkFigures are what is measured of a sink.
type SinkFigures struct {
	// Lag is how many events of the journal it has not got yet, Behind for how long.
	Lag    uint64
	Behind time.Duration
	// LastSuccess is when it last took events. Zero: never since the start.
	LastSuccess time.Time
	// Failed counts attempts, Lost events that were removed before it got them, and
	// SetAside those that it does not take, all since the sink's start.
	Failed, Lost, SetAside uint64
}

// WatchSink reports the figures of a sink until remove is called.
func WatchSink(sink string, figures func() SinkFigures) (remove func()) {
	number := func(of func(SinkFigures) uint64) func() (float64, bool) {
		return func() (float64, bool) { return float64(of(figures())), true }
	}
	removes := []func(){
		sinkLag.set(sink, number(func(f SinkFigures) uint64 { return f.Lag })),
		sinkFailures.set(sink, number(func(f SinkFigures) uint64 { return f.Failed })),
		sinkLost.set(sink, number(func(f SinkFigures) uint64 { return f.Lost })),
		sinkSetAside.set(sink, number(func(f SinkFigures) uint64 { return f.SetAside })),
		sinkBehind.set(sink, func() (float64, bool) { return figures().Behind.Seconds(), true }),
		sinkSuccess.set(sink, func() (float64, bool) {
			at := figures().LastSuccess
			return float64(at.UnixMilli()) / 1000, !at.IsZero()
		}),
	}
	return func() {
		for _, remove := range removes {
			remove()
		}
	}
}

// WatchStore reports whether the shared limit store is unavailable, until
// remove is called.
func WatchStore(degraded func() bool) (remove func()) {
	return storeDegraded.set("", yes(degraded))
}

// WatchTrail reports whether the audit trail cannot be written, until remove is
// called.
func WatchTrail(down func() bool) (remove func()) { return auditDown.set("", yes(down)) }

// WatchJournal reports the size of the audit journal in bytes, until remove is
// called.
func WatchJournal(size func() int64) (remove func()) {
	return journalBytes.set("", func() (float64, bool) { return float64(size()), true })
}

// yes is 1 while is says so.
func yes(is func() bool) func() (float64, bool) {
	return func() (float64, bool) {
		if is() {
			return 1, true
		}
		return 0, true
	}
}
