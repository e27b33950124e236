package ceremony

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/publisher/ceremony/diff"
)

// defaultRootValidity is how long a first root is believed unless its draft says so.
const defaultRootValidity = 2 * 365 * 24 * time.Hour

// defaultMaxValidity is the longest a release of a new channel is believed, unless its
// draft says so.
const defaultMaxValidity = 90 * 24 * time.Hour

// RoleName names a role of a root. The zero value is the root role itself.
type RoleName struct {
	Channel manifest.Channel
	Beacon  bool
}

// ParseRoleName reads "root", "APP/CHANNEL" and "APP/CHANNEL:beacon".
func ParseRoleName(s string) (RoleName, error) {
	if s == "root" {
		return RoleName{}, nil
	}
	name, beacon := strings.CutSuffix(s, ":beacon")
	ch, err := manifest.ParseChannel(name)
	if err != nil {
		return RoleName{}, fault.New(fault.Usage, "%q is no role: root, APP/CHANNEL or APP/CHANNEL:beacon is wanted", s)
	}
	return RoleName{ch, beacon}, nil
}

// String is the form ParseRoleName reads.
func (n RoleName) String() string {
	switch {
	case n == RoleName{}:
		return "root"
	case n.Beacon:
		return n.Channel.String() + ":beacon"
	}
	return n.Channel.String()
}

// ChannelDraft is what a draft says of a channel. What is zero stays as it was, or has
// its default in a channel that is new.
type ChannelDraft struct {
	Channel     manifest.Channel
	Release     *keys.Role
	Beacon      *keys.Role
	MaxValidity time.Duration
	StaleAfter  time.Duration
}

// RootDraft says what the next root is to be. In a first root Fleet, Root and Channels
// are set; in any other whatever changes.
type RootDraft struct {
	Fleet    string
	Root     *keys.Role
	Channels []ChannelDraft
	Drop     []manifest.Channel
	Bump     []manifest.Channel // epoch + 1: voids every release signed so far

	Replace    []Replacement
	Add        []RoleKey
	Remove     []OldKey
	Thresholds map[RoleName]int

	// Expires is how long it is believed; zero means as long as the one before was.
	Expires time.Duration
	Reason  string
}

// Replacement puts New wherever the key Old is. Old is a fingerprint, a comment, or the
// part of a comment before its "@".
type Replacement struct {
	Old string
	New keys.PublicKey
}

// RoleKey is a key for a role.
type RoleKey struct {
	Role RoleName
	Key  keys.PublicKey
}

// OldKey is a key to take out of a role, or of every role when AnyRole is set.
type OldKey struct {
	Role    RoleName
	AnyRole bool
	Key     string // as Replacement.Old
}

// DraftedRoot is a root to be reviewed and signed.
type DraftedRoot struct {
	Payload  []byte           `json:"-"`
	Version  int64            `json:"version"`
	FleetID  manifest.FleetID `json:"fleet_id"` // of a first root only if it stays as it is
	Changes  []diff.Change    `json:"changes"`
	Signers  []Signers        `json:"signers"` // who can sign; every role must be met
	Needs    []Need           `json:"needs"`
	Warnings []string         `json:"warnings"`
}

// DraftRoot drafts a first root, or with f the one that follows f's.
func DraftRoot(f *Fleet, d RootDraft, now time.Time) (*DraftedRoot, error) {
	now = now.UTC().Truncate(time.Second)
	var prev *manifest.Root
	next := &manifest.Root{Version: 1, Fleet: d.Fleet, Keys: map[keys.ID]string{}}
	if f != nil {
		prev = f.Root
		next = f.next(d)
	} else if d.Fleet == "" || d.Root == nil || len(d.Channels) == 0 {
		return nil, fault.New(fault.Usage, "a first root names the fleet, its root keys and a channel").
			Do("shoal trust draft --fleet NAME --root T:a.pub,b.pub --channel APP/CHANNEL=T:c.pub").
			Do("or draft the next root from the last: --from ROOT.env.json")
	}
	e := &editor{root: next}
	validity := d.Expires
	if validity == 0 && prev != nil {
		validity = prev.Expires.Sub(prev.Issued)
	}
	if validity == 0 {
		validity = defaultRootValidity
	}
	next.Issued, next.Expires, next.Reason = now, now.Add(validity.Truncate(time.Second)), d.Reason
	if prev != nil && now.Before(prev.Issued) {
		return nil, fault.New(fault.Policy, "this computer's clock is behind: root %d is from %s", prev.Version, date(prev.Issued)).Do("set the clock")
	}
	if err := e.apply(d); err != nil {
		return nil, err
	}
	e.dropUnused()
	payload, err := manifest.DraftRoot(next)
	if err != nil {
		return nil, err
	}
	read, err := manifest.ReadRootDraft(payload)
	if err != nil {
		return nil, err
	}
	warnings, err := CheckRoot(read, now)
	if err != nil {
		return nil, err
	}
	res := &DraftedRoot{
		Payload: payload, Version: next.Version, FleetID: manifest.FleetID(manifest.Sum(payload)),
		Changes: diff.Roots(prev, read), Needs: []Need{}, Warnings: append(warnings, advice(prev, read)...),
	}
	own := manifest.NewEnvelope(manifest.TypeRoot, payload)
	if prev != nil {
		res.FleetID = manifest.FleetID(f.ID)
		if res.Needs, err = f.needs(read); err != nil {
			return nil, err
		}
		if err := res.role(prev, own); err != nil {
			return nil, err
		}
	}
	return res, res.role(read, own)
}

