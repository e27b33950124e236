package agent

import (
	"context"
	"encoding/json"
	"os"
	"strings"

	"shoal/agent/report"
	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/swarm/fleet"
)

const maxLabels = 32 // in a report

// reporter is what tells publishers how this machine stands.
func (a *Agent) reporter(key keys.Signer) (*report.Reporter, error) {
	to, err := a.cfg.reportTo(a.member != nil)
	if err != nil {
		return nil, err
	}
	return report.New(report.Config{
		Dir: a.cfg.StateDir, Key: key, Report: a.account, To: to, Transport: fleet.Transport(a.member),
		Every: a.cfg.Reports.Every, UserAgent: "shoal/" + a.cfg.Version, Clock: a.cfg.Clock, Logger: a.log,
	})
}

// reportTo is who is told. In a fleet with a key that is for its members alone: what
// would go in the clear is a mistake where a person asked for it, and else goes nowhere.
func (c Config) reportTo(keyed bool) ([]string, error) {
	switch {
	case c.Reports.Disabled:
		return nil, nil
	case len(c.Reports.To) > 0:
		for _, to := range c.Reports.To {
			if keyed && !strings.HasPrefix(to, "https://") {
				return nil, fault.New(fault.Config, "reports.to: %q would be read by strangers on the way", to).
					Line("This fleet has a key, and what its machines report is for its members alone.").
					Do("reports.to: [%q]", "https://"+strings.TrimPrefix(to, "http://"))
			}
		}
		return c.Reports.To, nil
	case strings.HasPrefix(c.Sources.Publisher, "https://"), strings.HasPrefix(c.Sources.Publisher, "http://") && !keyed:
		return []string{c.Sources.Publisher}, nil
	}
	return nil, nil
}

// account is the machine's account of itself, from the last status.
func (a *Agent) account() *manifest.Report {
	s := a.published.Load()
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	doc := &manifest.Report{
		Host: host, Platform: a.cfg.Platform, AgentVersion: a.cfg.Version, RootVersion: s.RootVersion, Apps: []manifest.AppReport{},
	}
	if !manifest.ValidVersion(doc.AgentVersion) {
		doc.AgentVersion = "unknown"
	}
	if repo, err := manifest.ParsePrefixed(s.Fleet); err == nil {
		doc.Repo = repo
	}
	for _, l := range a.cfg.Labels {
		if manifest.ValidName(l.Name) && len(doc.Labels) < maxLabels {
			doc.Labels = append(doc.Labels, manifest.Label(l))
		}
	}
	for i := range s.Apps {
		doc.Apps = append(doc.Apps, s.Apps[i].account())
	}
	return doc
}

func (s *AppStatus) account() manifest.AppReport {
	r := manifest.AppReport{
		App: s.App, Channel: s.Channel, Epoch: s.Epoch, Sequence: s.Sequence, SHA256: s.SHA256,
		State: s.State, FailedAt: s.FailedAt, Freshness: s.Freshness, Bytes: manifest.ByteCount{Given: s.Given},
	}
	if manifest.ValidVersion(s.Version) {
		r.Version = s.Version
	}
	if s.Offered != nil {
		r.Offered = s.Offered.SHA256
	}
	if r.Freshness == "" {
		r.Freshness = manifest.FreshNone
	}
	if u := s.Update; u != nil {
		r.Bytes.LAN, r.Bytes.WAN, r.Bytes.Origin, r.Bytes.Webseed = u.Bytes.LAN, u.Bytes.WAN, u.Bytes.Origin, u.Bytes.Webseed
	}
	switch {
	case s.Why != nil:
		r.Why = &manifest.Why{Code: s.Why.Code, Text: s.Why.Text, Until: s.Why.Until, Next: s.Why.Next}
	case s.State != manifest.StateHealthy: // under way
		r.Why = &manifest.Why{Code: fault.OK, Text: string(s.State)}
	}
	return r
}

// Report implements [Handle].
func (a *Agent) Report(ctx context.Context) (json.RawMessage, error) {
	if err := a.do(ctx, func() {
		for _, app := range a.apps {
			a.settle(app, Choice{})
		}
	}); err != nil {
		return nil, err
	}
	if a.Status().Fleet == "" {
		return nil, fault.New(fault.Config, "this machine belongs to no fleet yet").Do("shoal agent join LINK")
	}
	return a.reports.Export(ctx)
}

// Reported implements [Handle].
func (a *Agent) Reported(_ context.Context, report json.RawMessage) error {
	return a.reports.Exported(report)
}
