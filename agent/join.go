package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"shoal/agent/apply"
	"shoal/agent/cache"
	"shoal/agent/follow"
	"shoal/agent/source"
	"shoal/agent/state"
	"shoal/internal/control"
	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/manifest/link"
	"shoal/manifest/tree"
	"shoal/swarm"
	"shoal/swarm/fleet"
)

// Joined is what a join found and did.
type Joined struct {
	Fleet    manifest.FleetID `json:"fleet"`
	Name     string           `json:"name"` // of the fleet, for display
	Channel  manifest.Channel `json:"channel"`
	Version  string           `json:"version,omitempty"` // of the release that is offered; empty: none is published
	Sequence int64            `json:"sequence,omitempty"`
	SignedBy []string         `json:"signed_by,omitempty"` // names of the keys, or their ids
	Expires  time.Time        `json:"expires,omitzero"`
	Agent    keys.ID          `json:"agent"`
	FleetKey string           `json:"fleet_key,omitempty"` // file of the fleet's key; empty if the fleet is open
	Target   TargetReport     `json:"target"`
	Already  bool             `json:"already"`        // this machine had joined this fleet before
	TOFU     bool             `json:"tofu"`           // the fleet id came over the network, from the first server that was asked
	Note     string           `json:"note,omitempty"` // what is not well and does not keep it from joining

	offered *manifest.Artifact // what is to be installed here
}

// TargetReport is what join found where the program is, or will be.
type TargetReport struct {
	Path    string `json:"path"`
	Present bool   `json:"present"`
	Version string `json:"version,omitempty"` // where the offered release tells
	Free    int64  `json:"free"`              // bytes
}

// Join pins this machine to the fleet of l for the one app in cfg: verifies the chain
// of roots against the pin and the channel's manifest against the chain, checks that
// the target can be replaced, and only then writes: the pin, the agent's key, the
// trust. A second join of the same fleet changes nothing, except that it acknowledges
// a lost state; another fleet is pin_mismatch.
func Join(ctx context.Context, cfg Config, l *link.Link) (*Joined, error) {
	return join(ctx, cfg, l, joining{})
}

// JoinFrom is Join of a machine that reaches no source: the bundle at path has what it
// verifies. Nothing is installed from it; [Agent.Import] does that.
func JoinFrom(ctx context.Context, cfg Config, l *link.Link, path string) (*Joined, error) {
	b, err := source.OpenBundle(path)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	j, err := join(ctx, cfg, l, joining{from: b})
	if err != nil {
		return nil, inBundle(b, err)
	}
	return j, nil
}

// FirstUseLink makes a join link of what the server at url says of itself, for want of
// one from a person: whoever answers there, or on the way there, decides what this
// machine will run. Of cfg only the fleet's key counts.
func FirstUseLink(ctx context.Context, cfg Config, url string, ch manifest.Channel) (*link.Link, error) {
	m, err := cfg.member("")
	if err != nil {
		return nil, err
	}
	src, err := source.Open(url, source.Options{Transport: fleet.Transport(m), UserAgent: "shoal"})
	if err != nil {
		return nil, err
	}
	env, err := src.Document(ctx, tree.Root(1), manifest.MaxRoot)
	if err != nil {
		return nil, wrongKey(err)
	}
	e, err := manifest.ParseEnvelope(env, manifest.TypeRoot)
	if err != nil {
		return nil, err
	}
	return &link.Link{Repo: e.PayloadHash(), Channel: ch, At: []string{url}}, nil
}

// JoinOnFirstUse is Join with a link from [FirstUseLink]. That the pin came over the
// network is recorded, and told in every status.
func JoinOnFirstUse(ctx context.Context, cfg Config, l *link.Link) (*Joined, error) {
	return join(ctx, cfg, l, joining{tofu: true})
}

// joining is how a machine joins.
type joining struct {
	tofu bool
	from *source.Bundle // nil: over the network
}

