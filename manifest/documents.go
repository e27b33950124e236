package manifest

import (
	"time"

	"shoal/keys"
)

// Root names the keys of a fleet, what each may sign, and how many must. It is
// versioned, and each version is signed by the threshold of the one before and by its
// own.
type Root struct {
	Version  int64
	Fleet    string  // display name; the fleet's identity is the hash of root version 1
	ID, Prev *Digest // payload hashes of version 1 and of the version before; nil in version 1
	Issued   time.Time
	Expires  time.Time
	Reason   string // why this version was made; may be empty
	Root     RoleSpec
	Channels []ChannelSpec
	Keys     map[keys.ID]string // authorized_keys lines by fingerprint
}

// RoleSpec is a role as root writes it: how many of which keys.
type RoleSpec struct {
	Threshold int
	KeyIDs    []keys.ID
}

// ChannelSpec is what root says of one channel.
type ChannelSpec struct {
	App, Channel string
	Epoch        int64
	Release      RoleSpec
	Beacon       *RoleSpec     // nil when the channel has no beacon
	MaxValidity  time.Duration // longest time between a manifest's issued and expires
	StaleAfter   time.Duration // the same for a beacon
}

// Name returns the channel's name.
func (c *ChannelSpec) Name() Channel { return Channel{c.App, c.Channel} }

// Manifest is one release of one channel: every artifact, what it must hash to, and
// the plan by which machines take it.
type Manifest struct {
	Repo            Digest // fleet id
	App, Channel    string
	Epoch, Sequence int64
	Issued, Expires time.Time
	Release         Release
	Rollout         *Rollout // nil: everyone at once
	MinAgent        string   // least agent version (semver), or empty
	Critical        []string // dotted paths of members that an agent must understand
	Blocked         []Blocked
	Attachments     []Attachment
	Artifacts       []Artifact
}

// Release is what people call the release.
type Release struct {
	Version   string // a label: only Order is compared
	Severity  string // "security", "critical"; anything else counts as "normal"
	Immediate bool   // with critical: maintenance windows are skipped
	Notes     string // plain text
}

// The kinds of artifact.
const (
	KindBinary    = "binary"
	KindTree      = "tree"
	KindInstaller = "installer"
)

// Artifact is one file of a release for one platform, as it is once it is decoded.
type Artifact struct {
	Name     string
	Kind     string // KindBinary, KindTree or KindInstaller; empty in a draft means KindBinary
	OS, Arch string
	Variant  string // empty: none
	Length   int64
	SHA256   Digest
	Mode     string // "0755", "0555" or "0644"; for a first install
	Payloads []Payload
}

// Platform returns what the artifact is built for.
func (a *Artifact) Platform() Platform { return Platform{a.OS, a.Arch, a.Variant} }

// The one form of payload that every build understands: the file itself.
const (
	PayloadFull = "full"
	CodecNone   = "none"
)

// Usable returns the first payload this build can turn into the artifact. Payloads of
// another kind or codec are for newer agents.
func (a *Artifact) Usable() (*Payload, bool) {
	for i := range a.Payloads {
		if p := &a.Payloads[i]; p.Kind == PayloadFull && p.Codec == CodecNone {
			return p, true
		}
	}
	return nil, false
}

// Payload is one downloadable form of an artifact.
type Payload struct {
	Kind, Codec string
	Length      int64
	SHA256      Digest
	Infohash    Infohash
	InfoSHA256  Digest  // SHA-256 of the bencoded info dict
	From        *Digest // what a delta starts from
}

// Blocked is content that must not run.
type Blocked struct {
	SHA256 Digest
	Reason string
}

// Attachment is a file that goes with a release and is never run, such as a bill of
// materials.
type Attachment struct {
	Name, MediaType string
	Length          int64
	SHA256          Digest
}

// Rollout is the signed plan by which machines take a release.
type Rollout struct {
	Salt   string
	Start  time.Time
	Waves  []Wave // numbered from 1
	Paused bool
	Retry  int64 // raised so that machines on which this content failed try it again
	Stop   *Stop
}

// Wave is one step of a rollout.
type Wave struct {
	Name    string
	Rings   []string
	Percent int           // 1 to 100; 0 when the wave goes by rings alone
	After   time.Duration // from the rollout's start
	Gate    string        // GateBeacon, or empty for none
	Soak    time.Duration // least time the controller lets the wave before it stand
}

// GateBeacon is the gate that a fresh beacon opens.
const GateBeacon = "beacon"

// Stop is when the controller holds a rollout.
type Stop struct {
	FailedPercent int
	MinReports    int64
}

// Beacon says what is current in a channel. It may slow a rollout down, never widen it.
type Beacon struct {
	Repo            Digest
	App, Channel    string
	Epoch, Sequence int64
	Manifest        Digest // payload hash of the manifest that is current
	Wave            int64  // the highest gated wave that may open; 0 opens none
	Hold            bool   // start no new install
	Reason          string
	Issued, Expires time.Time
}

// Name returns the channel the manifest is for.
func (m *Manifest) Name() Channel { return Channel{m.App, m.Channel} }

// Order returns the manifest's place in its channel.
func (m *Manifest) Order() Order { return Order{m.Epoch, m.Sequence} }

// Name returns the channel the beacon is for.
func (b *Beacon) Name() Channel { return Channel{b.App, b.Channel} }

// Order returns the place of the manifest the beacon names.
func (b *Beacon) Order() Order { return Order{b.Epoch, b.Sequence} }
