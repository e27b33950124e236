package ceremony

import (
	"fmt"
	"slices"

	"shoal/manifest"
)

// Need is what a channel wants once a root is there.
type Need struct {
	Channel manifest.Channel `json:"channel"`
	Code    string           `json:"code"` // "sign_again", "publish_again"
	Text    string           `json:"text"`
}

// The codes of a Need.
const (
	NeedSignatures = "sign_again"    // the same payload, with signatures of today's keys
	NeedRelease    = "publish_again" // a release of the new epoch
)

// needs says which channels' releases next leaves without the signatures they need.
func (f *Fleet) needs(next *manifest.Root) ([]Need, error) {
	needs := []Need{}
	for i := range next.Channels {
		spec := &next.Channels[i]
		ch, err := f.state.Channel(spec.Name())
		if err != nil {
			continue // a new channel
		}
		if ch.Latest == nil {
			if was := ch.Spec; f.given != nil && !f.given[spec.Name()] && !sameRole(was.Release, spec.Release) && was.Epoch == spec.Epoch {
				needs = append(needs, Need{spec.Name(), NeedSignatures,
					fmt.Sprintf("%s: its keys change; whether its release needs new signatures cannot be told without it", spec.Name())})
			}
			continue
		}
		if ch.Latest.Epoch < spec.Epoch {
			needs = append(needs, Need{spec.Name(), NeedRelease,
				fmt.Sprintf("%s: %s is void in epoch %d; publish a release that the new keys sign", spec.Name(), ch.Latest.Release.Version, spec.Epoch)})
			continue
		}
		env, err := manifest.ParseEnvelope(ch.Stored, manifest.TypeManifest)
		if err != nil {
			return nil, err
		}
		s, err := signersOf(spec.Name().String(), next, spec.Release, env)
		if err != nil {
			return nil, err
		}
		if !s.Complete() {
			needs = append(needs, Need{spec.Name(), NeedSignatures,
				fmt.Sprintf("%s: %s (%s) needs new signatures: %d of %d are left; %d more of %s", spec.Name(), ch.Latest.Release.Version,
					ch.Latest.Order(), len(s.Signed), s.Threshold, s.Threshold-len(s.Signed), namesOf(s.Missing))})
		}
		if valid := ch.Latest.Expires.Sub(ch.Latest.Issued); valid > spec.MaxValidity {
			needs = append(needs, Need{spec.Name(), NeedRelease,
				fmt.Sprintf("%s: %s was signed for %s, longer than the %s there will be; refresh it", spec.Name(), ch.Latest.Release.Version, span(valid), span(spec.MaxValidity))})
		}
	}
	return needs, nil
}

func sameRole(a, b manifest.RoleSpec) bool {
	x, y := slices.Clone(a.KeyIDs), slices.Clone(b.KeyIDs)
	slices.Sort(x)
	slices.Sort(y)
	return a.Threshold == b.Threshold && slices.Equal(x, y)
}

// advice speaks up where a key leaves a role that it alone, with others that leave, could
// have signed for: if it was stolen rather than lost, what it signed still counts.
func advice(prev, next *manifest.Root) []string {
	var lines []string
	if prev == nil {
		return nil
	}
	for i := range next.Channels {
		is := &next.Channels[i]
		was, ok := prev.Channel(is.Name())
		if !ok || was.Epoch != is.Epoch {
			continue
		}
		gone := 0
		for _, id := range was.Release.KeyIDs {
			if !slices.Contains(is.Release.KeyIDs, id) {
				gone++
			}
		}
		if gone >= was.Release.Threshold {
			lines = append(lines, fmt.Sprintf("%s: the keys that leave were enough to sign a release. If they were stolen, not lost, end the epoch too: --bump-epoch %s", is.Name(), is.Name()))
		}
	}
	return lines
}
