// Package diff says in plain words what a document changes for the fleet it is for.
//
// It is read by people before they sign, so nothing that a machine acts on may be missing
// from it, and what deserves a second look is marked: see [Change]. The documents need
// not be signed, and nothing in them is believed here.
package diff

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	"github.com/dustin/go-humanize"

	"shoal/keys"
	"shoal/manifest"
)

// Change is one thing that is different in a document, said for the fleet it is for.
type Change struct {
	Field string `json:"field"` // "version", "artifact linux/amd64", "blocked"
	Text  string `json:"text"`
	// Alarm is set where a person should not sign before having asked why.
	Alarm bool `json:"alarm,omitempty"`
}

// changes collects what is different.
type changes struct{ list []Change }

func (c *changes) add(field, format string, args ...any) {
	c.list = append(c.list, Change{Field: field, Text: fmt.Sprintf(format, args...)})
}

func (c *changes) alarm(field, format string, args ...any) {
	c.list = append(c.list, Change{Field: field, Text: fmt.Sprintf(format, args...), Alarm: true})
}

// Manifests says what next changes for machines that have prev; prev may be nil.
// Neither needs to be signed.
func Manifests(prev, next *manifest.Manifest) []Change {
	c := &changes{}
	if prev == nil {
		prev = &manifest.Manifest{Repo: next.Repo, App: next.App, Channel: next.Channel}
		c.add("sequence", "the first release of %s, number %s", next.Name(), next.Order())
	} else {
		c.place(prev, next)
	}
	c.release(prev, next)
	c.artifacts(prev, next)
	c.rollout(prev.Rollout, next.Rollout)
	c.blocked(prev, next)
	c.attachments(prev, next)
	if prev.MinAgent != next.MinAgent {
		c.add("min_agent", "agents older than %s refuse it (before: %s)", orNone(next.MinAgent), orNone(prev.MinAgent))
	}
	if !slices.Equal(prev.Critical, next.Critical) {
		c.add("critical", "agents must understand %s (before: %s)", words(next.Critical), words(prev.Critical))
	}
	return c.list
}

func (c *changes) place(prev, next *manifest.Manifest) {
	if prev.Repo != next.Repo {
		c.alarm("repo", "for ANOTHER FLEET: %s instead of %s", next.Repo.Prefixed(), prev.Repo.Prefixed())
	}
	if prev.Name() != next.Name() {
		c.alarm("channel", "for ANOTHER CHANNEL: %s instead of %s", next.Name(), prev.Name())
	}
	switch was, is := prev.Order(), next.Order(); {
	case is == was:
		c.add("sequence", "the same number, %s", is)
	case is.Compare(was) < 0:
		c.alarm("sequence", "the number GOES BACK: %s → %s, and every machine refuses that", was, is)
	case is.Epoch != was.Epoch:
		c.add("sequence", "number %s → %s: a new epoch, which ends everything signed in the one before", was, is)
	case is.Sequence != was.Sequence+1:
		c.alarm("sequence", "the number JUMPS: %s → %s; the ones between can never be used", was, is)
	default:
		c.add("sequence", "number %s → %s", was, is)
	}
}

func (c *changes) release(prev, next *manifest.Manifest) {
	was, is := prev.Release, next.Release
	switch {
	case was.Version == "":
		c.add("version", "version %s", is.Version)
	case was.Version == is.Version:
		c.add("version", "the same version, %s", is.Version)
	case older(is.Version, was.Version):
		c.alarm("version", "machines GO BACK: version %s → %s", was.Version, is.Version)
	default:
		c.add("version", "version %s → %s", was.Version, is.Version)
	}
	c.add("expires", "believed until %s, for %s%s", date(next.Expires), span(next.Expires.Sub(next.Issued)), before(prev.Expires))
	if next.Issued.Before(prev.Issued) {
		c.alarm("issued", "dated %s, BEFORE the release it follows (%s)", date(next.Issued), date(prev.Issued))
	}
	if was.Severity != is.Severity {
		c.add("severity", "severity %s → %s", orNormal(was.Severity), orNormal(is.Severity))
	}
	if was.Immediate != is.Immediate {
		if is.Immediate {
			c.add("immediate", "machines do not wait for their maintenance window")
		} else {
			c.add("immediate", "machines wait for their maintenance window again")
		}
	}
	if was.Notes != is.Notes && is.Notes != "" {
		first, more, _ := strings.Cut(is.Notes, "\n")
		if more != "" {
			first += " ..."
		}
		c.add("notes", "notes: %s", first)
	}
}

func before(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " (before: until " + date(t) + ")"
}

