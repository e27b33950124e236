package agent

import (
	"errors"
	"testing"

	"shoal/agent/agenttest"
	"shoal/internal/fault"
	"shoal/manifest"
)

// A release comes from a neighbour alone: the news of it, the info dict and the bytes.
// Who brings it got it from a bundle, and neither reaches any source.
func TestNeighboursAreEnough(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: a swarm")
	}
	next := agenttest.Large("2", 0)
	one, two := newBench(t), newBench(t)
	one.Release(stable, 2, next)
	path := one.Bundle()
	one.cfg.Sources.Publisher, two.cfg.Sources.Publisher = "http://127.0.0.1:1", "http://127.0.0.1:1"
	defer one.run()()
	one.until("running", func(*AppStatus) bool { return true })
	two.cfg.Peers, two.cfg.Origins = []string{one.status().Listen}, []string{"127.0.0.1:1"}
	defer two.run()()
	if _, err := one.connect().Import(t.Context(), path, nil); err != nil {
		t.Fatal(err)
	}
	one.installed(next)
	two.until("version 1.0.2", func(s *AppStatus) bool { return s.Version == "1.0.2" && s.State == manifest.StateHealthy })
	two.installed(next)
	if got := two.status().Apps[0].Update.Bytes; got.LAN != int64(len(next)) {
		t.Errorf("bytes %+v, want all %d from the neighbour", got, len(next))
	}
	var seen []ChannelPeers
	two.until("one neighbour that says what it has", func(*AppStatus) bool {
		var err error
		seen, err = Peers(t.Context(), two.cfg)
		return err == nil && len(seen) == 1 && len(seen[0].Peers) == 1 && seen[0].Peers[0].Sequence == 2
	})
	if p := seen[0].Peers[0]; p.Sequence != 2 || p.Version != "1.0.2" || p.Stand != "same" || p.Root != 1 || p.Faults != 0 {
		t.Errorf("it sees %+v", p)
	}
}

// An agent that does not run has no neighbours, and says so.
func TestPeersWithoutAnAgent(t *testing.T) {
	if _, err := Peers(t.Context(), newBench(t).cfg); !errors.Is(err, fault.Unreachable) {
		t.Errorf("%v, want unreachable", err)
	}
}
