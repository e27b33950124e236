package ceremony

import (
	"fmt"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
)

// Days before a root expires at which its keepers are told, each time louder.
var expiryDays = []int{7, 30, 90}

// CheckRoot is manifest.CheckRoot, and what time and numbers add to it: a root that has
// run out is root_expired, and warnings tell of one that will, and of a threshold that
// leaves no key to spare.
func CheckRoot(r *manifest.Root, now time.Time) ([]string, error) {
	warnings, err := manifest.CheckRoot(r)
	if err != nil {
		return nil, err
	}
	if n := len(r.Root.KeyIDs); n < r.Root.Threshold+1 {
		warnings = append(warnings, fmt.Sprintf("all %d root keys must sign: when one is lost there is no next root, and every machine must be joined again by hand", n))
	}
	if !now.Before(r.Expires) {
		return warnings, fault.New(fault.RootExpired, "root %d ran out of date on %s", r.Version, date(r.Expires)).
			Line("Machines keep what they run, and take nothing new.").
			Do("draft the next root: shoal trust draft --from ROOT.env.json --expires 2y")
	}
	if w := ExpiryWarning(r, now); w != "" {
		warnings = append(warnings, w)
	}
	return warnings, nil
}

// daysLeft is how many whole days r is still believed.
func daysLeft(r *manifest.Root, now time.Time) int { return int(r.Expires.Sub(now) / (24 * time.Hour)) }

// ExpiryWarning speaks up 90, 30 and 7 days before a root expires; empty before that.
func ExpiryWarning(r *manifest.Root, now time.Time) string {
	for _, days := range expiryDays {
		if r.Expires.Sub(now) <= time.Duration(days)*24*time.Hour {
			return fmt.Sprintf("root %d expires in %d days, on %s (this is the %d-day warning): sign the next one before", r.Version, daysLeft(r, now), date(r.Expires), days)
		}
	}
	return ""
}

// RootInfo is what a root says, for people.
type RootInfo struct {
	FleetID  manifest.FleetID `json:"fleet_id"` // what machines pin
	Fleet    string           `json:"fleet"`
	Version  int64            `json:"version"`
	Payload  manifest.Digest  `json:"payload_sha256"`
	Issued   time.Time        `json:"issued"`
	Expires  time.Time        `json:"expires"`
	DaysLeft int              `json:"days_left"`
	Reason   string           `json:"reason,omitempty"`
	Signed   bool             `json:"signed"` // by the threshold of its own root role
	Root     RoleInfo         `json:"root"`
	Channels []ChannelInfo    `json:"channels"`
	Signers  []Signers        `json:"signatures,omitempty"` // of an envelope: its own role
	Warnings []string         `json:"warnings,omitempty"`
}

// RoleInfo is who may sign, and how many must.
type RoleInfo struct {
	Threshold int   `json:"threshold"`
	Keys      []Key `json:"keys"`
}

// ChannelInfo is what a root says of a channel.
type ChannelInfo struct {
	Channel     manifest.Channel `json:"channel"`
	Epoch       int64            `json:"epoch"`
	Release     RoleInfo         `json:"release"`
	Beacon      *RoleInfo        `json:"beacon,omitempty"`
	MaxValidity string           `json:"max_validity"`
	StaleAfter  string           `json:"stale_after,omitempty"`
}

// Describe tells what a root file says, and whether its own keys have signed it.
func Describe(f *RootFile, now time.Time) (*RootInfo, error) {
	r := f.Root
	info := &RootInfo{
		FleetID: manifest.FleetID(f.FleetID()), Fleet: r.Fleet, Version: r.Version, Payload: f.Hash(),
		Issued: r.Issued, Expires: r.Expires, DaysLeft: daysLeft(r, now), Reason: r.Reason,
		Root: roleInfo(r, r.Root), Channels: []ChannelInfo{},
	}
	for i := range r.Channels {
		info.Channels = append(info.Channels, *channelInfo(r, &r.Channels[i]))
	}
	if f.Envelope == nil {
		return info, nil
	}
	s, err := signersOf(fmt.Sprintf("root %d", r.Version), r, r.Root, f.Envelope)
	if err != nil {
		return nil, err
	}
	info.Signers, info.Signed = []Signers{s}, s.Complete()
	return info, nil
}

func roleInfo(r *manifest.Root, s manifest.RoleSpec) RoleInfo {
	info := RoleInfo{Threshold: s.Threshold, Keys: []Key{}}
	for _, id := range s.KeyIDs {
		info.Keys = append(info.Keys, named(r, id))
	}
	return info
}

func channelInfo(r *manifest.Root, c *manifest.ChannelSpec) *ChannelInfo {
	info := &ChannelInfo{Channel: c.Name(), Epoch: c.Epoch, Release: roleInfo(r, c.Release), MaxValidity: span(c.MaxValidity)}
	if c.Beacon != nil {
		beacon := roleInfo(r, *c.Beacon)
		info.Beacon, info.StaleAfter = &beacon, span(c.StaleAfter)
	}
	return info
}

// CheckFile looks at a root file as its keepers should. An envelope must be signed by
// its own keys.
func CheckFile(path string, now time.Time) (*RootInfo, error) {
	f, err := ReadRoot(path)
	if err != nil {
		return nil, err
	}
	warnings, err := CheckRoot(f.Root, now)
	if err != nil {
		return nil, inFile(path, err)
	}
	info, err := Describe(f, now)
	if err != nil {
		return nil, err
	}
	info.Warnings = warnings
	if f.Envelope != nil && !info.Signed {
		return info, missing(fmt.Sprintf("root %d", f.Root.Version), info.Signers).
			Do("root keepers: shoal trust sign FILE --key REF").Fact("file", path)
	}
	return info, nil
}