func join(ctx context.Context, cfg Config, l *link.Link, how joining) (*Joined, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return nil, err
	}
	app := cfg.Apps[0]
	j := &Joined{Fleet: manifest.FleetID(l.Repo), Channel: l.Channel}
	pin, err := state.ReadPin(cfg.JoinFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		pin = &state.Pin{Repo: j.Fleet, TOFU: how.tofu}
	case err != nil:
		return nil, err
	default:
		j.Already = true
	}
	if err := sameFleet(cfg, pin, j.Fleet); err != nil {
		return nil, err
	}
	j.TOFU = pin.TOFU
	pin.Raise(l.MinRoot, l.Channel, l.MinSequence)
	if j.Target, err = checkTarget(cfg, app); err != nil {
		return nil, err
	}
	member, err := cfg.member("") // which leaves nothing behind if this comes to nothing
	if err != nil {
		return nil, err
	}
	sources, err := openSources(cfg, member)
	if err != nil {
		return nil, err
	}
	if how.from != nil {
		sources = []source.Source{how.from}
	}
	options := manifest.Options{Clock: cfg.Clock, Build: cfg.Build, TimeFloor: cfg.Time == "floor", AgentVersion: cfg.Version}
	if err := rehearse(ctx, j, app, pin, sources, options, cfg.Platform); err != nil {
		return nil, wrongKey(err)
	}
	if member != nil {
		j.FleetKey = cfg.FleetKeyFile
	}
	if err := checkRoom(cfg, app, j); err != nil {
		return nil, err
	}
	info, err := offeredInfo(ctx, how.from, j, member)
	if err != nil {
		return nil, err
	}
	if err := commit(ctx, cfg, j, pin, sources, options); err != nil || info == nil {
		return j, err
	}
	kept, err := cache.Open(cfg.CacheDir, cache.Options{})
	if err != nil {
		return j, err
	}
	return j, keepInfo(kept, info)
}

// offeredInfo is the info dict that the bundle has of the offered release, with which
// neighbours can be asked for it. It also tells whether the fleet has a key, which no
// server says here: without it this machine would give releases to strangers.
func offeredInfo(ctx context.Context, b *source.Bundle, j *Joined, m *fleet.Member) (*swarm.Info, error) {
	if b == nil || j.offered == nil {
		return nil, nil
	}
	p, ok := j.offered.Usable()
	if !ok {
		return nil, nil
	}
	info, err := infoIn(ctx, b, p)
	if err == nil && info != nil && info.Private() && m == nil {
		return nil, fault.New(fault.Config, "this fleet has a key, and this machine has not got it").
			Line("The release in the bundle is for members alone. Nothing was changed.").
			Do("get the file from the publisher, apart from the link, and: shoal agent join LINK --from BUNDLE --fleet-key FILE")
	}
	return info, err
}

func sameFleet(cfg Config, pin *state.Pin, fleet manifest.FleetID) error {
	found := func(where, what string) error {
		return fault.New(fault.PinMismatch, "this machine belongs to another fleet").
			Line("The link is for %s.", fleet).
			Line("%s says %s.", where, what).
			Line("Nothing was changed.").
			Do("shoal agent leave, and join again, if the machine really moves to the other fleet").
			Fact("pin", what).Fact("found", fleet.String())
	}
	if pin.Repo != fleet {
		return found(cfg.JoinFile, pin.Repo.String())
	}
	if cfg.FleetID != "" && cfg.FleetID != fleet.String() {
		return found("fleet_id in the configuration", cfg.FleetID)
	}
	return nil
}

