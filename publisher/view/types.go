package view

import (
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/publisher/fleet"
	"shoal/publisher/rollout"
)

// Overview is the fleet at a glance. What is counted is of approved machines, except
// where it says otherwise.
type Overview struct {
	Fleet       manifest.FleetID   `json:"fleet"`
	Agents      int                `json:"agents"`
	Seen        int                `json:"seen"`       // of them, within a day
	OnTarget    int                `json:"on_target"`  // of those seen: everything they have is what its channel offers, and healthy
	Attention   int                `json:"attention"`  // machines that need a look, approved or not
	Unapproved  int                `json:"unapproved"` // reports of these count for nothing
	Bytes       manifest.ByteCount `json:"bytes"`      // of each machine's last update, by where they came from
	Given       Given              `json:"given"`
	Channels    []Channel          `json:"channels"`
	Documents   []Document         `json:"documents"` // by when they run out, soonest first
	RootExpires time.Time          `json:"root_expires"`
	Trouble     []Trouble          `json:"trouble"` // the worst of the machines that need a look
}

// Channel is one channel of the fleet.
type Channel struct {
	Channel  manifest.Channel `json:"channel"`
	Version  string           `json:"version,omitempty"` // it offers; empty for nothing
	Agents   int              `json:"agents"`            // that follow it
	OnTarget int              `json:"on_target"`
	States   map[string]int   `json:"states"`
	Versions []Version        `json:"versions"` // that run, of machines seen; most machines first
	Rollout  *rollout.Status  `json:"rollout,omitempty"`
}

// Version counts the machines that run it.
type Version struct {
	Version string `json:"version"` // empty: nothing runs
	Agents  int    `json:"agents"`
}

// Document is one that runs out of date.
type Document struct {
	Name    string    `json:"name"` // "root 3", "manifest acme/stable"
	Expires time.Time `json:"expires"`
	Next    string    `json:"next"` // the command that renews it
}

// Trouble is a machine that needs a look.
type Trouble struct {
	Agent   keys.ID    `json:"agent"`
	Host    string     `json:"host"`
	Channel string     `json:"channel,omitempty"`
	State   string     `json:"state"` // a state of a report, or not-seen, unapproved, cloned
	Code    fault.Code `json:"code,omitempty"`
	Why     string     `json:"why"`
	Next    string     `json:"next,omitempty"`
	Since   time.Time  `json:"since"`
}

// Release is one release of a channel, as it was published.
type Release struct {
	Channel     manifest.Channel `json:"channel"`
	Version     string           `json:"version"`
	Epoch       int64            `json:"epoch"`
	Sequence    int64            `json:"sequence"`
	Issued      time.Time        `json:"issued"`
	Expires     time.Time        `json:"expires"`
	State       string           `json:"state"` // current, expired or replaced
	Severity    string           `json:"severity,omitempty"`
	Notes       string           `json:"notes,omitempty"`
	Manifest    string           `json:"manifest"` // payload hash
	Signers     []Signer         `json:"signers"`
	Artifacts   []Artifact       `json:"artifacts"`
	Attachments []Attachment     `json:"attachments,omitempty"`
}

// Attachment is a file that goes with a release and that no machine runs.
type Attachment struct {
	Name   string          `json:"name"`
	Length int64           `json:"length"`
	SHA256 manifest.Digest `json:"sha256"`
}

// Signer is a key that signed.
type Signer struct {
	Name string  `json:"name"`
	ID   keys.ID `json:"id"`
}

// Artifact is one file of a release.
type Artifact struct {
	Platform string            `json:"platform"`
	Length   int64             `json:"length"`
	SHA256   manifest.Digest   `json:"sha256"`
	Infohash manifest.Infohash `json:"infohash"`
	File     string            `json:"file,omitempty"` // in the tree
}

// Torrent is a payload that the origin seeds.
type Torrent struct {
	Infohash manifest.Infohash `json:"infohash"`
	Channel  manifest.Channel  `json:"channel"`
	Version  string            `json:"version"`
	Platform string            `json:"platform"`
	Length   int64             `json:"length"`
	Seeding  bool              `json:"seeding"`
	Current  bool              `json:"current"`
	Given    int64             `json:"given"`
	Peers    int               `json:"peers"`
	// Copies counts, for each piece, how often it is known to be with peers or on its way
	// to one; absent where the origin does not know.
	Copies []int `json:"copies,omitempty"`
}

// Given is payload that the origin gave since it started, in bytes.
type Given struct {
	Swarm int64 `json:"swarm"`
	HTTP  int64 `json:"http"`
}

// Swarm is where bytes come from.
type Swarm struct {
	Torrents   []Torrent          `json:"torrents"`
	Bytes      manifest.ByteCount `json:"bytes"`
	Sites      []Site             `json:"sites"`
	Throughput []int64            `json:"throughput"` // of the origin, bytes per second in each two seconds, latest last
}

// Site is the machines with one label "site".
type Site struct {
	Site   string             `json:"site"` // empty: no label, or one of too many
	Agents int                `json:"agents"`
	Bytes  manifest.ByteCount `json:"bytes"`
}

// Count is what a metric counts: the apps of approved machines that stand alike.
type Count struct {
	Channel manifest.Channel
	State   string
	Version string // "other" for all but the most frequent
	Agents  int
}

// Blocked counts the apps that do not go on, by the reason.
type Blocked struct {
	Channel manifest.Channel
	Code    fault.Code
	Agents  int
}

// Numbers are what metrics are made of.
type Numbers struct {
	Overview *Overview
	Counts   []Count
	Blocked  []Blocked
	Bytes    map[manifest.Channel]manifest.ByteCount
	Reports  fleet.Counters
}
