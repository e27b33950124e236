package nettest

import (
	"encoding/json"
	"testing"
	"time"
)

// joined is a LAN of machines that run version 1 and know each other.
func joined(t *testing.T, machines, size int) (*lan, *site, []*machine) {
	t.Helper()
	n := newLAN(t)
	s := newSite(t, size)
	var all []*machine
	for i := range machines {
		m := n.plug(i)
		s.join(m)
		m.start()
		all = append(all, m)
	}
	for _, m := range all {
		m.waitForNeighbours(1, machines)
	}
	return n, s, all
}

// waitForNeighbours waits until the agent has from least to most, as `agent peers` says.
func (m *machine) waitForNeighbours(least, most int) {
	t := m.lan.t
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		var seen struct {
			Items []struct{ Peers []struct{ Addr string } }
		}
		out, err := m.try("agent", "peers", "-o", "json")
		if err == nil && json.Unmarshal(out, &seen) == nil && len(seen.Items) == 1 &&
			len(seen.Items[0].Peers) >= least && len(seen.Items[0].Peers) <= most {
			return
		}
		if time.Now().After(deadline) {
			m.fatalf("has not %d to %d neighbours: %s %v", least, most, out, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Eight machines with nothing but a switch: no route, no tracker, no publisher. Somebody
// walks up to one of them with a stick, and all run what is on it.
func TestLongNetLAN(t *testing.T) {
	_, s, all := joined(t, 8, 32<<20)
	began := time.Now()
	out := all[0].shoal("", "agent", "import", s.bundles[1])
	wait(all, s.sums[1])
	t.Logf("all 8 run 32 MiB from one stick after %.1f s, at %s\n%s", time.Since(began).Seconds(), linkRate, out)
	for _, m := range all {
		m.shoal("", "agent", "status")
	}
}

// The switch is split while the stick is read: one half has the release, the other has
// not. When the halves are one again, the other gets it too: over connections that were
// only waiting, and when all of those have been given up.
func TestLongNetPartition(t *testing.T) {
	for _, r := range []struct {
		name    string
		forLong bool
	}{{"short", false}, {"until-connections-are-given-up", true}} {
		t.Run(r.name, func(t *testing.T) {
			n, s, all := joined(t, 8, 1<<20)
			for _, m := range all {
				m.waitForNeighbours(7, 7)
			}
			n.bridge("br1")
			for _, m := range all[4:] {
				n.move(m, "br1")
			}
			all[0].shoal("", "agent", "import", s.bundles[1])
			wait(all[:4], s.sums[1])
			if r.forLong {
				for _, m := range all {
					m.waitForNeighbours(3, 3)
				}
			}
			for _, m := range all[4:] {
				if m.runs(s.sums[1]) {
					m.fatalf("runs what it cannot have heard of")
				}
			}
			for _, m := range all[4:] {
				n.move(m, "br0")
			}
			t.Logf("the other half runs it %.1f s after the network was whole again", wait(all, s.sums[1]).Seconds())
		})
	}
}
