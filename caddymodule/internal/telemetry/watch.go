package telemetry

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// watch is a gauge whose values are asked for when somebody looks. One label
// value has one function; a later one replaces it.
type watch struct {
	desc    *prometheus.Desc
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
		desc:    prometheus.NewDesc(name, help, label, nil),
		labeled: len(label) > 0,
		values:  make(map[string]*value),
	}
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
		ch <- prometheus.MustNewConstMetric(w.desc, prometheus.GaugeValue, v, labels...)
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

// WatchSink reports how many events a sink is behind, until remove is called.
func WatchSink(sink string, lag func() uint64) (remove func()) {
	return sinkLag.set(sink, func() (float64, bool) { return float64(lag()), true })
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
