package state

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/strictjson"
)

const maxPinFile = 256 << 10 // a root envelope and a few numbers

// AnyChannel is the channel name under which a checker keeps the least order of every
// channel it is asked for. It is no name a channel can have.
const AnyChannel = "*"

// Pin is what a machine was told of its fleet when it joined, from outside the
// network: which fleet, and the least that its documents must be. A joined machine
// has it in join.json, the one home of the pin; a checker has it in its state.
type Pin struct {
	Repo        manifest.FleetID `json:"repo"`
	Root        json.RawMessage  `json:"root,omitempty"` // root version 1, so that joining needs it from nowhere
	MinRoot     int64            `json:"min_root,omitempty"`
	MinSequence map[string]Order `json:"min_sequence,omitempty"` // by "app/channel", or [AnyChannel]
	TOFU        bool             `json:"tofu"`                   // the pin itself came over the network
	ResetAt     time.Time        `json:"reset_at,omitzero"`      // when an operator put it in the place of another fleet's
}

// Order is a manifest's place in its channel.
type Order struct {
	Epoch    int64 `json:"epoch"`
	Sequence int64 `json:"sequence"`
}

// Least returns the floor of ch, and whether there is one.
func (p *Pin) Least(ch manifest.Channel) (manifest.Order, bool) {
	o, ok := p.MinSequence[ch.String()]
	if !ok {
		o, ok = p.MinSequence[AnyChannel]
	}
	return manifest.Order(o), ok
}

// Raise adds floors to the pin, where they are higher than its own.
func (p *Pin) Raise(minRoot int64, ch manifest.Channel, min manifest.Order) {
	p.MinRoot = max(p.MinRoot, minRoot)
	if have, ok := p.MinSequence[ch.String()]; min != (manifest.Order{}) && (!ok || min.Compare(manifest.Order(have)) > 0) {
		p.MinSequence = maps.Clone(p.MinSequence)
		if p.MinSequence == nil {
			p.MinSequence = map[string]Order{}
		}
		p.MinSequence[ch.String()] = Order(min)
	}
}

// ReadPin reads join.json. Without one the error matches fs.ErrNotExist.
func ReadPin(path string) (*Pin, error) {
	b, err := readFile(path, maxPinFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	bad := func(err error) error {
		return fault.New(fault.Config, "reading the pin %q: %w", path, err).
			Line("It says which fleet this machine belongs to; without it nothing new is trusted.").
			Do("shoal agent join LINK, or have your configuration management write the file again")
	}
	if err != nil {
		return nil, bad(err)
	}
	if err := strictjson.Check(b); err != nil {
		return nil, bad(err)
	}
	var p Pin
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, bad(err)
	}
	if p.Repo.IsZero() {
		return nil, bad(errors.New(`it has no "repo"`))
	}
	for ch := range p.MinSequence {
		if _, err := manifest.ParseChannel(ch); err != nil && ch != AnyChannel {
			return nil, bad(err)
		}
	}
	return &p, nil
}

// Write writes join.json, readable by all.
func (p *Pin) Write(path string) error {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fault.New(fault.IO, "encoding the pin: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return failure(err, "making the configuration directory")
	}
	if err := durable.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return failure(err, "writing the pin")
	}
	return nil
}
