package agent

import (
	"errors"
	"io/fs"
	"slices"

	"shoal/agent/holder"
	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/link"
	"shoal/swarm"
)

// Holding is what a holder on this machine is made of: with the trust, the sources and
// the fleet key of its agent, or, with links, with those of the links' one fleet. An
// agent that is running is not disturbed. The holder's Dir and Channels are for the
// caller to set; with links, Channels are the links'. Its identity among peers is kept in
// the directory leaf; without one it is for this process alone.
func (c Config) Holding(links []*link.Link, leaf string) (holder.Config, error) {
	c, err := c.WithDefaults()
	if err != nil {
		return holder.Config{}, err
	}
	pin, err := state.ReadPin(c.JoinFile)
	if errors.Is(err, fs.ErrNotExist) {
		pin = nil
	} else if err != nil {
		return holder.Config{}, err
	}
	if len(links) == 0 {
		if err := checkPin(c, pin); err != nil {
			var e *fault.Error
			if pin == nil && errors.As(err, &e) {
				e.Do("or name the join link instead of a channel: it says whom to trust")
			}
			return holder.Config{}, err
		}
	} else if pin != nil && manifest.Digest(pin.Repo) != links[0].Repo {
		return holder.Config{}, otherFleet(c, pin, links[0])
	}
	h := holder.Config{
		Listen: c.Listen, LAN: c.Sources.LAN, MaxPeers: c.Limits.Peers, Reserve: c.Disk.Reserve, Every: c.Check.Every,
		Limits: swarm.Limits{Up: c.Limits.Up, Down: c.Limits.Down, LANUp: c.Limits.LANUp, LANDown: c.Limits.LANDown},
		Options: manifest.Options{
			Clock: c.Clock, Build: c.Build, TimeFloor: c.Time == "floor", AgentVersion: c.Version,
		},
		Logger: c.Logger,
	}
	if err := c.trusted(&h, pin); err != nil {
		return h, err
	}
	for _, l := range links {
		if err := c.follows(&h, l); err != nil {
			return h, err
		}
	}
	if h.Fleet, err = c.member(leaf); err != nil {
		return h, err
	}
	if h.Sources, err = openSources(c, h.Fleet); err != nil {
		return h, err
	}
	h.Trackers, h.Peers, h.Origins = c.announceURLs(), c.Peers, c.origins()
	return h, nil
}

// trusted takes what the agent of this machine trusts, which it may be changing.
func (c Config) trusted(h *holder.Config, pin *state.Pin) error {
	if pin != nil {
		p := *pin
		h.Pin = &p
	}
	if !state.Exists(c.StateDir, c.AnchorFile) {
		return nil
	}
	m, err := state.Reading(c.StateDir, c.AnchorFile).Read()
	if err != nil || !m.Known {
		return err
	}
	h.Trusted = &m.Snapshot
	if h.Pin == nil {
		h.Pin = &state.Pin{Repo: m.Snapshot.State.Repo}
	}
	if m.Snapshot.State.Repo != h.Pin.Repo {
		return fault.New(fault.PinMismatch, "the state in %s is of another fleet than %s", c.StateDir, c.JoinFile).
			Do("shoal agent leave, and join again").Fact("state", c.StateDir)
	}
	return nil
}

// follows adds what a link says to what is known.
func (c *Config) follows(h *holder.Config, l *link.Link) error {
	if h.Pin == nil {
		h.Pin = &state.Pin{Repo: manifest.FleetID(l.Repo)}
	}
	if manifest.Digest(h.Pin.Repo) != l.Repo {
		return otherFleet(*c, h.Pin, l)
	}
	h.Pin.Raise(l.MinRoot, l.Channel, l.MinSequence)
	if !slices.Contains(h.Channels, l.Channel) {
		h.Channels = append(h.Channels, l.Channel)
	}
	for _, at := range l.At {
		if !slices.Contains(c.sourceRefs(), at) {
			c.Sources.Mirrors = append(slices.Clip(c.Sources.Mirrors), at)
		}
	}
	c.Trackers = union(c.Trackers, l.Trackers)
	c.Peers = union(c.Peers, l.Peers)
	return nil
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(slices.Clip(a), s)
		}
	}
	return a
}

func otherFleet(c Config, pin *state.Pin, l *link.Link) error {
	return fault.New(fault.PinMismatch, "the link is of another fleet").
		Line("Here:     %s", pin.Repo).
		Line("The link: %s", manifest.FleetID(l.Repo)).
		Line("Nothing was fetched.").
		Do("for a fleet that this machine has not joined: --config FILE, of a file of its own in a directory of its own").
		Fact("pin", pin.Repo.String()).Fact("found", manifest.FleetID(l.Repo).String())
}
