// Package metrics is one machine's numbers for Prometheus: on a Unix socket, or in a file
// that a node exporter reads. It opens no port.
//
// It says what the agent's status says, at that moment, and holds nothing up: an agent
// whose numbers nobody can have goes on.
package metrics

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"shoal/agent"
	"shoal/internal/fault"
	"shoal/internal/numbers"
	"shoal/manifest"
)

const (
	writeEvery = 15 * time.Second
	timeout    = 10 * time.Second
	maxHeader  = 16 << 10
	maxScrapes = 2 // at a time
	prefix     = "unix:"
)

// Config says where the numbers go.
type Config struct {
	// Listen is "unix:PATH" of a socket; empty means none.
	Listen string
	// File is written every 15 s and never seen half written; its name ends in ".prom" for a
	// node exporter. Empty means none.
	File string
	// Status is how the agent stands. It must be set.
	Status func() *agent.Status
	// Logger receives what goes wrong. It must be set.
	Logger *slog.Logger
}

// Listener opens the socket of c; nil when there is none. Code config for anything but a
// Unix socket.
func (c *Config) Listener() (net.Listener, error) {
	if c.Listen == "" {
		return nil, nil
	}
	path, ok := strings.CutPrefix(c.Listen, prefix)
	if !ok || path == "" {
		return nil, fault.New(fault.Config, "metrics.listen: %q is not unix:PATH", c.Listen).
			Line("An agent opens no port for its numbers.").Do("metrics.listen: unix:/run/shoal/metrics.sock").Fact("key", "metrics.listen")
	}
	// What is there may be of a process that died; anything but a socket stays.
	if fi, err := os.Lstat(path); err == nil && fi.Mode().Type() == fs.ModeSocket {
		os.Remove(path)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fault.New(fault.IO, "metrics.listen: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fault.New(fault.IO, "metrics.listen: %w", err)
	}
	return l, nil
}

// Run tells the numbers until ctx ends, on l, which may be nil and is closed, and in c's file.
func (c *Config) Run(ctx context.Context, l net.Listener) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(&collector{c.Status})
	if l != nil {
		srv := &http.Server{
			Handler: promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes}), ReadHeaderTimeout: timeout,
			ReadTimeout: timeout, WriteTimeout: timeout, MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				c.Logger.Error("telling numbers", "err", err)
			}
		}()
		defer func() { srv.Close(); <-done }()
	}
	if c.File == "" {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	trouble := ""
	for {
		switch err := prometheus.WriteToTextfile(c.File, reg); {
		case err == nil:
			trouble = ""
		case err.Error() != trouble:
			trouble = err.Error()
			c.Logger.Error("writing numbers", "file", c.File, "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

var (
	build    = numbers.Desc("build_info", "The program.", "version")
	state    = numbers.Desc("agent_state", "1 for the state an app is in.", "channel", "state", "version")
	sequence = numbers.Desc("agent_sequence", "The sequence that is trusted.", "channel")
	expiry   = numbers.Desc("manifest_expiry_timestamp_seconds", "When the trusted manifest runs out of date.", "channel")
	rootEnd  = numbers.Desc("root_expiry_timestamp_seconds", "When the root runs out of date.")
	checked  = numbers.Desc("agent_last_check_timestamp_seconds", "When the sources were last asked.", "channel")
	checkOK  = numbers.Desc("agent_last_check_ok", "1 if that went well.", "channel")
	blocked  = numbers.Desc("update_blocked", "1 for the reason for which an app does not go on.", "channel", "code")
	received = numbers.Desc("update_received_bytes", "Payload of the update under way or the last one, by where it came from.", "channel", "source")
	took     = numbers.Desc("update_duration_seconds", "How long the update under way or the last one was in each of its states.", "channel", "phase")
	given    = numbers.Desc("bytes_total", "Payload given to other machines since the agent started.", "channel", "dir")
	peers    = numbers.Desc("agent_peers", "Machines that the release is exchanged with now.", "channel")
)

type collector struct{ status func() *agent.Status }

// Names are those of the metrics that are told here.
func Names() []string { return numbers.Names(&collector{}) }

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		build, state, sequence, expiry, rootEnd, checked, checkOK, blocked, received, took, given, peers,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	st := c.status()
	gauge(build, 1, st.Version)
	if !st.RootExpires.IsZero() {
		gauge(rootEnd, float64(st.RootExpires.Unix()))
	}
	for i := range st.Apps {
		a := &st.Apps[i]
		name := manifest.Channel{App: a.App, Name: a.Channel}.String()
		gauge(state, 1, name, string(a.State), a.Version)
		gauge(sequence, float64(a.Sequence), name)
		if !a.Expires.IsZero() {
			gauge(expiry, float64(a.Expires.Unix()), name)
		}
		if a.LastCheck != nil {
			gauge(checked, float64(a.LastCheck.At.Unix()), name)
			gauge(checkOK, numbers.Truth(a.LastCheck.Code == fault.OK || a.LastCheck.Code == fault.Same), name)
		}
		if a.Why != nil {
			gauge(blocked, 1, name, string(a.Why.Code))
		}
		if u := a.Update; u != nil {
			gauge(received, float64(u.Bytes.LAN), name, "lan")
			gauge(received, float64(u.Bytes.WAN), name, "wan")
			gauge(received, float64(u.Bytes.Origin), name, "origin")
			gauge(received, float64(u.Bytes.Webseed), name, "webseed")
			for _, p := range u.Phases {
				gauge(took, p.Seconds, name, string(p.State))
			}
		}
		ch <- prometheus.MustNewConstMetric(given, prometheus.CounterValue, float64(a.Given), name, "up")
		gauge(peers, float64(a.Peers), name)
	}
}