func (res *DraftedRoot) role(r *manifest.Root, env *manifest.Envelope) error {
	s, err := signersOf(fmt.Sprintf("root %d", r.Version), r, r.Root, env)
	res.Signers = append(res.Signers, s)
	return err
}

// next is the newest root with the numbers of the one that follows it.
func (f *Fleet) next(d RootDraft) *manifest.Root {
	r := f.state.Trust.Root() // a copy
	id, prev := f.ID, f.Hash
	r.Version++
	r.ID, r.Prev = &id, &prev
	if d.Fleet != "" {
		r.Fleet = d.Fleet
	}
	return r
}

// editor changes a root.
type editor struct{ root *manifest.Root }

func (e *editor) apply(d RootDraft) error {
	if d.Root != nil {
		e.root.Root = e.role(*d.Root)
	}
	for _, ch := range d.Drop {
		i := slices.IndexFunc(e.root.Channels, func(c manifest.ChannelSpec) bool { return c.Name() == ch })
		if i < 0 {
			return e.noChannel(ch)
		}
		e.root.Channels = slices.Delete(e.root.Channels, i, i+1)
	}
	for _, ch := range d.Channels {
		if err := e.channel(ch); err != nil {
			return err
		}
	}
	for _, r := range d.Replace {
		if err := e.replace(r); err != nil {
			return err
		}
	}
	for _, a := range d.Add {
		spec, err := e.spec(a.Role)
		if err != nil {
			return err
		}
		id := e.know(a.Key)
		if slices.Contains(spec.KeyIDs, id) {
			return fault.New(fault.Usage, "%s is in the role %s already", keyOf(a.Key), a.Role)
		}
		spec.KeyIDs = append(spec.KeyIDs, id)
	}
	for _, o := range d.Remove {
		if err := e.remove(o); err != nil {
			return err
		}
	}
	for name, threshold := range d.Thresholds {
		spec, err := e.spec(name)
		if err != nil {
			return err
		}
		spec.Threshold = threshold
	}
	for _, ch := range d.Bump {
		spec, ok := e.root.Channel(ch)
		if !ok {
			return e.noChannel(ch)
		}
		spec.Epoch++
	}
	return nil
}

func (e *editor) noChannel(ch manifest.Channel) error {
	var have []string
	for i := range e.root.Channels {
		have = append(have, e.root.Channels[i].Name().String())
	}
	return fault.New(fault.ChannelGone, "the root has no channel %s", ch).Line("It has %s.", words(have)).Fact("channels", have)
}

// know files a key under its fingerprint.
func (e *editor) know(k keys.PublicKey) keys.ID {
	e.root.Keys[k.ID()] = k.String()
	return k.ID()
}

func (e *editor) role(r keys.Role) manifest.RoleSpec {
	spec := manifest.RoleSpec{Threshold: r.Threshold}
	for _, k := range r.Keys {
		spec.KeyIDs = append(spec.KeyIDs, e.know(k))
	}
	return spec
}

