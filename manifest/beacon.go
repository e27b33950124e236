package manifest

import (
	"time"

	"shoal/internal/fault"
)

// Beacon says what is current in a channel. An online key signs it every few hours; it
// may slow a rollout down, inside the signed plan, and never widen it.
type Beacon struct {
	Repo            Digest
	App, Channel    string
	Epoch, Sequence int64
	Manifest        Digest // payload hash of the manifest that is current
	Wave            int64  // the highest gated wave that may open; 0 opens none
	Hold            bool   // start no new install of what that manifest offers
	Reason          string
	Issued, Expires time.Time
}

// Name returns the channel the beacon is for.
func (b *Beacon) Name() Channel { return Channel{b.App, b.Channel} }

// Order returns the place of the manifest the beacon names.
func (b *Beacon) Order() Order { return Order{b.Epoch, b.Sequence} }

type wireBeacon struct {
	Repo     *string `json:"repo"`
	App      *string `json:"app"`
	Channel  *string `json:"channel"`
	Epoch    *int64  `json:"epoch"`
	Sequence *int64  `json:"sequence"`
	Manifest *string `json:"manifest"`
	Wave     *int64  `json:"wave"`
	Hold     *bool   `json:"hold"`
	Reason   *string `json:"reason,omitempty"`
	Issued   *string `json:"issued"`
	Expires  *string `json:"expires"`
}

// parseBeacon reads every member: all that can be wrong with one by itself is malformed.
func parseBeacon(payload []byte, doc string) (*Beacon, error) {
	var w wireBeacon
	if err := decodeWire(payload, &w, doc); err != nil {
		return nil, err
	}
	f := &fields{doc: doc}
	b := new(Beacon)
	f.place(w.Repo, w.App, w.Channel, w.Epoch, w.Sequence, &b.Repo, &b.App, &b.Channel, &b.Epoch, &b.Sequence)
	b.Manifest = f.prefixed("manifest", w.Manifest)
	if present(f, "wave", w.Wave) {
		b.Wave = *w.Wave
	}
	if present(f, "hold", w.Hold) {
		b.Hold = *w.Hold
	}
	b.Reason = f.text("reason", w.Reason, maxText, false)
	b.Issued, b.Expires = f.time("issued", w.Issued), f.time("expires", w.Expires)
	if f.err == nil && !b.Issued.Before(b.Expires) {
		f.fail(fault.Malformed, "expires", "(%s) is not after issued (%s)", *w.Expires, *w.Issued)
	}
	if f.err != nil {
		return nil, f.err
	}
	return b, nil
}

func (b *Beacon) wire() wireBeacon {
	return wireBeacon{
		Repo: new(b.Repo.Prefixed()), App: new(b.App), Channel: new(b.Channel),
		Epoch: new(b.Epoch), Sequence: new(b.Sequence), Manifest: new(b.Manifest.Prefixed()),
		Wave: new(b.Wave), Hold: new(b.Hold), Reason: optional(b.Reason),
		Issued: formatTime(b.Issued), Expires: formatTime(b.Expires),
	}
}
