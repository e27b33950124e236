package publisher

import (
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
)

// ReleaseInfo is one release of a channel, as it was published.
type ReleaseInfo struct {
	Channel   manifest.Channel `json:"channel"`
	Version   string           `json:"version"`
	Epoch     int64            `json:"epoch"`
	Sequence  int64            `json:"sequence"`
	Issued    time.Time        `json:"issued"`
	Expires   time.Time        `json:"expires"`
	State     string           `json:"state"` // "current", "expired" (and still the newest), "replaced"
	Severity  string           `json:"severity,omitempty"`
	Notes     string           `json:"notes,omitempty"`
	Manifest  string           `json:"manifest"` // payload hash
	SignedBy  []SignedBy       `json:"signed_by"`
	Artifacts []ArtifactResult `json:"artifacts"`
	Blocked   []BlockedInfo    `json:"blocked,omitempty"`
	Attached  []AttachedInfo   `json:"attachments,omitempty"`
}

// The states of a release.
const (
	ReleaseCurrent  = "current"
	ReleaseExpired  = "expired"
	ReleaseReplaced = "replaced"
)

// BlockedInfo is content that a release forbids.
type BlockedInfo struct {
	SHA256 manifest.Digest `json:"sha256"`
	Reason string          `json:"reason,omitempty"`
}

// AttachedInfo is a file that goes with a release.
type AttachedInfo struct {
	Name   string          `json:"name"`
	Length int64           `json:"length"`
	SHA256 manifest.Digest `json:"sha256"`
}

// Releases returns the releases of the channels, newest first in each. No channel
// means all of them. What is current was verified; what was replaced is told as it was
// stored.
func (p *Publisher) Releases(channels ...manifest.Channel) ([]ReleaseInfo, error) {
	state, err := p.repo.Read()
	if err != nil {
		return nil, err
	}
	if len(channels) == 0 {
		for i := range state.Channels {
			channels = append(channels, state.Channels[i].Name)
		}
	}
	infos := []ReleaseInfo{}
	for _, name := range channels {
		ch, err := state.Channel(name)
		if err != nil {
			return nil, err
		}
		if ch.Err != nil {
			return nil, ch.Err
		}
		past, err := p.repo.History(name, ch.Last)
		if err != nil {
			return nil, err
		}
		names := signers(state.Trust.Root())
		for i := range past {
			infos = append(infos, p.info(&past[i], ch, names))
		}
	}
	return infos, nil
}

// Release returns the newest release of ch that has the version, or that is the order
// "epoch.sequence".
func (p *Publisher) Release(ch manifest.Channel, version string) (*ReleaseInfo, error) {
	all, err := p.Releases(ch)
	if err != nil {
		return nil, err
	}
	var have []string
	for i := range all {
		if all[i].Version == version || (manifest.Order{Epoch: all[i].Epoch, Sequence: all[i].Sequence}).String() == version {
			return &all[i], nil
		}
		have = append(have, all[i].Version)
	}
	return nil, fault.New(fault.NotFound, "%s has no release %q", ch, version).
		Line("It has %s.", list(have)).Do("shoal release list")
}

// signers gives the keys of root their names.
func signers(root *manifest.Root) map[keys.ID]string {
	names := map[keys.ID]string{}
	for id, line := range root.Keys {
		names[id] = string(id)
		if k, err := keys.ParsePublicKey(line); err == nil {
			names[id] = keyName(k)
		}
	}
	return names
}

func (p *Publisher) info(past *repo.Past, ch *repo.Channel, names map[keys.ID]string) ReleaseInfo {
	m := past.Manifest
	info := ReleaseInfo{
		Channel: m.Name(), Version: m.Release.Version, Epoch: m.Epoch, Sequence: m.Sequence,
		Issued: m.Issued, Expires: m.Expires, State: ReleaseReplaced,
		Severity: m.Release.Severity, Notes: m.Release.Notes,
		Manifest: past.Envelope.PayloadHash().Prefixed(), SignedBy: []SignedBy{}, Artifacts: []ArtifactResult{},
	}
	if ch.Held != nil && ch.Held.Hash == past.Envelope.PayloadHash() {
		info.State = ReleaseCurrent
		if !p.now().Before(m.Expires) {
			info.State = ReleaseExpired
		}
	}
	for _, s := range past.Envelope.Signatures {
		name := names[s.KeyID]
		if name == "" {
			name = string(s.KeyID) // root has dropped it since
		}
		info.SignedBy = append(info.SignedBy, SignedBy{Name: name, ID: s.KeyID})
	}
	for i := range m.Artifacts {
		a := &m.Artifacts[i]
		one := ArtifactResult{Platform: a.Platform().String(), Length: a.Length, SHA256: a.SHA256}
		if pl, ok := a.Usable(); ok {
			one.Infohash, one.File = pl.Infohash, tree.Data(pl.SHA256)
		}
		info.Artifacts = append(info.Artifacts, one)
	}
	for _, b := range m.Blocked {
		info.Blocked = append(info.Blocked, BlockedInfo(b))
	}
	info.Attached = attachedInfos(m)
	return info
}

// metainfo is the .torrent and the magnet link of a build, for stock clients. They
// lead to the mirrors that have a URL, and to the public URL, where there is one: last,
// since some clients stay with the first, and strangers reach no fleet with a key.
func (p *Publisher) metainfo(m *manifest.Manifest, b *build) (torrent []byte, magnet string) {
	var trackers, webseeds []string
	if u, err := parsePublicURL(p.cfg.Serve.PublicURL); err == nil {
		trackers = []string{u.String() + "/announce"}
	}
	for _, place := range p.cfg.Places() {
		if u, err := parsePublicURL(place); err == nil {
			webseeds = append(webseeds, u.String()+"/"+tree.Release(m.App, m.Release.Version, b.artifact.Platform()))
		}
	}
	return b.info.Metainfo(trackers, webseeds), b.info.Magnet(trackers, webseeds)
}
