package telemetry

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// watch is a gauge whose values are asked for when somebody looks. One label
// value has one function; a later one replaces it.
type watch struct {
	desc *prometheus.Desc

	mu     sync.Mutex
	values map[string]func() (float64, bool)
}

func newWatch(name, help, label string) *watch {
	return &watch{
		desc:   prometheus.NewDesc(name, help, []string{label}, nil),
		values: make(map[string]func() (float64, bool)),
	}
}

func (w *watch) set(label string, value func() (float64, bool)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.values[label] = value
}

// Describe implements prometheus.Collector.
func (w *watch) Describe(ch chan<- *prometheus.Desc) { ch <- w.desc }

// Collect implements prometheus.Collector.
func (w *watch) Collect(ch chan<- prometheus.Metric) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for label, value := range w.values {
		if v, ok := value(); ok {
			ch <- prometheus.MustNewConstMetric(w.desc, prometheus.GaugeValue, v, label)
		}
	}
}

// WatchKeys reports the age of an issuer's key set; nothing until it has one.
func WatchKeys(issuer string, age func() (time.Duration, bool)) {
	keysAge.set(issuer, func() (float64, bool) {
		d, ok := age()
		return d.Seconds(), ok
	})
}

// WatchSink reports how many events a sink is behind.
func WatchSink(sink string, lag func() uint64) {
	sinkLag.set(sink, func() (float64, bool) { return float64(lag()), true })
}
