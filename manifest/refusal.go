package manifest

import (
	"errors"

	"shoal/internal/fault"
)

// refusal completes the error about a channel's document with what still works and what
// to do about it.
func refusal(err error, ch Channel) error {
	var f *fault.Error
	if !errors.As(err, &f) {
		return err
	}
	f.Fact("channel", ch.String())
	f.Line("Nothing was changed; what is installed keeps running.")
	_, aMember := f.Facts["member"] // one member is at fault, not the whole
	switch {
	case aMember, f.Code == fault.Malformed, f.Code == fault.TooLarge, f.Code == fault.WrongType:
		f.Do("publisher: see what is published with shoal manifest show FILE, and publish it again")
		return f
	}
	switch f.Code {
	case fault.Threshold:
		f.Do("publisher: shoal manifest sign FILE --key REF")
	case fault.WrongTarget:
		f.Do("check that the source belongs to this fleet and serves %s", ch)
	case fault.Rollback:
		f.Do("check the source: it is behind, or somebody offers old releases")
	case fault.Equivocation:
		f.Do("publisher: two manifests are signed with one number; compare the repositories, then publish with the next sequence")
	case fault.RootBehind:
		f.Do("get the newer roots from any source, then check again")
	case fault.Expired:
		f.Do("publisher: shoal channel refresh %s", ch)
	case fault.Policy:
		f.Do("publisher: keep to what shoal trust show prints for %s, or change it in the next root", ch)
	case fault.AgentTooOld:
		f.Do("update the agent")
	case fault.ChannelGone:
		f.Do("follow another channel of the app, or ask the publisher what replaces %s", ch)
	case fault.Blocked:
		f.Do("wait for the publisher's next release; blocked content is never installed")
	case fault.NoArtifact:
		f.Do("check again: the release that is trusted now has other content")
	case fault.NotFound:
		f.Do("check for a manifest of %s first", ch)
	}
	return f
}

// rootRefusal does the same for a root.
func rootRefusal(err error) error {
	var f *fault.Error
	if !errors.As(err, &f) {
		return err
	}
	f.Line("Nothing was changed; the roots trusted so far stay trusted.")
	switch f.Code {
	case fault.Threshold:
		f.Do("root keepers: shoal trust sign FILE --key REF, by the keys of the root before and of this one")
	default:
		f.Do("root keepers: shoal trust check FILE")
	}
	return f
}
