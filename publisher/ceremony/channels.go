package ceremony

import (
	"time"

	"shoal/manifest"
	"shoal/publisher/repo"
)

// ChannelStatus is a channel of a fleet and what it released last.
type ChannelStatus struct {
	ChannelInfo
	Last    *LastRelease `json:"last,omitempty"`    // nil: nothing in this epoch
	Problem string       `json:"problem,omitempty"` // why what is stored cannot be believed
}

// LastRelease is what a channel released last.
type LastRelease struct {
	Version  string    `json:"version"`
	Sequence int64     `json:"sequence"`
	Issued   time.Time `json:"issued"`
	Expires  time.Time `json:"expires"`
	DaysLeft int       `json:"days_left"`
	// State is "current", "expired", or "unsigned" when the keys of today have not signed
	// it enough: root has changed since.
	State string `json:"state"`
}

// Channels are those of the newest root.
func (f *Fleet) Channels() []ChannelStatus {
	list := []ChannelStatus{}
	for i := range f.state.Channels {
		list = append(list, f.status(&f.state.Channels[i]))
	}
	return list
}

// Channel is one of them.
func (f *Fleet) Channel(name manifest.Channel) (*ChannelStatus, error) {
	ch, err := f.state.Channel(name)
	if err != nil {
		return nil, err
	}
	s := f.status(ch)
	return &s, nil
}

func (f *Fleet) status(ch *repo.Channel) ChannelStatus {
	s := ChannelStatus{ChannelInfo: *channelInfo(f.Root, ch.Spec)}
	if ch.Err != nil {
		s.Problem = ch.Err.Error()
	}
	m := ch.Latest
	if m == nil || m.Epoch != ch.Spec.Epoch {
		return s
	}
	s.Last = &LastRelease{
		Version: m.Release.Version, Sequence: m.Sequence, Issued: m.Issued, Expires: m.Expires,
		DaysLeft: int(m.Expires.Sub(f.now) / (24 * time.Hour)), State: "current",
	}
	switch {
	case ch.Held == nil:
		s.Last.State = "unsigned"
	case !f.now.Before(m.Expires):
		s.Last.State = "expired"
	}
	return s
}
