// Package rollout steers rollouts by the online brake: it signs the beacons that open a
// plan's gates, wave by wave, while the machines that went before are well, and that hold
// a release when they are not.
//
// What it decides stays inside the plan that the release keys have signed. Machines read
// that plan themselves: a beacon opens no wave before its signed time, installs nothing,
// and adds nobody to a wave. Whoever steals its key can hurry a gate to that time or hold
// a rollout up, and no more. When it stops, so do the gates: what is shut stays shut, and
// an open gate shuts when the last beacon runs out.
//
// A decision is a pure function of the signed plan, of what is remembered ([State]) and of
// what approved machines report ([Count]); [Controller] makes them come true. It writes
// down each one before it takes effect, so that a restart goes on where it was.
package rollout

import (
	"time"

	"shoal/manifest"
)

// Count is how the machines of one wave stand: those that are approved, follow the
// channel and are in no wave before.
type Count struct {
	Target  int `json:"target"`   // all of them
	Healthy int `json:"healthy"`  // confirmed on what the manifest offers
	Working int `json:"working"`  // seen, and neither
	Failed  int `json:"failed"`   // failed or reverted, since the moment asked for
	NotSeen int `json:"not_seen"` // for a day; in none of the three before
}

// Seen is how many of the machines have reported within a day.
func (c Count) Seen() int { return c.Healthy + c.Working + c.Failed }

// Counter counts the machines of each wave of m's plan, in its order. Failures before
// failedSince do not count.
type Counter func(ch manifest.Channel, m *manifest.Manifest, failedSince, now time.Time) ([]Count, error)

// The kinds of events. They are what the audit log, webhooks and scripts read, and are
// never renamed.
const (
	Followed = "rollout.followed" // a new manifest is steered from now on
	Opened   = "rollout.opened"   // a gate was opened because the wave before is well
	Promoted = "rollout.promoted" // a gate was opened by a person
	Halted   = "rollout.halted"   // held: machines fail, or a person says so
	Paused   = "rollout.paused"   // held by a person, for now
	Resumed  = "rollout.resumed"  // the hold was ended by a person
	Finished = "rollout.finished" // every wave is open
)

// Event is a decision.
type Event struct {
	Time     time.Time        `json:"time"`
	Kind     string           `json:"event"`
	Channel  manifest.Channel `json:"channel"`
	Version  string           `json:"version"`
	Epoch    int64            `json:"epoch"`
	Sequence int64            `json:"sequence"`
	Wave     int64            `json:"wave"`             // the highest gated wave that may open, after it
	Hold     bool             `json:"hold"`             // after it
	By       string           `json:"by"`               // "controller" or "operator"
	Reason   string           `json:"reason,omitempty"` // one line, for people
	Counts   []Count          `json:"counts,omitempty"` // that led to it
}
