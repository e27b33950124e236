package publisher

import (
	"net"
	"slices"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/link"
)

// LinkRequest says what a newcomer is told.
type LinkRequest struct {
	Channel  manifest.Channel
	At       []string // base URLs; none means the configured public URL
	Trackers []string // announce URL of another tracker, at most one
	Peers    []string // further peers, host:port
}

// Link makes the link by which a machine joins a channel. It carries the root version
// and the order that are current, so that a newcomer cannot be given an older past.
func (p *Publisher) Link(req LinkRequest) (*link.Link, error) {
	state, err := p.repo.Read()
	if err != nil {
		return nil, err
	}
	ch, err := state.Channel(req.Channel)
	if err != nil {
		return nil, err
	}
	if ch.Err != nil {
		return nil, ch.Err
	}
	l := &link.Link{
		Repo: state.Trust.Repo(), Channel: ch.Name, MinRoot: state.Trust.RootVersion(), MinSequence: ch.Last,
		At: slices.Clone(req.At), Trackers: req.Trackers, Peers: slices.Clone(req.Peers),
	}
	if len(l.At) == 0 {
		if p.cfg.Serve.PublicURL == "" {
			return nil, fault.New(fault.Config, "a link must say how machines reach this publisher").
				Do("set serve.public_url in publisher.yaml").Do("or say it: --at %s://updates.acme.lan:7800", p.cfg.scheme(p.cfg.FleetKeyFile != ""))
		}
		l.At = []string{p.cfg.Serve.PublicURL}
		if peer := p.publicPeer(); peer != "" {
			l.Peers = append(l.Peers, peer)
		}
	}
	return l, l.Check()
}

// publicPeer is where the origin seed is under the public name; empty when its port is
// whatever is free.
func (p *Publisher) publicPeer() string {
	u, err := parsePublicURL(p.cfg.Serve.PublicURL)
	if err != nil {
		return ""
	}
	listen := p.cfg.Serve.Swarm
	if listen == "" {
		listen = DefaultSwarm
	}
	_, port, err := net.SplitHostPort(listen)
	if err != nil || port == "0" || port == "" {
		return ""
	}
	return net.JoinHostPort(u.Hostname(), port)
}
