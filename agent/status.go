package agent

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"shoal/agent/report"
	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
)

const (
	statusFile = "status.json"
	maxStatus  = 4 << 20
	maxEvents  = 50 // kept in the status
)

// Status is what an agent says of itself.
type Status struct {
	Fleet       string          `json:"fleet"` // sha256:...
	TOFU        bool            `json:"tofu"`  // the fleet id itself came over the network
	Agent       keys.ID         `json:"agent"`
	Version     string          `json:"agent_version"`
	Running     bool            `json:"running"` // false: this is how things were when an agent last ran
	PID         int             `json:"pid,omitempty"`
	Listen      string          `json:"listen,omitempty"` // where peers reach it
	RootVersion int64           `json:"root_version"`
	RootExpires time.Time       `json:"root_expires,omitzero"`
	FreezeCheck bool            `json:"freeze_detection"` // false with time: floor
	StateLost   bool            `json:"state_lost"`       // not acknowledged yet
	Apps        []AppStatus     `json:"apps"`
	Events      []Event         `json:"events"`            // latest last
	Reports     []report.Status `json:"reports,omitempty"` // how telling the publisher of all this stands
	Updated     time.Time       `json:"updated"`
}

// AppStatus is how one app stands.
type AppStatus struct {
	App     string            `json:"app"`
	Channel string            `json:"channel"`
	Target  string            `json:"target"`
	State   manifest.AppState `json:"state"`
	Why     *Why              `json:"why,omitempty"` // absent only when healthy
	Since   time.Time         `json:"since"`         // of the state
	// FailedAt is when an update last failed or was taken back.
	FailedAt time.Time `json:"failed_at,omitzero"`

	Version string          `json:"version,omitempty"` // of what is installed, where it is known
	SHA256  manifest.Digest `json:"sha256,omitzero"`
	Offered *Offer          `json:"offered,omitempty"` // what the channel asks for

	Epoch     int64              `json:"epoch"`
	Sequence  int64              `json:"sequence"`
	Expires   time.Time          `json:"expires,omitzero"`
	SignedBy  []keys.ID          `json:"signed_by,omitempty"`
	Freshness manifest.Freshness `json:"freshness"`

	HoldUntil    time.Time       `json:"hold_until,omitzero"`    // the operator's hold; 9999-12-31T23:59:59Z has no end
	Pin          string          `json:"pin,omitempty"`          // the one version the operator wants
	RevertedFrom manifest.Digest `json:"reverted_from,omitzero"` // not installed again until something else is offered
	Ahead        string          `json:"ahead,omitempty"`        // of what waits for its wave: [AheadFetching] or [AheadHere]
	Window       *WindowStatus   `json:"window,omitempty"`       // absent: an update may begin at any time

	LastCheck *CheckStatus  `json:"last_check,omitempty"`
	NextCheck time.Time     `json:"next_check,omitzero"`
	Update    *UpdateStatus `json:"update,omitempty"` // the one under way, or the last one
	Peers     int           `json:"peers"`            // neighbours this release is exchanged with now
	Given     int64         `json:"given"`            // bytes since the agent started
	Previous  []string      `json:"previous,omitempty"`
}

// Why is the reason for a state that is not healthy.
type Why struct {
	Code  fault.Code `json:"code"`
	Text  string     `json:"text"`
	Until time.Time  `json:"until,omitzero"`
	Next  string     `json:"next,omitempty"`
}

// Offer is a release as a channel offers it to this machine.
type Offer struct {
	Version  string          `json:"version"`
	Severity string          `json:"severity,omitempty"`
	SHA256   manifest.Digest `json:"sha256,omitzero"` // zero when there is nothing for this platform
	Length   int64           `json:"length,omitempty"`
}

// WindowStatus is how an app's maintenance windows stand.
type WindowStatus struct {
	Open    bool      `json:"open"`
	Changes time.Time `json:"changes,omitzero"` // when they open, or close; zero for never
}

// CheckStatus is how the last check ended.
type CheckStatus struct {
	At   time.Time  `json:"at"`
	Code fault.Code `json:"code"`
	Text string     `json:"text,omitempty"`
	Next string     `json:"next,omitempty"`
}

// UpdateStatus is what an update cost.
type UpdateStatus struct {
	Version string    `json:"version"`
	Length  int64     `json:"length"`
	Done    int64     `json:"done"`
	Bytes   Bytes     `json:"bytes"`
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"`          // from the decision to its end
	Phases  []Phase   `json:"phases,omitempty"` // of those seconds
}

// Bytes counts payload bytes by where they came from.
type Bytes struct {
	LAN     int64 `json:"lan"`
	WAN     int64 `json:"wan"`
	Origin  int64 `json:"origin"`
	Webseed int64 `json:"webseed"`
}

// Event is something an operator should know of.
type Event struct {
	At time.Time `json:"at"`
	manifest.Event
}

// why is err as the reason for a state.
func why(err error) *Why {
	w := &Why{Code: fault.CodeOf(err), Text: err.Error()}
	var e *fault.Error
	if errors.As(err, &e) {
		if len(e.Next) > 0 {
			w.Next = e.Next[0]
		}
		if until, ok := e.Facts["until"].(string); ok {
			w.Until, _ = time.Parse(time.RFC3339, until)
		}
	}
	return w
}

// ReadStatus reads how an agent that is not running left things. Without a status
// the error matches fs.ErrNotExist.
func ReadStatus(stateDir string) (*Status, error) {
	b, err := readLimited(filepath.Join(stateDir, statusFile), maxStatus)
	if err != nil {
		return nil, err
	}
	var s Status
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fault.New(fault.IO, "reading %q: %w", filepath.Join(stateDir, statusFile), err)
	}
	s.Running, s.PID = false, 0
	return &s, nil
}

func (s *Status) write(stateDir string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(stateDir, statusFile), append(b, '\n'), 0o644)
}

func readLimited(path string, limit int64) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if fi.Size() > limit || !fi.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("not a file of sensible size")}
	}
	return os.ReadFile(path)
}
