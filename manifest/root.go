package manifest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
)

const (
	maxChannels = 64
	maxRoleKeys = 64
)

// Root names the keys of a fleet, what each may sign, and how many must. It is
// versioned, and each version is signed by the threshold of the one before and by its
// own.
type Root struct {
	Version  int64
	Fleet    string  // display name; the fleet's identity is the hash of version 1
	ID, Prev *Digest // payload hashes of version 1 and of the version before; nil in version 1
	Issued   time.Time
	Expires  time.Time
	Reason   string // why this version was made; may be empty
	Root     RoleSpec
	Channels []ChannelSpec
	Keys     map[keys.ID]string // authorized_keys lines by fingerprint
}

// RoleSpec is a role as root writes it: how many of which keys.
type RoleSpec struct {
	Threshold int
	KeyIDs    []keys.ID
}

// ChannelSpec is what root says of one channel.
type ChannelSpec struct {
	App, Channel string
	Epoch        int64
	Release      RoleSpec
	Beacon       *RoleSpec     // nil when the channel has no beacon
	MaxValidity  time.Duration // longest time between a manifest's issued and expires
	StaleAfter   time.Duration // the same for a beacon
}

// Name returns the channel's name.
func (c *ChannelSpec) Name() Channel { return Channel{c.App, c.Channel} }

// Channel returns what root says of a channel.
func (r *Root) Channel(ch Channel) (*ChannelSpec, bool) {
	for i := range r.Channels {
		if r.Channels[i].Name() == ch {
			return &r.Channels[i], true
		}
	}
	return nil, false
}

// Role returns a role of this root with its keys, which must be in Keys.
func (r *Root) Role(s RoleSpec) (keys.Role, error) {
	role := keys.Role{Threshold: s.Threshold}
	for _, id := range s.KeyIDs {
		k, err := keys.ParsePublicKey(r.Keys[id])
		if err != nil {
			return keys.Role{}, fault.New(fault.BadKey, "root %d: reading key %q: %w", r.Version, clip(string(id)), err)
		}
		role.Keys = append(role.Keys, k)
	}
	return role, nil
}

type wireRoot struct {
	Version  *int64            `json:"version"`
	Fleet    *string           `json:"fleet"`
	ID       *string           `json:"id,omitempty"`
	Prev     *string           `json:"prev,omitempty"`
	Issued   *string           `json:"issued"`
	Expires  *string           `json:"expires"`
	Reason   *string           `json:"reason,omitempty"`
	Root     *wireRole         `json:"root"`
	Channels []wireChannel     `json:"channels"`
	Keys     map[string]string `json:"keys"`
}

type wireRole struct {
	Threshold *int64   `json:"threshold"`
	KeyIDs    []string `json:"keyids"`
}

type wireChannel struct {
	App         *string   `json:"app"`
	Channel     *string   `json:"channel"`
	Epoch       *int64    `json:"epoch"`
	Release     *wireRole `json:"release"`
	Beacon      *wireRole `json:"beacon,omitempty"`
	MaxValidity *string   `json:"max_validity"`
	StaleAfter  *string   `json:"stale_after,omitempty"`
}

// parseRoot reads the members of a root. Keys, structure and its place in the chain are
// for checkKeys, checkStructure and checkChain.
func parseRoot(payload []byte, doc string) (*Root, error) {
	var w wireRoot
	if err := decodeWire(payload, &w, doc); err != nil {
		return nil, err
	}
	f := &fields{doc: doc}
	r := &Root{Keys: make(map[keys.ID]string, len(w.Keys))}
	if present(f, "version", w.Version) {
		r.Version = *w.Version
	}
	r.Fleet = f.name("fleet", w.Fleet)
	if w.ID != nil || r.Version != 1 {
		r.ID = new(f.prefixed("id", w.ID))
	}
	if w.Prev != nil || r.Version != 1 {
		r.Prev = new(f.prefixed("prev", w.Prev))
	}
	r.Issued = f.time("issued", w.Issued)
	r.Expires = f.time("expires", w.Expires)
	r.Reason = f.text("reason", w.Reason, maxText, false)
	r.Root = f.role("root", w.Root)
	if w.Channels == nil {
		f.fail(fault.Malformed, "channels", "is missing")
	}
	f.atMost("channels", len(w.Channels), maxChannels)
	for i := range w.Channels {
		if f.err != nil {
			break
		}
		r.Channels = append(r.Channels, w.Channels[i].read(f, i))
	}
	if w.Keys == nil {
		f.fail(fault.Malformed, "keys", "is missing")
	}
	for id, line := range w.Keys {
		r.Keys[keys.ID(id)] = line
	}
	if f.err != nil {
		return nil, f.err
	}
	return r, nil
}

