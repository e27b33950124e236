package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"shoal/agent"
	"shoal/manifest/link"
)

// siteFrom is from how many machines on the last one is where no network reaches.
const siteFrom = 3

// hasSite reports whether one of the machines, and the one that joins it at the end,
// never reach the publisher.
func (f *fleet) hasSite() bool { return f.cfg.Agents >= siteFrom }

// bundle writes what the channel offers now into one file, and returns its name.
func (f *fleet) bundle(ctx context.Context) (string, error) {
	dir := f.path("stick")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	var made struct {
		File string `json:"file"`
	}
	err := f.must(ctx, &made, nil, "--config", f.publisher.config, "bundle", "create", channel,
		"--platform", runtime.GOOS+"/"+runtime.GOARCH, "--out", dir)
	return made.File, err
}

// withoutPlaces is a join link that names the fleet and the channel, and nobody to ask.
func withoutPlaces(text string) (string, error) {
	l, err := link.Parse(text)
	if err != nil {
		return "", err
	}
	l.At, l.Trackers, l.Peers = nil, nil, nil
	return l.String(), nil
}

// updateSite carries the new version to the machine without a network. Beside it a new
// machine joins, from the bundle of the old version: even the news comes from its neighbour.
func (f *fleet) updateSite(ctx context.Context) error {
	m := f.machines[len(f.machines)-1]
	s, err := m.status(ctx)
	if err != nil {
		return err
	}
	if s.Apps[0].Version != oldVersion {
		f.problem("%s, which has no network, is on %q before it has got a bundle", m.name, s.Apps[0].Version)
	}
	var channels []agent.ChannelPeers
	if err := m.ask(ctx, "peers", &channels); err != nil {
		return err
	}
	for _, ch := range channels {
		if len(ch.Peers) > 0 {
			f.problem("%s, which has no network, has %d neighbours", m.name, len(ch.Peers))
		}
	}
	file, err := f.bundle(ctx)
	if err != nil {
		return err
	}
	next := f.newMachine()
	next.site, next.peers = true, []string{s.Listen}
	if err := next.install(f.buildPath(oldVersion)); err != nil {
		return err
	}
	f.say("\n  a site without a network")
	err = each(f.machines[len(f.machines)-2:], func(on *machine) error {
		if on == next {
			return f.joinOne(ctx, next)
		}
		return f.carry(ctx, m, file)
	})
	if err != nil {
		return err
	}
	f.say("    %s  is new, and knows nobody but %s", next.name, m.name)
	return f.watch(ctx, []wave{{names: []string{next.name}}}, []*machine{next})
}

// carry has a machine import a bundle with the new version.
func (f *fleet) carry(ctx context.Context, m *machine, file string) error {
	if err := f.must(ctx, nil, m.env, m.args("agent", "import", file)...); err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	v, err := m.look(ctx, f.size)
	if err != nil {
		return err
	}
	if !v.confirmed {
		return fmt.Errorf("%s is %s after it got the bundle", m.name, v.state)
	}
	f.last = max(f.last, time.Since(f.began))
	f.say("    %s  imported %s  confirmed %s ✓", m.name, filepath.Base(file), v.finalVersion)
	return nil
}

// checkSite holds what a machine without a network says of the update against what can be.
func (f *fleet) checkSite(m *machine, got Machine) {
	switch {
	case got.OriginBytes != 0:
		f.problem("%s, which has no network, got %d bytes from the publisher", m.name, got.OriginBytes)
	case len(m.peers) == 0 && got.PeerBytes != 0:
		f.problem("%s, which got a bundle, got %d bytes from peers", m.name, got.PeerBytes)
	case len(m.peers) > 0 && got.PeerBytes < f.size:
		f.problem("%s accounts for %d bytes of a program of %d", m.name, got.PeerBytes, f.size)
	}
}
