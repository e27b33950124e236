// Package metrics is a publisher's numbers for Prometheus: its fleet, its rollouts, what
// it gave away, and when something runs out of date.
//
// Labels have few values, whatever machines report: versions beyond the most frequent are
// "other". Machines are counted, never named. Of the fleet's numbers only approved
// machines' reports are part.
package metrics

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"shoal/internal/numbers"
	"shoal/manifest"
	"shoal/publisher/access"
	"shoal/publisher/view"
)

// Path is where the numbers are.
const Path = "/metrics"

const (
	maxScrapes = 4 // at a time
	timeout    = 20 * time.Second
)

// Handler answers whoever guard takes for a viewer, with the numbers of v.
func Handler(v *view.View, guard *access.Guard) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(&collector{v}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	answer := promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: timeout, ErrorHandling: promhttp.ContinueOnError})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		switch {
		case !guard.Host(r):
			w.WriteHeader(http.StatusMisdirectedRequest)
		case guard.Who(r).Role < access.Viewer:
			h.Set("WWW-Authenticate", `Bearer realm="shoal"`)
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			w.WriteHeader(http.StatusMethodNotAllowed)
		default:
			answer.ServeHTTP(w, r)
		}
	})
}

var (
	buildInfo = numbers.Desc("build_info", "The program.", "version")
	started   = numbers.Desc("start_timestamp_seconds", "When the publisher began to serve.")
	up        = numbers.Desc("fleet_up", "1 if the publisher could tell how its fleet stands.")
	agents    = numbers.Desc("agents", "Apps of approved machines, by how they stand and what runs.", "channel", "state", "version")
	machines  = numbers.Desc("machines", "Machines: seen within a day, not-seen, unapproved.", "kind")
	onTarget  = numbers.Desc("agents_on_target", "Apps of machines seen within a day that run, healthy, what their channel offers.", "channel")
	attention = numbers.Desc("agents_attention", "Machines that need a look.")
	wave      = numbers.Desc("rollout_wave_agents", "Approved machines of a wave, by how they stand.", "channel", "wave", "name", "state")
	open      = numbers.Desc("rollout_wave_open", "1 if the wave is open.", "channel", "wave", "name")
	hold      = numbers.Desc("rollout_hold", "1 if the rollout is held by the beacon.", "channel")
	paused    = numbers.Desc("rollout_paused", "1 if the release keys have signed the rollout as paused.", "channel")
	bytes     = numbers.Desc("bytes_total", "Payload that this publisher gave, by way: the swarm (origin) or HTTP (webseed).", "source", "dir")
	update    = numbers.Desc("update_bytes", "Payload of each approved machine's last update, by where it came from.", "channel", "source")
	blocked   = numbers.Desc("update_blocked", "Apps of approved machines that are not healthy, by the reason.", "channel", "code")
	expiry    = numbers.Desc("manifest_expiry_timestamp_seconds", "When a channel's manifest runs out of date.", "channel")
	rootEnd   = numbers.Desc("root_expiry_timestamp_seconds", "When the root runs out of date.")
	beaconEnd = numbers.Desc("beacon_expiry_timestamp_seconds", "When a channel's beacon runs out; 0 when it has, or there is none.", "channel")
	reports   = numbers.Desc("reports_total", "Reports, by what became of them.", "result")
)

type collector struct{ v *view.View }

// Names are those of the metrics that are told here.
func Names() []string { return numbers.Names(&collector{}) }

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		buildInfo, started, up, agents, machines, onTarget, attention, wave, open, hold, paused, bytes, update, blocked,
		expiry, rootEnd, beaconEnd, reports,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge(buildInfo, 1, c.v.Version)
	gauge(started, seconds(c.v.Started))
	given := c.v.Given()
	counter(bytes, float64(given.Swarm), "origin", "up")
	counter(bytes, float64(given.HTTP), "webseed", "up")
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	n, err := c.v.Numbers(ctx)
	if err != nil {
		gauge(up, 0)
		return
	}
	gauge(up, 1)
	o := n.Overview
	gauge(machines, float64(o.Seen), "seen")
	gauge(machines, float64(o.Agents-o.Seen), "not-seen")
	gauge(machines, float64(o.Unapproved), "unapproved")
	gauge(attention, float64(o.Attention))
	for _, k := range n.Counts {
		gauge(agents, float64(k.Agents), k.Channel.String(), k.State, k.Version)
	}
	for _, k := range n.Blocked {
		gauge(blocked, float64(k.Agents), k.Channel.String(), string(k.Code))
	}
	for name, b := range n.Bytes {
		for _, s := range bySource(b) {
			gauge(update, float64(s.n), name.String(), s.name)
		}
	}
	for i := range o.Channels {
		k := &o.Channels[i]
		name := k.Channel.String()
		gauge(onTarget, float64(k.OnTarget), name)
		st := k.Rollout
		if st == nil {
			continue
		}
		gauge(expiry, seconds(st.Expires), name)
		gauge(hold, numbers.Truth(st.Hold), name)
		gauge(paused, numbers.Truth(st.Paused), name)
		if st.Gated { // also when there is no fresh one: who waits for an alarm needs the number
			var end time.Time
			if st.Beacon != nil {
				end = st.Beacon.Expires
			}
			gauge(beaconEnd, seconds(end), name)
		}
		for j := range st.Waves {
			w := &st.Waves[j]
			number := strconv.Itoa(j + 1)
			gauge(open, numbers.Truth(w.Open), name, number, w.Name)
			if w.Count == nil {
				continue
			}
			gauge(wave, float64(w.Count.Healthy), name, number, w.Name, "healthy")
			gauge(wave, float64(w.Count.Working), name, number, w.Name, "working")
			gauge(wave, float64(w.Count.Failed), name, number, w.Name, "failed")
			gauge(wave, float64(w.Count.NotSeen), name, number, w.Name, "not-seen")
		}
	}
	gauge(rootEnd, seconds(o.RootExpires))
	counter(reports, float64(n.Reports.Taken), "taken")
	counter(reports, float64(n.Reports.Bad), "bad")
	counter(reports, float64(n.Reports.Foreign), "foreign")
	counter(reports, float64(n.Reports.Replayed), "replayed")
	counter(reports, float64(n.Reports.Limited), "limited")
}

type part struct {
	name string
	n    int64
}

func bySource(b manifest.ByteCount) []part {
	return []part{{"lan", b.LAN}, {"wan", b.WAN}, {"origin", b.Origin}, {"webseed", b.Webseed}}
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}