func (w *wireChannel) read(f *fields, i int) ChannelSpec {
	in := f.at("channels[%d]", i)
	defer f.up(in)
	c := ChannelSpec{App: in.name("app", w.App), Channel: in.name("channel", w.Channel)}
	if present(in, "epoch", w.Epoch) {
		c.Epoch = *w.Epoch
	}
	c.Release = in.role("release", w.Release)
	if w.Beacon != nil {
		c.Beacon = new(in.role("beacon", w.Beacon))
	}
	if present(in, "max_validity", w.MaxValidity) {
		c.MaxValidity = in.duration("max_validity", w.MaxValidity)
	}
	c.StaleAfter = in.duration("stale_after", w.StaleAfter)
	return c
}

func (f *fields) role(member string, w *wireRole) (s RoleSpec) {
	if !present(f, member, w) {
		return s
	}
	in := f.at("%s", member)
	defer f.up(in)
	if present(in, "threshold", w.Threshold) {
		s.Threshold = int(min(max(*w.Threshold, 0), maxSignatures+1)) // what is cut off is refused all the same; int may have 32 bits
	}
	if w.KeyIDs == nil {
		in.fail(fault.Malformed, "keyids", "is missing")
	}
	in.atMost("keyids", len(w.KeyIDs), maxRoleKeys)
	for _, id := range w.KeyIDs {
		s.KeyIDs = append(s.KeyIDs, keys.ID(id))
	}
	return s
}

// eachRole calls do with every role of r.
func (r *Root) eachRole(do func(name string, s RoleSpec) error) error {
	if err := do("root", r.Root); err != nil {
		return err
	}
	for i := range r.Channels {
		c := &r.Channels[i]
		if err := do(c.Name().String()+" release", c.Release); err != nil {
			return err
		}
		if c.Beacon == nil {
			continue
		}
		if err := do(c.Name().String()+" beacon", *c.Beacon); err != nil {
			return err
		}
	}
	return nil
}

