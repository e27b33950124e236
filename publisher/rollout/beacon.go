package rollout

import (
	"context"
	"encoding/json"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/publisher/repo"
)

// maxAhead is how far ahead of the clock the last beacon may be dated and still be one
// that machines may have taken.
const maxAhead = 24 * time.Hour

// lastBeacon is the beacon of ch in the tree, if it is by the channel's key and for the
// manifest in force, run out or not; nil when there is none.
func lastBeacon(tree *repo.State, ch manifest.Channel, env []byte) *manifest.Beacon {
	if env == nil {
		return nil
	}
	// Without a clock of its own it takes what has run out, too.
	trust, _, err := manifest.Load(tree.Trust.Snapshot(), manifest.Options{TimeFloor: true})
	if err != nil {
		return nil
	}
	cycle, err := trust.Begin()
	if err != nil {
		return nil
	}
	cycle.Beacon(ch, env)
	b, ok := trust.LastBeacon(ch)
	if !ok {
		return nil
	}
	return &b
}

// claim is what the beacon in env says, whoever signed it and for whatever manifest:
// what is signed next has to be newer, and goes no further without a record.
func claim(env []byte) (b struct {
	Issued time.Time `json:"issued"`
	Hold   bool      `json:"hold"`
}) {
	if e, err := manifest.ParseEnvelope(env, manifest.TypeBeacon); err != nil || json.Unmarshal(e.Payload, &b) != nil {
		b.Issued, b.Hold = time.Time{}, false
	}
	return b
}

// sign returns the beacon that says s of ch's manifest, newer than the one in lastEnv, as
// an envelope that an agent takes: nothing else enters the tree.
func sign(ctx context.Context, key keys.Signer, tree *repo.State, ch *repo.Channel, s *State, lastEnv []byte, now time.Time) ([]byte, *manifest.Beacon, error) {
	issued := now.UTC().Truncate(time.Second)
	if last := claim(lastEnv).Issued; !last.Before(issued) && !last.After(now.Add(maxAhead)) {
		issued = last.Add(time.Second)
	}
	m := ch.Held.Manifest
	b := &manifest.Beacon{
		Repo: m.Repo, App: m.App, Channel: m.Channel, Epoch: m.Epoch, Sequence: m.Sequence, Manifest: ch.Held.Hash,
		Wave: s.Wave, Hold: s.Hold, Reason: s.Reason, Issued: issued, Expires: issued.Add(ch.Spec.StaleAfter),
	}
	payload, err := manifest.DraftBeacon(b)
	if err != nil {
		return nil, nil, err
	}
	sig, err := key.Sign(ctx, string(manifest.TypeBeacon), payload)
	if err != nil {
		return nil, nil, fault.New(fault.BadKey, "signing the beacon of %s: %w", ch.Name, err)
	}
	env := manifest.NewEnvelope(manifest.TypeBeacon, payload)
	if err := env.Attach(keys.Entry{KeyID: key.Public().ID(), Sig: sig}); err != nil {
		return nil, nil, err
	}
	signed := env.Marshal()
	trust, _, err := manifest.Load(tree.Trust.Snapshot(), manifest.Options{Clock: func() time.Time { return now }})
	if err != nil {
		return nil, nil, err
	}
	cycle, err := trust.Begin()
	if err != nil {
		return nil, nil, err
	}
	if lastEnv != nil {
		cycle.Beacon(ch.Name, lastEnv)
	}
	if _, events := cycle.Beacon(ch.Name, signed); cycle.Brake(ch.Name).Freshness != manifest.FreshCurrent || !taken(trust, ch.Name, b) {
		e := fault.New(fault.Policy, "machines would not take the beacon of %s", ch.Name)
		for _, event := range events {
			e.Line("%s", event.Detail)
		}
		return nil, nil, e.Line("It was not published.")
	}
	return signed, b, nil
}

func taken(t *manifest.Trust, ch manifest.Channel, b *manifest.Beacon) bool {
	got, ok := t.LastBeacon(ch)
	return ok && got.Issued.Equal(b.Issued) && got.Manifest == b.Manifest
}

// says reports whether b says all of s of the manifest with that hash.
func says(b *manifest.Beacon, s *State) bool {
	return b != nil && b.Manifest == s.Manifest && b.Wave == s.Wave && b.Hold == s.Hold && b.Reason == s.Reason
}

// due reports whether b should be renewed: well before it runs out, so that mirrors and
// machines that are seldom there find a fresh one.
func due(b *manifest.Beacon, now time.Time) bool {
	return now.Before(b.Issued.Add(-maxAhead)) || !now.Before(b.Issued.Add(b.Expires.Sub(b.Issued)/4))
}
