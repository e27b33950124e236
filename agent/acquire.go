package agent

import (
	"context"
	"errors"
	"os"

	"shoal/agent/acquire"
	"shoal/internal/fault"
	"shoal/swarm"
)

// acquire returns the decided payload's file, verified, open at its start. It is given
// to others from then on.
func (a *Agent) acquire(ctx context.Context, j *job) (*os.File, error) {
	p := j.decision.payload
	var before Bytes
	if err := a.do(ctx, func() {
		if j.app.early.d == p.SHA256 {
			before, j.app.early = j.app.early.bytes, early{}
		}
	}); err != nil {
		return nil, err
	}
	j.tell(func(p *Progress) { p.Bytes = before })
	w := acquire.Wanted{Payload: p, Release: j.app.cfg.Name + " " + j.decision.held.Manifest.Release.Version}
	f, given, err := a.acquirer(a.swarmForUpdate).Open(ctx, w, func(now acquire.Progress) {
		a.told(j, func(p *Progress) {
			p.Done, p.Rate, p.Peers, p.Bytes = now.Done, now.Rate, now.Peers, before.plus(countBytes(now.Bytes))
		})
	})
	if given {
		a.do(ctx, func() { a.shared[p.Infohash] = p.SHA256 })
	}
	return f, err
}

func (a *Agent) acquirer(node func() (*swarm.Node, error)) *acquire.Acquirer {
	return &acquire.Acquirer{
		Cache: a.cache, Sources: a.sources, Node: node, Trackers: a.cfg.announceURLs(), Peers: a.cfg.Peers,
		Logger: a.log, Idle: a.cfg.idle, Direct: a.cfg.direct,
	}
}

// swarmForUpdate is the node. A single update without a running agent does not insist
// on the configured port.
func (a *Agent) swarmForUpdate() (*swarm.Node, error) {
	node, err := a.swarm(a.cfg.Listen)
	if errors.Is(err, fault.PortInUse) && !a.serving.Load() {
		return a.swarm(anyPort(a.cfg.Listen))
	}
	return node, err
}

func countBytes(b swarm.Bytes) Bytes {
	return Bytes{LAN: b.LAN, WAN: b.WAN, Origin: b.Origin, Webseed: b.Webseed}
}
