package diff

import (
	"fmt"
	"slices"
	"time"

	"shoal/keys"
	"shoal/manifest"
)

// Roots says what next changes; prev may be nil. Neither needs to be signed.
func Roots(prev, next *manifest.Root) []Change {
	c := &changes{}
	if prev == nil {
		prev = &manifest.Root{Fleet: next.Fleet, Keys: map[keys.ID]string{}}
		c.add("version", "the first root of the fleet %q", next.Fleet)
	} else {
		c.add("version", "root %d → %d", prev.Version, next.Version)
	}
	if prev.Fleet != next.Fleet {
		c.add("fleet", "the fleet is called %q, before %q", next.Fleet, prev.Fleet)
	}
	c.add("expires", "believed until %s, for %s%s", date(next.Expires), span(next.Expires.Sub(next.Issued)), before(prev.Expires))
	if next.Reason != "" {
		c.add("reason", "reason: %s", next.Reason)
	}
	c.role("root", prev, next, &prev.Root, &next.Root)
	for i := range next.Channels {
		is := &next.Channels[i]
		was, there := prev.Channel(is.Name())
		if !there {
			was = &manifest.ChannelSpec{}
			c.add(is.Name().String(), "%s: a new channel, epoch %d", is.Name(), is.Epoch)
		}
		c.channel(prev, next, was, is, there)
	}
	for i := range prev.Channels {
		if _, still := next.Channel(prev.Channels[i].Name()); !still {
			c.alarm(prev.Channels[i].Name().String(), "%s: DROPPED; its machines get nothing any more", prev.Channels[i].Name())
		}
	}
	return c.list
}

func (c *changes) channel(prev, next *manifest.Root, was, is *manifest.ChannelSpec, there bool) {
	name := is.Name().String()
	if there && was.Epoch != is.Epoch {
		c.alarm(name, "%s: epoch %d → %d, which VOIDS every release signed so far", name, was.Epoch, is.Epoch)
	}
	c.role(name, prev, next, &was.Release, &is.Release)
	switch {
	case was.Beacon == nil && is.Beacon != nil:
		c.role(name+" beacon", prev, next, &manifest.RoleSpec{}, is.Beacon)
	case was.Beacon != nil && is.Beacon == nil:
		c.add(name+" beacon", "%s: no beacon any more; machines cannot notice that news is kept from them", name)
	case was.Beacon != nil:
		c.role(name+" beacon", prev, next, was.Beacon, is.Beacon)
	}
	if was.MaxValidity != is.MaxValidity {
		c.add(name, "%s: a release is believed for at most %s%s", name, span(is.MaxValidity), beforeSpan(was.MaxValidity))
	}
	if was.StaleAfter != is.StaleAfter {
		c.add(name, "%s: a beacon is fresh for at most %s%s", name, span(is.StaleAfter), beforeSpan(was.StaleAfter))
	}
}

func beforeSpan(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return " (before: " + span(d) + ")"
}

func (c *changes) role(name string, prev, next *manifest.Root, was, is *manifest.RoleSpec) {
	if was.Threshold != is.Threshold || len(was.KeyIDs) != len(is.KeyIDs) {
		text := fmt.Sprintf("%s: %d of %d keys must sign", name, is.Threshold, len(is.KeyIDs))
		switch {
		case was.Threshold == 0:
			c.add(name, "%s", text)
		case is.Threshold < was.Threshold:
			c.alarm(name, "%s, FEWER than before (%d of %d)", text, was.Threshold, len(was.KeyIDs))
		default:
			c.add(name, "%s (before: %d of %d)", text, was.Threshold, len(was.KeyIDs))
		}
	}
	for _, id := range is.KeyIDs {
		if !slices.Contains(was.KeyIDs, id) {
			c.add(name, "%s: + %s", name, key(next, id))
		}
	}
	for _, id := range was.KeyIDs {
		if !slices.Contains(is.KeyIDs, id) {
			c.add(name, "%s: - %s", name, key(prev, id))
		}
	}
}