func (c *changes) artifacts(prev, next *manifest.Manifest) {
	old := map[manifest.Platform]*manifest.Artifact{}
	for i := range prev.Artifacts {
		old[prev.Artifacts[i].Platform()] = &prev.Artifacts[i]
	}
	for i := range next.Artifacts {
		a := &next.Artifacts[i]
		p := a.Platform()
		field := "artifact " + p.String()
		was := old[p]
		delete(old, p)
		if b, bad := prev.Blocks(a.SHA256); bad {
			c.alarm(field, "%s: this content IS BLOCKED by the release before: %s", p, b.Reason)
		}
		switch {
		case was == nil:
			c.add(field, "%s: new, %s, %s %s, sha256 %s", p, size(a.Length), a.Kind, a.Name, a.SHA256)
			continue
		case was.SHA256 == a.SHA256:
			c.add(field, "%s: the same file, sha256 %s", p, a.SHA256)
		default:
			c.add(field, "%s: %s → %s, sha256 %s → %s", p, size(was.Length), size(a.Length), was.SHA256, a.SHA256)
		}
		if was.Kind != a.Kind || was.Name != a.Name {
			c.alarm(field, "%s: ANOTHER KIND OF FILE: %s %s → %s %s", p, was.Kind, was.Name, a.Kind, a.Name)
		}
		if was.Mode != a.Mode {
			c.add(field, "%s: mode %s → %s", p, was.Mode, a.Mode)
		}
		if was.SHA256 == a.SHA256 && !slices.EqualFunc(was.Payloads, a.Payloads, samePayload) {
			c.add(field, "%s: offered as other downloads than before", p)
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(old), func(a, b manifest.Platform) int { return strings.Compare(a.String(), b.String()) }) {
		c.alarm("artifact "+p.String(), "%s: LEFT OUT; machines there stay as they are", p)
	}
}

func samePayload(a, b manifest.Payload) bool {
	return a.SHA256 == b.SHA256 && a.Kind == b.Kind && a.Codec == b.Codec && a.Infohash == b.Infohash && a.InfoSHA256 == b.InfoSHA256
}

func (c *changes) rollout(was, is *manifest.Rollout) {
	switch {
	case was == nil && is == nil:
		return
	case is == nil:
		c.alarm("rollout", "NO WAVES ANY MORE: every machine installs at once")
		return
	case was == nil:
		was = &manifest.Rollout{}
	}
	if !slices.EqualFunc(was.Waves, is.Waves, sameWave) || !was.Start.Equal(is.Start) {
		c.add("rollout", "%d waves from %s: %s", len(is.Waves), date(is.Start), waves(is.Waves))
	}
	if was.Salt != is.Salt && was.Salt != "" {
		c.add("rollout", "the machines are drawn anew: another salt")
	}
	if was.Paused != is.Paused {
		c.add("rollout", "paused: %t → %t", was.Paused, is.Paused)
	}
	if was.Retry != is.Retry {
		c.add("rollout", "machines on which it failed try again (retry %d → %d)", was.Retry, is.Retry)
	}
	if (was.Stop == nil) != (is.Stop == nil) || was.Stop != nil && *was.Stop != *is.Stop {
		c.add("rollout", "stops by itself: %s → %s", stop(was.Stop), stop(is.Stop))
	}
}

func sameWave(a, b manifest.Wave) bool {
	return a.Name == b.Name && slices.Equal(a.Rings, b.Rings) && a.Percent == b.Percent && a.After == b.After && a.Gate == b.Gate && a.Soak == b.Soak
}

func waves(list []manifest.Wave) string {
	var parts []string
	for _, w := range list {
		s := w.Name
		if len(w.Rings) > 0 {
			s += " ring " + strings.Join(w.Rings, "+")
		}
		if w.Percent > 0 {
			s += fmt.Sprintf(" %d %%", w.Percent)
		}
		if w.After > 0 {
			s += " after " + w.After.String()
		}
		if w.Gate != "" {
			s += " when " + w.Gate + " opens it"
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, "; ")
}

func stop(s *manifest.Stop) string {
	if s == nil {
		return "never"
	}
	return fmt.Sprintf("at %d %% failed of at least %d reports", s.FailedPercent, s.MinReports)
}

func (c *changes) blocked(prev, next *manifest.Manifest) {
	for _, b := range prev.Blocked {
		if _, still := next.Blocks(b.SHA256); !still {
			c.alarm("blocked", "NO LONGER BLOCKED: %s (%s). Machines may run it again", b.SHA256, orNone(b.Reason))
		}
	}
	for _, b := range next.Blocked {
		if _, already := prev.Blocks(b.SHA256); already {
			continue
		}
		what := ""
		for i := range prev.Artifacts {
			if prev.Artifacts[i].SHA256 == b.SHA256 {
				what = fmt.Sprintf(", which is %s for %s", prev.Release.Version, prev.Artifacts[i].Platform())
			}
		}
		c.add("blocked", "blocks %s%s: %s", b.SHA256, what, orNone(b.Reason))
	}
}

func (c *changes) attachments(prev, next *manifest.Manifest) {
	old := map[string]manifest.Attachment{}
	for _, a := range prev.Attachments {
		old[a.Name] = a
	}
	for _, a := range next.Attachments {
		was, there := old[a.Name]
		delete(old, a.Name)
		switch {
		case !there:
			c.add("attachment "+a.Name, "attached %s, %s, sha256 %s", a.Name, size(a.Length), a.SHA256)
		case was.SHA256 != a.SHA256:
			c.add("attachment "+a.Name, "attachment %s: %s → %s, sha256 %s → %s", a.Name, size(was.Length), size(a.Length), was.SHA256, a.SHA256)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old)) {
		c.add("attachment "+name, "no longer attached: %s", name)
	}
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func orNormal(s string) string {
	if s == "" {
		return "normal"
	}
	return s
}

func words(list []string) string { return orNone(strings.Join(list, ", ")) }

// key is a key of r as people know it.
func key(r *manifest.Root, id keys.ID) string {
	if k, err := keys.ParsePublicKey(r.Keys[id]); err == nil && k.Comment() != "" {
		return k.Comment() + " (" + string(id) + ")"
	}
	return string(id)
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// span is a validity as people count it.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day && d%day == 0:
		return fmt.Sprintf("%d days", d/day)
	case d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return d.String()
}

// older reports whether version a comes before b, where both say so.
func older(a, b string) bool {
	va, err := semver.NewVersion(a)
	if err != nil {
		return false
	}
	vb, err := semver.NewVersion(b)
	return err == nil && va.LessThan(vb)
}
