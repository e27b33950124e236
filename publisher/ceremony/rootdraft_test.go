package ceremony_test

import (
	"strings"
	"testing"
	"time"

	"shoal/keys"
	"shoal/keys/keystest"
	"shoal/manifest"
	"shoal/publisher/ceremony"
	"shoal/publisher/ceremony/diff"
)

func wantChange(t *testing.T, changes []diff.Change, want string, alarm bool) {
	t.Helper()
	var all []string
	for _, c := range changes {
		all = append(all, c.Text)
		if strings.Contains(c.Text, want) {
			if c.Alarm != alarm {
				t.Errorf("%q: alarm is %t, want %t", c.Text, c.Alarm, alarm)
			}
			return
		}
	}
	t.Errorf("nothing says %q:\n%s", want, strings.Join(all, "\n"))
}

func TestRootDraftsSayWhatTheyChange(t *testing.T) {
	f := newFleet(t)
	ops := f.role(1, "ops").Keys[0]
	beacon := f.role(1, "beacon")
	rows := []struct {
		name  string
		draft ceremony.RootDraft
		want  string
		alarm bool
	}{
		{"number", ceremony.RootDraft{}, "root 1 → 2", false},
		{"reason", ceremony.RootDraft{Reason: "yearly"}, "reason: yearly", false},
		{"fleet-name", ceremony.RootDraft{Fleet: "acme2"}, `the fleet is called "acme2", before "acme"`, false},
		{"key-replaced", ceremony.RootDraft{Replace: []ceremony.Replacement{{Old: "ann", New: ops}}}, "acme/stable: + ops", false},
		{"key-replaced-gone", ceremony.RootDraft{Replace: []ceremony.Replacement{{Old: "ann", New: ops}}}, "acme/stable: - ann", false},
		{"root-key-added", ceremony.RootDraft{Add: []ceremony.RoleKey{{Key: ops}}}, "root: 2 of 4 keys must sign (before: 2 of 3)", false},
		{"threshold-falls", ceremony.RootDraft{Thresholds: map[ceremony.RoleName]int{{Channel: stable}: 1}}, "acme/stable: 1 of 3 keys must sign, FEWER than before (2 of 3)", true},
		{"epoch", ceremony.RootDraft{Bump: []manifest.Channel{nightly}}, "acme/nightly: epoch 1 → 2, which VOIDS", true},
		{"channel-dropped", ceremony.RootDraft{Drop: []manifest.Channel{nightly}}, "acme/nightly: DROPPED", true},
		{"channel-new", ceremony.RootDraft{Channels: []ceremony.ChannelDraft{{Channel: manifest.Channel{App: "acme", Name: "beta"}, Release: f.role(1, "ops")}}}, "acme/beta: a new channel, epoch 1", false},
		{"validity", ceremony.RootDraft{Channels: []ceremony.ChannelDraft{{Channel: stable, MaxValidity: 48 * time.Hour}}}, "acme/stable: a release is believed for at most 2 days (before: 90 days)", false},
		{"beacon", ceremony.RootDraft{Channels: []ceremony.ChannelDraft{{Channel: stable, Beacon: beacon, StaleAfter: time.Hour}}}, "acme/stable beacon: + beacon", false},
		{"stale-after", ceremony.RootDraft{Channels: []ceremony.ChannelDraft{{Channel: stable, Beacon: beacon, StaleAfter: time.Hour}}}, "acme/stable: a beacon is fresh for at most 1 h", false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			fl, err := ceremony.Source{Store: f.cfg.Store, Clock: f.cfg.Clock}.Open(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			res, err := ceremony.DraftRoot(fl, row.draft, f.now.Add(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			wantChange(t, res.Changes, row.want, row.alarm)
			if fl.Root.Version != 1 || len(fl.Root.Channels) != 2 || len(fl.Root.Keys) != 7 {
				t.Error("drafting changed the fleet it was drafted from")
			}
		})
	}
}

func TestRootDraftsThatCannotBe(t *testing.T) {
	f := newFleet(t)
	stranger := keystest.New(t, "stranger").Public()
	for name, d := range map[string]ceremony.RootDraft{
		"replaced-key-is-not-there":       {Replace: []ceremony.Replacement{{Old: "nobody", New: stranger}}},
		"replaced-by-itself":              {Replace: []ceremony.Replacement{{Old: "ann", New: keystest.New(t, "ann").Public()}}},
		"release-key-becomes-root-key":    {Add: []ceremony.RoleKey{{Key: keystest.New(t, "ann").Public()}}},
		"key-added-twice":                 {Add: []ceremony.RoleKey{{Role: ceremony.RoleName{Channel: stable}, Key: keystest.New(t, "ann").Public()}}},
		"too-few-keys-left":               {Remove: []ceremony.OldKey{{AnyRole: true, Key: "ci"}}},
		"removed-from-another-role":       {Remove: []ceremony.OldKey{{Role: ceremony.RoleName{Channel: nightly}, Key: "ann"}}},
		"threshold-above-keys":            {Thresholds: map[ceremony.RoleName]int{{}: 4}},
		"beacon-of-a-channel-without-one": {Add: []ceremony.RoleKey{{Role: ceremony.RoleName{Channel: stable, Beacon: true}, Key: stranger}}},
		"no-such-channel-to-drop":         {Drop: []manifest.Channel{{App: "acme", Name: "gone"}}},
		"no-such-channel-to-bump":         {Bump: []manifest.Channel{{App: "acme", Name: "gone"}}},
		"new-channel-without-keys":        {Channels: []ceremony.ChannelDraft{{Channel: manifest.Channel{App: "acme", Name: "beta"}}}},
		"beacon-without-stale-after":      {Channels: []ceremony.ChannelDraft{{Channel: stable, Beacon: &keys.Role{Threshold: 1, Keys: []keys.PublicKey{stranger}}}}},
		"one-key-as-release-and-beacon":   {Channels: []ceremony.ChannelDraft{{Channel: stable, Beacon: &keys.Role{Threshold: 1, Keys: []keys.PublicKey{keystest.New(t, "ann").Public()}}, StaleAfter: time.Hour}}},
	} {
		t.Run(name, func(t *testing.T) {
			fl, err := ceremony.Source{Store: f.cfg.Store, Clock: f.cfg.Clock}.Open(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			if res, err := ceremony.DraftRoot(fl, d, f.now); err == nil {
				t.Errorf("drafted: %v", res.Changes)
			}
		})
	}
}
