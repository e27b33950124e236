// Package publisher turns a build into a signed release and gives it away.
//
// [Publisher.Publish] hashes files, drafts the manifest, has the release keys sign it
// and puts everything into the repository: a tree of static files that any web server
// can serve. Nothing enters the tree that an agent would refuse, because the release is
// opened with the same code and clock rules before it is stored, and whoever reads the
// tree at any instant, a crash included, finds the old release whole or the new one:
// the data is there before the manifest that names it.
//
// [Publisher.Serve] is the origin: it serves that tree over HTTP, seeds what current
// manifests offer over BitTorrent and answers for it as a tracker. It holds no key; a
// machine that serves can be broken into without a release being forged.
//
// The tree is the only truth. What was released last is read from it, verified, each
// time; there is no other state that could disagree.
package publisher

import (
	"log/slog"
	"path/filepath"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
)

// Publisher publishes to one repository. Its methods may be used by several goroutines
// and processes at once: a publish takes the repository's lock.
type Publisher struct {
	cfg  Config
	repo *repo.Repo
	log  *slog.Logger
	now  func() time.Time
	step func(name string) error // asked before each change on the disk; nil but in tests
}

// Open returns the publisher cfg describes. Its repository must have been made by Init.
func Open(cfg Config) (*Publisher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r, err := repo.Open(cfg.Store)
	if err != nil {
		return nil, err
	}
	p := &Publisher{cfg: cfg, repo: r, log: cfg.Logger, now: cfg.Clock}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.now == nil {
		p.now = time.Now
	}
	return p, nil
}

// Tree is the directory of static files that is the repository: what a web server
// would serve.
func (p *Publisher) Tree() string { return p.repo.Tree() }

// Channel returns the channel that name means: "APP/CHANNEL", or "CHANNEL" where the
// app is clear from the configuration or the only one in root. An empty name means the
// only channel there is.
func (p *Publisher) Channel(name string) (manifest.Channel, error) {
	root, err := p.repo.Root()
	if err != nil {
		return manifest.Channel{}, err
	}
	return findChannel(root, p.cfg.App, name)
}

func findChannel(root *manifest.Root, app, name string) (manifest.Channel, error) {
	var fits []manifest.Channel
	var all []string
	for i := range root.Channels {
		ch := root.Channels[i].Name()
		all = append(all, ch.String())
		if name == ch.String() || (name == ch.Name || name == "") && (app == "" || app == ch.App) {
			fits = append(fits, ch)
		}
	}
	switch {
	case len(fits) == 1:
		return fits[0], nil
	case len(fits) > 1 && name == "":
		return manifest.Channel{}, fault.New(fault.Usage, "which channel?").
			Line("This fleet's root has %s.", list(all)).Do("name one: --channel %s", fits[0])
	case len(fits) > 1:
		return manifest.Channel{}, fault.New(fault.Usage, "channel %q could be of several apps", name).
			Line("This fleet's root has %s.", list(all)).Do("name the app too: --channel %s", fits[0])
	}
	if name == "" {
		name = app
	}
	return manifest.Channel{}, fault.New(fault.ChannelGone, "this fleet's root has no channel %q", name).
		Line("It has %s.", list(all)).Fact("channels", all)
}

// NewestRoot is the file of the newest root in the repository.
func (p *Publisher) NewestRoot() (string, error) {
	root, err := p.repo.Root()
	if err != nil {
		return "", err
	}
	return filepath.Join(p.Tree(), filepath.FromSlash(tree.Root(root.Version))), nil
}
