package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"time"

	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/manifest"
)

// ResetDone is what Reset did.
type ResetDone struct {
	Fleet   manifest.FleetID `json:"fleet_id"`
	Before  manifest.FleetID `json:"before"`
	Already bool             `json:"already"` // it was so, and nothing was changed
}

// Reset makes a machine that has joined one fleet trust another, whose first root the
// operator has brought and whose id they have from elsewhere: the way on when a threshold
// of root keys was stolen and no document can be believed any more. Programs, records and
// the agent's key stay; the orders of the old fleet mean nothing in the new one. The agent
// must not be running. Codes: pin_mismatch, config, locked, and those of a bad root.
func Reset(ctx context.Context, cfg Config, root []byte, id manifest.Digest) (*ResetDone, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return nil, err
	}
	trust, _, err := manifest.Pin(root, id, manifest.Options{Clock: cfg.Clock})
	if err != nil {
		return nil, err
	}
	done := &ResetDone{Fleet: manifest.FleetID(id)}
	if cfg.FleetID != "" && cfg.FleetID != done.Fleet.String() {
		return nil, fault.New(fault.PinMismatch, "fleet_id in the configuration names another fleet").
			Line("It is %s; the new root is %s. Nothing was changed.", cfg.FleetID, done.Fleet).
			Do("set fleet_id to the new fleet, or take it out")
	}
	pin, err := state.ReadPin(cfg.JoinFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Config, "this machine has not joined a fleet").Line("Nothing was changed.").Do("shoal agent join LINK")
	}
	if err != nil {
		return nil, err
	}
	done.Before = pin.Repo
	store, err := openAlone(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	if pin.Repo == done.Fleet && remembers(store, done.Fleet) {
		done.Already = true
		return done, nil
	}
	if err := unfinished(ctx, cfg); err != nil {
		return nil, err
	}
	// What is trusted goes either way; what is remembered beside it is kept if it can be read.
	var local state.Local
	if m, err := store.Read(); err == nil {
		local = state.Local{Installed: m.Local.Installed, Counters: m.Local.Counters, HoldUntil: m.Local.HoldUntil, Pins: m.Local.Pins}
	}
	// The pin first: between the two the machine trusts nothing, and says so.
	fresh := &state.Pin{Repo: done.Fleet, Root: json.RawMessage(root), ResetAt: cfg.Clock().UTC().Truncate(time.Second)}
	if pin.Repo == done.Fleet { // half way when a crash came: what it must at least be was said of this fleet
		fresh.MinRoot, fresh.MinSequence, fresh.ResetAt = pin.MinRoot, pin.MinSequence, pin.ResetAt
	}
	if err := fresh.Write(cfg.JoinFile); err != nil {
		return nil, err
	}
	return done, store.Reset(trust.Snapshot(), local)
}

// remembers reports whether the machine knows more of the fleet than its first root: in
// its state, in either copy of it, or in what a lost state has left. To be told again
// what it was told before must not be a way back to an older release; where the state is
// damaged, the agent builds it again from all of that.
func remembers(store *state.Store, fleet manifest.FleetID) bool {
	m, err := store.Read()
	if err != nil {
		have, err := state.FleetID(store.Dir())
		return err == nil && have == fleet
	}
	if m.Known {
		return m.Snapshot.State.Repo == fleet
	}
	if len(m.Snapshot.Manifests) == 0 && len(m.Snapshot.Roots) < 2 {
		return false
	}
	first, err := manifest.ParseEnvelope(m.Snapshot.Roots[0], manifest.TypeRoot)
	return err == nil && manifest.FleetID(first.PayloadHash()) == fleet
}
