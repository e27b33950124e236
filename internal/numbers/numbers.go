// Package numbers is how Shoal names and writes its metrics for Prometheus: what an agent
// and a publisher have in common there.
package numbers

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

const prefix = "shoal_"

// Desc describes the metric shoal_NAME with those labels.
func Desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prefix+name, help, labels, nil)
}

// Names are those of the metrics of c, which must describe them all.
func Names(c prometheus.Collector) []string {
	ch := make(chan *prometheus.Desc)
	go func() { c.Describe(ch); close(ch) }()
	var names []string
	for d := range ch {
		// A Desc tells its name in no other way.
		_, rest, _ := strings.Cut(d.String(), `fqName: "`)
		name, _, _ := strings.Cut(rest, `"`)
		names = append(names, name)
	}
	return names
}

// Truth is 1 for what is so, and 0 for what is not.
func Truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
