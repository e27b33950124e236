package swarm

import (
	"fmt"
	"log/slog"
	"net/http"

	"shoal/swarm/fleet"
	"shoal/swarm/lsd"
)

const (
	clientName   = "shoal"
	peerIDPrefix = "-SH0100-" // BEP 20

	defaultMaxPeers = 50
	originMaxPeers  = 200
)

// Config is what [New] needs. The zero value is a node on any free port.
type Config struct {
	// Listen is the "host:port" to accept peers on, over TCP. An empty host is every
	// address of the machine, port 0 any free port; empty is ":0". If it names an
	// address, peers are dialled from that address too.
	Listen string
	// Origins are the publisher's swarm listeners, "host:port". They are not dialled for
	// being here; their bytes are counted as ClassOrigin.
	Origins []string
	// Fleet is the node's membership in a fleet with a key: only members of the same
	// fleet become peers, over TLS. If nil the fleet is open, and stock clients are
	// welcome.
	Fleet *fleet.Member
	// LAN says whether and where neighbours are looked for.
	LAN LAN
	// Limits are the first limits, see Node.SetLimits.
	Limits Limits
	// SuperSeed is for the publisher's own node. What it serves by Node.Seed it gives
	// away piece by piece, each to another peer, so that the peers have something to
	// exchange and the node sends little more than one copy.
	SuperSeed bool
	// MaxPeers is how many peers one torrent is connected to at most; zero means 50, and
	// 200 for a super seed, because all first copies come from it.
	MaxPeers int
	// TrackerTransport carries announces to trackers over HTTP. If nil, it is like
	// http.DefaultTransport.
	TrackerTransport http.RoundTripper
	// Logger receives what the node does. If nil, nothing is logged.
	Logger *slog.Logger
}

// LAN says how peers on the machine's own networks are looked for, by announcements to
// all of them (BEP 14, see package lsd). The zero value does nothing.
type LAN struct {
	Enabled bool
	// Interfaces say on which interfaces: of those that are up and can do multicast, all
	// that match a pattern such as "eth*", if there is one, and none such as "!docker*".
	Interfaces []string
}

// Validate reports a pattern that is none.
func (l LAN) Validate() error { return lsd.Interfaces(l.Interfaces).Validate() }

func (c *Config) validate() error {
	if err := c.LAN.Validate(); err != nil {
		return err
	}
	if c.MaxPeers < 0 {
		return fmt.Errorf("max peers %d: cannot be negative", c.MaxPeers)
	}
	return c.Limits.validate()
}
