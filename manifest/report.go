package manifest

import (
	"time"

	"shoal/internal/fault"
	"shoal/keys"
)

// Report is one agent's account of itself. It proves which key said so, and not that
// the machine is honest.
type Report struct {
	Repo         Digest
	Agent        keys.ID // the agent id: fingerprint of the key that signed
	Counter      int64   // rises with every report of this agent
	Time         time.Time
	Host         string
	Platform     Platform
	AgentVersion string
	RootVersion  int64
	Labels       []Label
	Apps         []AppReport
	Events       []EventCount
}

// Label is a machine's own label. Its rings are its labels named "ring".
type Label struct{ Name, Value string }

// AppReport is how one app stands on a machine.
type AppReport struct {
	App, Channel    string
	Epoch, Sequence int64  // what is trusted; 0 for nothing yet
	Version         string // what runs; empty when not known
	SHA256          Digest // what runs; zero when nothing does
	State           AppState
	Why             *Why // nil only when healthy
	Freshness       Freshness
	Bytes           ByteCount
}

// AppState is where an app is between two releases.
type AppState string

// The states an agent reports.
const (
	StateWaiting     AppState = "waiting"
	StateHeld        AppState = "held"
	StateDownloading AppState = "downloading"
	StateStaged      AppState = "staged"
	StateCommitting  AppState = "committing"
	StateConfirming  AppState = "confirming"
	StateHealthy     AppState = "healthy" // the new version is confirmed and running
	StateReverted    AppState = "reverted"
	StateFailed      AppState = "failed"
	StateBlocked     AppState = "blocked"
)

// Why is the reason for a state that is not healthy.
type Why struct {
	Code  fault.Code
	Text  string
	Until time.Time // zero: not known
	Next  string    // what a person can do
}

// ByteCount counts bytes received by where they came from, and bytes given to others.
type ByteCount struct{ LAN, WAN, Origin, Webseed, Given int64 }

// EventCount is an event and how often it happened since the last report.
type EventCount struct {
	Code   fault.Code
	Count  int64
	Detail string
}