// rehearse verifies everything in a directory that is thrown away, so that a fleet that
// does not verify leaves nothing behind.
func rehearse(ctx context.Context, j *Joined, app AppConfig, pin *state.Pin, sources []source.Source, o manifest.Options, host manifest.Platform) error {
	dir, err := os.MkdirTemp("", "shoal-join-")
	if err != nil {
		return coded(err, "joining")
	}
	defer os.RemoveAll(dir)
	store, err := state.Open(dir, filepath.Join(dir, "anchor.json"))
	if err != nil {
		return err
	}
	defer store.Close()
	f := follow.New(follow.Config{Store: store, Pin: pin, Channels: []manifest.Channel{j.Channel}, Sources: sources, Options: o})
	report, err := f.Cycle(ctx, follow.Ask{Force: true}, j.Channel)
	if err != nil {
		return err
	}
	if report.Err != nil {
		return report.Err
	}
	t, err := f.Reread(false)
	if err != nil {
		return err
	}
	root := t.Root()
	j.Name = root.Fleet
	for _, e := range report.Events {
		if e.Code == fault.ClockBehind || e.Code == fault.ClockSkew {
			j.remark("set the clock: " + e.Detail)
		}
	}
	pin.Root = json.RawMessage(t.Snapshot().Roots[0])
	out := report.Outcomes[0]
	if errors.Is(out.Err, fault.NotFound) {
		j.remark("nothing is published in this channel yet")
		return nil
	}
	if out.Err != nil {
		return out.Err
	}
	m := out.Verified.Manifest
	j.Version, j.Sequence, j.Expires = m.Release.Version, m.Sequence, m.Expires
	j.SignedBy = keyNames(root, out.Verified.SignedBy)
	host.Variant = app.Variant
	a, err := out.Verified.Select(host)
	if err != nil {
		j.remark(err.Error())
		return nil
	}
	j.offered = a
	if j.Target.Present && fileHas(ctx, app.Target, a) {
		j.Target.Version = m.Release.Version
	}
	return nil
}

// remark adds to the note.
func (j *Joined) remark(text string) {
	if j.Note != "" {
		text = j.Note + "; " + text
	}
	j.Note = text
}

// fileHas reports whether the file at path is the artifact.
func fileHas(ctx context.Context, path string, a *manifest.Artifact) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return cache.Check(ctx, f, a.SHA256, a.Length) == nil
}

// keyNames are the names people gave the keys.
func keyNames(r *manifest.Root, ids []keys.ID) []string {
	var names []string
	for _, id := range ids {
		name := string(id)
		if k, err := keys.ParsePublicKey(r.Keys[id]); err == nil && k.Comment() != "" {
			name = k.Comment()
		}
		names = append(names, name)
	}
	return names
}

// commit writes what was found good. The pin comes first: with it alone a second join,
// or the agent itself, can build the rest.
func commit(ctx context.Context, cfg Config, j *Joined, pin *state.Pin, sources []source.Source, o manifest.Options) error {
	store, err := openAlone(ctx, cfg)
	if errors.Is(err, fault.Locked) && j.Already {
		if s, rerr := ReadStatus(cfg.StateDir); rerr == nil {
			j.Agent = s.Agent // the agent is running: everything but the link's floors is there
			return raiseFloors(ctx, cfg, pin)
		}
	}
	if err != nil {
		return err
	}
	defer store.Close()
	m, err := store.Read()
	if err != nil {
		return err
	}
	if m.Known && m.Snapshot.State.Repo != j.Fleet {
		return follow.PinMismatch(manifest.Digest(j.Fleet), manifest.Digest(m.Snapshot.State.Repo), cfg.StateDir)
	}
	if m.Local.Checker != nil {
		return fault.New(fault.Usage, "%s is a checker's state", cfg.StateDir).Do("choose another --state DIR")
	}
	key, _, err := store.Identity(ctx)
	if err != nil {
		return err
	}
	j.Agent = key.Public().ID()
	if err := cfg.keepFleetKeys(); err != nil {
		return err
	}
	if err := pin.Write(cfg.JoinFile); err != nil {
		return err
	}
	f := follow.New(follow.Config{Store: store, Pin: pin, Channels: []manifest.Channel{j.Channel}, Sources: sources, Options: o})
	report, err := f.Cycle(ctx, follow.Ask{Force: true}, j.Channel)
	if err != nil {
		return err
	}
	if report.Err != nil {
		return report.Err
	}
	local := f.Local()
	local.LostAt = time.Time{} // joining again is an operator's acknowledgement
	return f.SetLocal(local)
}

// raiseFloors writes a pin with higher floors under the agent that is at work, and has it
// read them.
func raiseFloors(ctx context.Context, cfg Config, pin *state.Pin) error {
	if err := pin.Write(cfg.JoinFile); err != nil {
		return err
	}
	client, err := control.Dial(ctx, cfg.StateDir, "agent")
	if errors.Is(err, control.ErrNotRunning) {
		return nil // a command holds the lock; who comes next reads the file
	}
	if err != nil {
		return err
	}
	return client.Do(ctx, "read-join", struct{}{}, nil, &struct{}{})
}

