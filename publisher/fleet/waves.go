package fleet

import (
	"time"

	"shoal/manifest"
)

// Count is how the approved machines of one wave stand. Target counts all of them, and
// every one is in one of the others.
type Count struct {
	Target  int `json:"target"`
	Healthy int `json:"healthy"` // an artifact of the manifest is confirmed and running
	Working int `json:"working"` // neither of these yet
	Failed  int `json:"failed"`
	NotSeen int `json:"not_seen"` // for a day
}

// Waves counts, for each wave of m's plan, the approved machines that follow ch, each in
// the first wave that has it; a plan without waves is one entry with all of them.
// Machines that are in no wave are not counted. A machine has failed when it reported, at
// or after failedSince by this publisher's clock, that an artifact of m failed or was
// taken back, and has not begun again.
func (s *Store) Waves(ch manifest.Channel, m *manifest.Manifest, failedSince, now time.Time) ([]Count, error) {
	counts := make([]Count, 1)
	if m.Rollout != nil && len(m.Rollout.Waves) > 0 {
		counts = make([]Count, len(m.Rollout.Waves))
	}
	ours := map[manifest.Digest]bool{}
	for i := range m.Artifacts {
		ours[m.Artifacts[i].SHA256] = true
	}
	for _, a := range s.snapshot(now) {
		r, standing := a.app(ch)
		if r == nil || !a.Approved {
			continue
		}
		wave := 0
		if m.Rollout != nil && len(m.Rollout.Waves) > 0 {
			if wave = m.Rollout.Wave(manifest.Cohort(m.Rollout.Salt, a.ID), a.rings()) - 1; wave < 0 {
				continue
			}
		}
		c := &counts[wave]
		c.Target++
		switch {
		case a.NotSeen:
			c.NotSeen++
		case r.State == manifest.StateHealthy && ours[r.SHA256]:
			c.Healthy++
		case (r.State == manifest.StateFailed || r.State == manifest.StateReverted) &&
			ours[standing.Failed] && !standing.FailedAt.Before(failedSince):
			c.Failed++
		default:
			c.Working++
		}
	}
	return counts, nil
}

// snapshot is every machine, in the order of their ids.
func (s *Store) snapshot(now time.Time) []*Agent {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]*Agent, 0, len(s.ids))
	for _, id := range s.ids {
		all = append(all, s.view(s.agents[id], now))
	}
	return all
}