func (e *editor) channel(d ChannelDraft) error {
	spec, ok := e.root.Channel(d.Channel)
	if !ok {
		if d.Release == nil {
			return fault.New(fault.Usage, "the new channel %s has no release keys", d.Channel).Do("name them: %s=T:a.pub,b.pub", d.Channel)
		}
		e.root.Channels = append(e.root.Channels, manifest.ChannelSpec{
			App: d.Channel.App, Channel: d.Channel.Name, Epoch: 1, MaxValidity: defaultMaxValidity,
		})
		spec = &e.root.Channels[len(e.root.Channels)-1]
	}
	if d.Release != nil {
		spec.Release = e.role(*d.Release)
	}
	if d.Beacon != nil {
		beacon := e.role(*d.Beacon)
		spec.Beacon = &beacon
		if d.StaleAfter == 0 && spec.StaleAfter == 0 {
			return fault.New(fault.Usage, "for how long is a beacon of %s fresh?", d.Channel).Do("say it: stale=48h")
		}
	}
	if d.MaxValidity != 0 {
		spec.MaxValidity = d.MaxValidity
	}
	if d.StaleAfter != 0 {
		spec.StaleAfter = d.StaleAfter
	}
	return nil
}

func (e *editor) spec(name RoleName) (*manifest.RoleSpec, error) {
	if name == (RoleName{}) {
		return &e.root.Root, nil
	}
	c, ok := e.root.Channel(name.Channel)
	if !ok {
		return nil, e.noChannel(name.Channel)
	}
	if !name.Beacon {
		return &c.Release, nil
	}
	if c.Beacon == nil {
		return nil, fault.New(fault.Usage, "%s has no beacon", name.Channel).Do("give it one: --channel %s=beacon=b.pub,stale=48h", name.Channel)
	}
	return c.Beacon, nil
}

// roles calls do with every role.
func (e *editor) roles(do func(*manifest.RoleSpec)) {
	do(&e.root.Root)
	for i := range e.root.Channels {
		c := &e.root.Channels[i]
		do(&c.Release)
		if c.Beacon != nil {
			do(c.Beacon)
		}
	}
}

// find is the one key that name means.
func (e *editor) find(name string) (keys.ID, error) {
	var exact, prefix []keys.ID
	for id, line := range e.root.Keys {
		k, err := keys.ParsePublicKey(line)
		if err != nil {
			continue
		}
		before, _, _ := strings.Cut(k.Comment(), "@")
		switch name {
		case string(id), k.Comment():
			exact = append(exact, id)
		case before:
			prefix = append(prefix, id)
		}
	}
	if len(exact) == 0 {
		exact = prefix
	}
	if len(exact) == 1 {
		return exact[0], nil
	}
	var have []string
	for id := range e.root.Keys {
		have = append(have, named(e.root, id).String())
	}
	slices.Sort(have)
	f := fault.New(fault.Usage, "the root has no key %q", name)
	if len(exact) > 1 {
		f = fault.New(fault.Usage, "the root has several keys %q", name)
	}
	f.Line("It has:")
	for _, h := range have {
		f.Line("  %s", h)
	}
	return "", f.Do("name one by its fingerprint")
}

func (e *editor) replace(r Replacement) error {
	old, err := e.find(r.Old)
	if err != nil {
		return err
	}
	fresh := e.know(r.New)
	if old == fresh {
		return fault.New(fault.Usage, "%s is to be replaced by itself", keyOf(r.New))
	}
	e.roles(func(s *manifest.RoleSpec) {
		if i := slices.Index(s.KeyIDs, old); i >= 0 {
			s.KeyIDs = slices.Clone(s.KeyIDs)
			s.KeyIDs[i] = fresh
		}
	})
	return nil
}

func (e *editor) remove(o OldKey) error {
	id, err := e.find(o.Key)
	if err != nil {
		return err
	}
	out := func(s *manifest.RoleSpec) {
		s.KeyIDs = slices.DeleteFunc(slices.Clone(s.KeyIDs), func(k keys.ID) bool { return k == id })
	}
	if o.AnyRole {
		e.roles(out)
		return nil
	}
	spec, err := e.spec(o.Role)
	if err != nil {
		return err
	}
	if !slices.Contains(spec.KeyIDs, id) {
		return fault.New(fault.Usage, "%s is not in the role %s", named(e.root, id), o.Role)
	}
	out(spec)
	return nil
}

// dropUnused forgets keys that no role has.
func (e *editor) dropUnused() {
	used := map[keys.ID]bool{}
	e.roles(func(s *manifest.RoleSpec) {
		for _, id := range s.KeyIDs {
			used[id] = true
		}
	})
	for id := range e.root.Keys {
		if !used[id] {
			delete(e.root.Keys, id)
		}
	}
}