// readJoin has the floors of join.json count that a second join has raised.
func (a *Agent) readJoin(ctx context.Context) error {
	pin, err := state.ReadPin(a.cfg.JoinFile)
	if err != nil {
		return err
	}
	if err := checkPin(a.cfg, pin); err != nil {
		return err
	}
	return a.follow.SetPin(ctx, pin)
}

// checkTarget says whether the program can be replaced where it is, or be put there.
func checkTarget(cfg Config, app AppConfig) (TargetReport, error) {
	r := TargetReport{Path: app.Target}
	dir := app.Target
	if app.Kind != manifest.KindTree {
		dir = filepath.Dir(app.Target)
		if fi, err := os.Stat(app.Target); err == nil && !fi.Mode().IsRegular() {
			return r, fault.New(fault.Config, "the target %q is not a file", app.Target)
		}
	}
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		return r, fault.New(fault.Config, "the target's directory %q is not there", dir).
			Do("make it first, with an owner who may install programs there: mkdir -p %s", dir)
	}
	now, err := preflightTarget(cfg, app, 0)
	if err != nil {
		return r, err
	}
	r.Present = now.Present
	r.Free, err = cache.Free(dir)
	return r, err
}

// preflightTarget asks the engine whether a release of length bytes could be installed,
// without leaving anything behind.
func preflightTarget(cfg Config, app AppConfig, length int64) (apply.Installed, error) {
	program, err := app.program()
	if err != nil {
		return apply.Installed{}, err
	}
	engine, err := apply.New(apply.Options{StateDir: filepath.Join(cfg.StateDir, "apply"), Logger: cfg.Logger})
	if err != nil {
		return apply.Installed{}, err
	}
	if err := engine.Preflight(program.Target, apply.Release{Length: length}); err != nil {
		return apply.Installed{}, err
	}
	return engine.Installed(program.Target)
}

// checkRoom says whether the offered release, if it is not here yet, has room.
func checkRoom(cfg Config, app AppConfig, j *Joined) error {
	if j.offered == nil || j.Target.Version != "" {
		return nil
	}
	what := app.Name + " " + j.Version
	if _, err := preflightTarget(cfg, app, j.offered.Length); err != nil {
		return noSpace(err, what, cfg.CacheDir, nil, 0)
	}
	p, ok := j.offered.Usable()
	if !ok {
		return nil
	}
	need := cfg.Disk.Reserve + p.Length + besides(cfg.CacheDir, apply.Target{Path: app.Target}, j.offered.Length)
	return noSpace(cache.Room(there(cfg.CacheDir), need), what, cfg.CacheDir, nil, 0)
}

// Leave ends this machine's membership: pin, state, anchor, the agent's key, the fleet's
// key, downloads and records go; the programs stay as they are.
func Leave(ctx context.Context, cfg Config) error {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return err
	}
	if _, err := os.Stat(cfg.StateDir); errors.Is(err, fs.ErrNotExist) {
		return removePin(cfg)
	}
	store, err := openAlone(ctx, cfg)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := unfinished(ctx, cfg); err != nil {
		return err
	}
	if err := removePin(cfg); err != nil {
		return err
	}
	if err := store.Forget(); err != nil {
		return err
	}
	if err := cfg.leaveFleet(); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(cfg.StateDir, "apply")); err != nil {
		return coded(err, "leaving")
	}
	return cache.Remove(cfg.CacheDir)
}

// unfinished finishes an update that a crash interrupted, or refuses to leave in the
// middle of it: its record is what puts the old program back.
func unfinished(ctx context.Context, cfg Config) error {
	engine, err := apply.New(apply.Options{StateDir: filepath.Join(cfg.StateDir, "apply"), Logger: cfg.Logger})
	if err != nil {
		return err
	}
	for _, app := range cfg.Apps {
		program, err := app.program()
		if err != nil {
			return err
		}
		r, err := engine.Recover(ctx, program)
		if err != nil && (r.State == apply.Idle || r.State == apply.Confirming) {
			return err
		}
	}
	return nil
}

func removePin(cfg Config) error {
	if err := os.Remove(cfg.JoinFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return coded(err, "removing the pin")
	}
	return nil
}
