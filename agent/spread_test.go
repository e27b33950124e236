package agent

import (
	"testing"
	"time"

	"shoal/agent/agenttest"
	"shoal/internal/fault"
	"shoal/manifest"
)

// What a machine has been given by a neighbour it gives to the next, also when the
// publisher is gone.
func TestBytesSpreadFromMachineToMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: a swarm")
	}
	next := agenttest.Large("2", 0)
	one := newBench(t)
	one.Release(stable, 2, next)
	one.cfg.Peers = []string{one.Seed(next)} // and the tree has it no more
	stop := one.run()
	one.until("healthy", func(s *AppStatus) bool { return s.State == manifest.StateHealthy && s.Version == "1.0.2" })
	one.installed(next)
	s := one.status()
	if got := s.Apps[0].Update.Bytes; got.Origin != int64(len(next)) || got.Webseed != 0 {
		t.Errorf("bytes %+v, want all %d from the publisher's seed", got, len(next))
	}

	two := newBench(t)
	two.Release(stable, 2, next)
	two.Seed(next) // only to take it out of the tree: nobody is told where it is
	two.cfg.Peers = []string{s.Listen}
	two.cfg.Origins = []string{"127.0.0.1:1"}
	u := two.update(Choice{})
	two.want(u, fault.OK, manifest.StateHealthy)
	two.installed(next)
	if got := u.Update.Bytes; got.LAN != int64(len(next)) {
		t.Errorf("bytes %+v, want all %d from the neighbour", got, len(next))
	}
	one.until("given", func(s *AppStatus) bool { return s.Given > 0 })
	stop()

	// After a restart it gives again, without a word from the publisher.
	one.cfg.Sources.Publisher = "http://127.0.0.1:1"
	defer one.run()()
	one.until("serving again", func(s *AppStatus) bool { return s.State == manifest.StateHealthy })
	three := newBench(t)
	three.Release(stable, 2, next)
	three.Seed(next)
	three.cfg.Peers = []string{one.status().Listen}
	three.want(three.update(Choice{}), fault.OK, manifest.StateHealthy)
	three.installed(next)
}

// The publisher goes away after its manifest was taken: neighbours are enough.
func TestTrustedReleaseComesFromNeighboursAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: a swarm")
	}
	b := newBench(t)
	b.cfg.idle = 200 * time.Millisecond
	next := agenttest.Large("2", 0)
	b.Release(stable, 2, next)
	peer := b.Seed(next)
	b.want(b.update(Choice{}), fault.Unreachable, manifest.StateWaiting) // nobody it knows has it
	b.installed(b.old)
	b.cfg.Sources.Publisher = "http://127.0.0.1:1"
	b.cfg.Peers, b.cfg.idle = []string{peer}, time.Minute // which it need not wait
	defer b.run()()
	b.until("version 1.0.2", func(s *AppStatus) bool { return s.Version == "1.0.2" && s.State == manifest.StateHealthy })
	b.installed(next)
}