// checkKeys parses every key of r and finds those that could count for more than one:
// under another name, twice in a role, or as another form of one point.
func (r *Root) checkKeys(doc string) (map[keys.ID]keys.PublicKey, error) {
	parsed := make(map[keys.ID]keys.PublicKey, len(r.Keys))
	owner := make(map[[32]byte]keys.ID, len(r.Keys))
	for _, id := range slices.Sorted(maps.Keys(r.Keys)) {
		k, err := keys.ParsePublicKey(r.Keys[id])
		if err != nil {
			return nil, fault.New(fault.BadKey, "%s: key %q: %w", doc, clip(string(id)), err).Fact("keyid", clip(string(id)))
		}
		if k.ID() != id {
			return nil, fault.New(fault.BadKey, "%s: the key filed under %q is %s", doc, clip(string(id)), k.ID()).Fact("keyid", clip(string(id)))
		}
		if first, twice := owner[k.Point()]; twice {
			return nil, fault.New(fault.BadKey, "%s: %s and %s are two names of one key", doc, first, id).
				Line("A plain and a FIDO2 key with the same curve point would count twice.")
		}
		owner[k.Point()], parsed[id] = id, k
	}
	err := r.eachRole(func(name string, s RoleSpec) error {
		seen := make(map[keys.ID]bool, len(s.KeyIDs))
		for _, id := range s.KeyIDs {
			if seen[id] {
				return fault.New(fault.BadKey, "%s: the %s role lists %q twice", doc, name, clip(string(id)))
			}
			seen[id] = true
			if _, ok := parsed[id]; !ok {
				return fault.New(fault.BadKey, "%s: the %s role lists %q, which keys does not have", doc, name, clip(string(id)))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return parsed, nil
}

// checkStructure checks thresholds, that no channel is there twice, and that no epoch
// falls below floor, the last epoch known of each channel.
func (r *Root) checkStructure(doc string, floor func(Channel) int64) error {
	err := r.eachRole(func(name string, s RoleSpec) error {
		if most := min(len(s.KeyIDs), maxSignatures); s.Threshold < 1 || s.Threshold > most {
			return fault.New(fault.RootChain, "%s: the %s role has threshold %d of %d keys; 1 to %d is wanted", doc, name, s.Threshold, len(s.KeyIDs), most)
		}
		return nil
	})
	if err != nil {
		return err
	}
	seen := make(map[Channel]bool, len(r.Channels))
	for i := range r.Channels {
		c := &r.Channels[i]
		if seen[c.Name()] {
			return fault.New(fault.RootChain, "%s has the channel %s twice", doc, c.Name())
		}
		seen[c.Name()] = true
		if least := cmp.Or(floor(c.Name()), 1); c.Epoch < least {
			return fault.New(fault.RootChain, "%s gives %s epoch %d; at least %d is wanted, an epoch never falls", doc, c.Name(), c.Epoch, least)
		}
	}
	for i := range r.Channels {
		if c := &r.Channels[i]; c.Beacon != nil && c.StaleAfter == 0 {
			return fault.New(fault.Policy, "%s gives %s a beacon without stale_after", doc, c.Name())
		}
	}
	return nil
}

// noFloor is the floor of a root that is looked at by itself.
func noFloor(Channel) int64 { return 0 }

func (r *Root) wire() wireRoot {
	w := wireRoot{
		Version: new(r.Version), Fleet: new(r.Fleet),
		Issued: formatTime(r.Issued), Expires: formatTime(r.Expires), Reason: optional(r.Reason),
		Root: r.Root.wire(), Channels: []wireChannel{}, Keys: map[string]string{},
	}
	if r.ID != nil {
		w.ID = new(r.ID.Prefixed())
	}
	if r.Prev != nil {
		w.Prev = new(r.Prev.Prefixed())
	}
	for i := range r.Channels {
		c := &r.Channels[i]
		wc := wireChannel{
			App: new(c.App), Channel: new(c.Channel), Epoch: new(c.Epoch),
			Release: c.Release.wire(), MaxValidity: new(formatDuration(c.MaxValidity)),
		}
		if c.Beacon != nil {
			wc.Beacon = c.Beacon.wire()
		}
		if c.StaleAfter != 0 {
			wc.StaleAfter = new(formatDuration(c.StaleAfter))
		}
		w.Channels = append(w.Channels, wc)
	}
	for id, line := range r.Keys {
		w.Keys[string(id)] = line
	}
	return w
}

func (s RoleSpec) wire() *wireRole {
	w := &wireRole{Threshold: new(int64(s.Threshold)), KeyIDs: []string{}}
	for _, id := range s.KeyIDs {
		w.KeyIDs = append(w.KeyIDs, string(id))
	}
	return w
}

// sameRole reports whether two roles ask for the same threshold of the same keys.
func sameRole(a, b *RoleSpec) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := slices.Sorted(slices.Values(a.KeyIDs)), slices.Sorted(slices.Values(b.KeyIDs))
	return a.Threshold == b.Threshold && slices.Equal(x, y)
}

func rootDoc(version int64) string { return fmt.Sprintf("root %d", version) }
