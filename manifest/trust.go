package manifest

import (
	"time"

	"shoal/internal/fault"
	"shoal/keys"
)

// Clock returns the machine's time.
type Clock func() time.Time

// Options are a machine's own settings. The zero value is the safe one.
type Options struct {
	Clock        Clock             // nil: time.Now
	Build        time.Time         // when this program was built: time was never before that; zero: not known
	TimeFloor    bool              // there is no clock to trust: hold expiry against trusted documents only
	MinRoot      int64             // least root version
	MinSequence  map[Channel]Order // least order of a channel's manifest
	AgentVersion string            // semver; empty or unreadable counts as 0.0.0-dev, which min_agent lets pass with an event
	AllowExpired bool              // an expired manifest is as good as another, this once
	TOFU         bool              // the pin came with the first root; recorded in State
}

// Trust is what one machine trusts of one fleet.
type Trust struct{}

// Verified is a manifest that passed every check.
type Verified struct {
	Manifest *Manifest
	Hash     Digest    // of the payload
	SignedBy []keys.ID // who signed, of the release role
	Same     bool      // it was held already
}

// Event is something an operator should know and nothing failed by.
type Event struct {
	Code   fault.Code `json:"code"`
	Doc    string     `json:"doc"`
	Detail string     `json:"detail"`
}

// Freshness is what the channel's beacon says of the manifest that is held.
type Freshness string

const (
	Current     Freshness = "current" // a fresh beacon names the trusted manifest
	BehindNewer Freshness = "behind"  // it names a newer one
	StaleBeacon Freshness = "stale"   // there is no fresh beacon
	NoBeacon    Freshness = "none"    // the channel has no beacon role
)

func Pin(rootV1 []byte, pin Digest, o Options) (*Trust, []Event, error) { return nil, nil, errStub }
func Load(s Snapshot, o Options) (*Trust, []Event, error)               { return nil, nil, errStub }
func (t *Trust) UpdateRoot(env []byte) ([]Event, error)                 { return nil, errStub }
func (t *Trust) Begin() (*Cycle, error)                                 { return nil, errStub }
func (t *Trust) Repo() Digest                                           { return Digest{} }
func (t *Trust) Root() *Root                                            { return nil }
func (t *Trust) RootVersion() int64                                     { return 0 }
func (t *Trust) Snapshot() Snapshot                                     { return Snapshot{} }
func (t *Trust) Held(ch Channel) (*Verified, bool)                      { return nil, false }
func (t *Trust) OnHold(ch Channel, artifact Digest) bool                { return false }

// Cycle is one round of checks with one reading of the clock.
type Cycle struct{}

func (c *Cycle) Manifest(ch Channel, env []byte) (*Verified, []Event, error) {
	return nil, nil, errStub
}
func (c *Cycle) Beacon(ch Channel, env []byte) (Freshness, []Event) { return NoBeacon, nil }
func (c *Cycle) Authorize(ch Channel, artifact Digest) error        { return errStub }

// Now returns the time that ch's documents are held against.
func (c *Cycle) Now(ch Channel) time.Time { return time.Time{} }

func (v *Verified) Select(p Platform) (*Artifact, error) { return nil, errStub }

// Snapshot is everything a Trust remembers.
type Snapshot struct {
	Roots     [][]byte // Roots[i] is the envelope of version i+1
	Manifests map[Channel][]byte
	Beacons   map[Channel][]byte
	State     State
}

// State is the trust part of the agent's state.json, and of its anchor.
type State struct {
	V           int64                    `json:"v"`
	Repo        FleetID                  `json:"repo"`
	TOFU        bool                     `json:"tofu"`
	RootVersion int64                    `json:"root_version"`
	RootSHA256  Digest                   `json:"root_sha256"`
	Channels    map[Channel]ChannelState `json:"channels"`
	LastEpochs  map[Channel]int64        `json:"last_epochs"`
}

// ChannelState is the highest order seen in a channel, and what goes with it.
type ChannelState struct {
	Epoch          int64     `json:"epoch"`
	Sequence       int64     `json:"sequence"`
	ManifestSHA256 Digest    `json:"manifest_sha256,omitzero"` // zero: not known
	LastBeacon     time.Time `json:"last_beacon,omitzero"`
	HoldUntil      time.Time `json:"hold_until,omitzero"` // the machine's own hold; the agent's business
	Held           []Digest  `json:"held,omitzero"`       // artifacts held by beacon
}

// Raise returns s with whatever anchor has that is higher, and says what it raised.
func (s State) Raise(anchor State) (State, []Event, error) { return s, nil, errStub }

func Draft(m *Manifest, now time.Time) ([]byte, error)    { return nil, errStub }
func DraftRoot(r *Root) ([]byte, error)                   { return nil, errStub }
func DraftBeacon(b *Beacon) ([]byte, error)               { return nil, errStub }
func DraftReport(r *Report) ([]byte, error)               { return nil, errStub }
func ReadManifestDraft(payload []byte) (*Manifest, error) { return nil, errStub }
func ReadRootDraft(payload []byte) (*Root, error)         { return nil, errStub }
func OpenReport(env []byte, repo Digest) (*Report, error) { return nil, errStub }
func Cohort(salt string, agent keys.ID) int               { return 0 }
