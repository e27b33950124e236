package view

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/publisher/fleet"
)

// What machines say of themselves may be of any number of kinds; these are told apart.
const (
	maxTrouble  = 25  // machines in the overview
	maxVersions = 20  // of a channel
	maxSites    = 100 // the others are one
	maxCodes    = 50  // reasons, of a channel
	other       = "other"
)

// shot is the fleet at one moment.
type shot struct {
	made     time.Time
	overview Overview
	releases []Release
	sites    []Site
	counts   []Count
	blocked  []Blocked
	bytes    map[manifest.Channel]manifest.ByteCount
}

type countKey struct {
	ch             manifest.Channel
	state, version string
}

type blockedKey struct {
	ch   manifest.Channel
	code fault.Code
}

// scanner goes over the machines once.
type scanner struct {
	now      time.Time
	offered  map[manifest.Channel]map[manifest.Digest]bool
	channels map[manifest.Channel]*Channel
	counts   map[countKey]int
	blocked  map[blockedKey]int
	bytes    map[manifest.Channel]manifest.ByteCount
	sites    map[string]*Site
	trouble  [ranks][]Trouble
	o        *Overview
}

// scan works everything out. The caller holds work.
func (v *View) scan(ctx context.Context) (*shot, error) {
	s := &shot{made: time.Now(), releases: v.past, overview: Overview{Fleet: v.ID, Given: v.Given()}}
	o := &s.overview
	sc := &scanner{
		now: v.Clock(), o: o, offered: map[manifest.Channel]map[manifest.Digest]bool{}, channels: map[manifest.Channel]*Channel{},
		counts: map[countKey]int{}, blocked: map[blockedKey]int{}, bytes: map[manifest.Channel]manifest.ByteCount{}, sites: map[string]*Site{},
	}
	for i := range v.tree.Channels {
		ch := &v.tree.Channels[i]
		c := &Channel{Channel: ch.Name, States: map[string]int{}, Versions: []Version{}}
		sc.channels[ch.Name], sc.offered[ch.Name] = c, map[manifest.Digest]bool{}
		if ch.Held == nil {
			continue
		}
		c.Version = ch.Held.Manifest.Release.Version
		for j := range ch.Held.Manifest.Artifacts {
			sc.offered[ch.Name][ch.Held.Manifest.Artifacts[j].SHA256] = true
		}
		if st, err := v.Rollout(ch.Name); err == nil {
			c.Rollout = st
		}
	}
	for after := keys.ID(""); ; {
		page, err := v.Fleet.Agents(ctx, fleet.Query{After: after})
		if err != nil {
			return nil, err
		}
		for _, a := range page.Agents {
			sc.add(a)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	sc.finish(s)
	o.Documents, o.RootExpires = v.documents(), v.tree.Trust.Root().Expires
	return s, nil
}

// add counts one machine.
func (sc *scanner) add(a *fleet.Agent) {
	if t, rank := troubleOf(a, sc.now); rank >= 0 {
		sc.o.Attention++
		if len(sc.trouble[rank]) < maxTrouble {
			sc.trouble[rank] = append(sc.trouble[rank], t)
		}
	}
	if !a.Approved {
		sc.o.Unapproved++
		return
	}
	sc.o.Agents++
	site := sc.site(a)
	site.Agents++
	onTarget := len(a.Report.Apps) > 0
	for i := range a.Report.Apps {
		r := &a.Report.Apps[i]
		ch, state := manifest.Channel{App: r.App, Name: r.Channel}, a.State(i)
		c := sc.channels[ch]
		if c == nil { // no channel of this fleet's, whatever the machine says
			onTarget = false
			continue
		}
		c.Agents++
		c.States[state]++
		sc.counts[countKey{ch, state, r.Version}]++
		if r.Why != nil && !a.NotSeen {
			sc.blocked[blockedKey{ch, r.Why.Code}]++
		}
		sc.bytes[ch] = sum(sc.bytes[ch], r.Bytes)
		site.Bytes = sum(site.Bytes, r.Bytes)
		sc.o.Bytes = sum(sc.o.Bytes, r.Bytes)
		if !a.NotSeen && r.State == manifest.StateHealthy && sc.offered[ch][r.SHA256] {
			c.OnTarget++
		} else {
			onTarget = false
		}
	}
	if !a.NotSeen {
		sc.o.Seen++
		if onTarget {
			sc.o.OnTarget++
		}
	}
}

func (sc *scanner) site(a *fleet.Agent) *Site {
	name := ""
	for _, l := range a.Report.Labels {
		if l.Name == "site" {
			name = l.Value
		}
	}
	s := sc.sites[name]
	if s == nil {
		if len(sc.sites) >= maxSites {
			name = ""
		}
		if s = sc.sites[name]; s == nil {
			s = &Site{Site: name}
			sc.sites[name] = s
		}
	}
	return s
}

// finish puts what was counted in order.
func (sc *scanner) finish(s *shot) {
	versions := map[manifest.Channel]map[string]int{}
	for k, n := range sc.counts {
		if versions[k.ch] == nil {
			versions[k.ch] = map[string]int{}
		}
		if k.state != fleet.StateNotSeen {
			versions[k.ch][k.version] += n
		}
	}
	shown := map[manifest.Channel]map[string]bool{}
	for ch, all := range versions {
		c := sc.channels[ch]
		for version, n := range all {
			c.Versions = append(c.Versions, Version{version, n})
		}
		slices.SortFunc(c.Versions, func(a, b Version) int {
			return cmp.Or(cmp.Compare(b.Agents, a.Agents), cmp.Compare(b.Version, a.Version))
		})
		if len(c.Versions) > maxVersions {
			rest := 0
			for _, v := range c.Versions[maxVersions-1:] {
				rest += v.Agents
			}
			c.Versions = append(c.Versions[:maxVersions-1:maxVersions-1], Version{other, rest})
		}
		shown[ch] = map[string]bool{}
		for _, v := range c.Versions {
			shown[ch][v.Version] = true
		}
	}
	folded := map[countKey]int{}
	for k, n := range sc.counts {
		if !shown[k.ch][k.version] {
			k.version = other
		}
		folded[k] += n
	}
	for k, n := range folded {
		s.counts = append(s.counts, Count{k.ch, k.state, k.version, n})
	}
	codes := map[manifest.Channel]int{}
	for k, n := range sc.blocked {
		if codes[k.ch]++; codes[k.ch] <= maxCodes {
			s.blocked = append(s.blocked, Blocked{k.ch, k.code, n})
		}
	}
	s.bytes = sc.bytes
	for _, name := range slices.SortedFunc(maps.Keys(sc.channels), func(a, b manifest.Channel) int {
		return cmp.Compare(a.String(), b.String())
	}) {
		sc.o.Channels = append(sc.o.Channels, *sc.channels[name])
	}
	for _, site := range sc.sites {
		s.sites = append(s.sites, *site)
	}
	slices.SortFunc(s.sites, func(a, b Site) int { return cmp.Compare(a.Site, b.Site) })
	sc.o.Trouble = []Trouble{}
	for _, rank := range sc.trouble {
		sc.o.Trouble = append(sc.o.Trouble, rank[:min(len(rank), maxTrouble-len(sc.o.Trouble))]...)
	}
}

func sum(a, b manifest.ByteCount) manifest.ByteCount {
	return manifest.ByteCount{
		LAN: a.LAN + b.LAN, WAN: a.WAN + b.WAN, Origin: a.Origin + b.Origin, Webseed: a.Webseed + b.Webseed, Given: a.Given + b.Given,
	}
}

// ranks of trouble; the first is the worst.
const (
	rankFailed = iota
	rankCloned
	rankNotSeen
	rankUnapproved
	ranks
)

// troubleOf says why a machine needs a look, and how much; a negative rank if it does not.
func troubleOf(a *fleet.Agent, now time.Time) (Trouble, int) {
	t := Trouble{Agent: a.ID, Host: a.Report.Host, Since: a.Seen}
	if !a.Approved {
		t.State, t.Since = fleet.StateUnapproved, a.First
		t.Why, t.Next = "what it reports counts for nothing until its key is approved", "shoal fleet approve "+string(a.ID)
		return t, rankUnapproved
	}
	if !a.NotSeen {
		for i := range a.Report.Apps {
			r := &a.Report.Apps[i]
			switch r.State {
			case manifest.StateFailed, manifest.StateReverted, manifest.StateBlocked:
				t.State, t.Channel, t.Since = string(r.State), r.App+"/"+r.Channel, a.Standing[i].Since
				if r.Why != nil {
					t.Code, t.Why, t.Next = r.Why.Code, r.Why.Text, r.Why.Next
				}
				return t, rankFailed
			}
		}
	}
	if a.Cloned {
		t.State, t.Why, t.Next = "cloned", "two machines report with one key", "shoal agent leave on one of them, and join again"
		return t, rankCloned
	}
	if a.NotSeen {
		t.State, t.Why = fleet.StateNotSeen, fmt.Sprintf("it has not reported for %s", days(now.Sub(a.Seen)))
		t.Next = "is it switched on? shoal fleet forget " + string(a.ID) + " if it is gone"
		return t, rankNotSeen
	}
	return t, -1
}

func days(d time.Duration) string {
	if n := int(d / (24 * time.Hour)); n != 1 {
		return fmt.Sprintf("%d days", n)
	}
	return "a day"
}

// documents are what runs out of date. The caller holds work.
func (v *View) documents() []Document {
	root := v.tree.Trust.Root()
	all := []Document{{fmt.Sprintf("root %d", root.Version), root.Expires, "shoal trust draft"}}
	for i := range v.tree.Channels {
		if m := v.tree.Channels[i].Latest; m != nil {
			name := v.tree.Channels[i].Name.String()
			all = append(all, Document{"manifest " + name, m.Expires, "shoal channel refresh " + name})
		}
	}
	slices.SortStableFunc(all, func(a, b Document) int { return a.Expires.Compare(b.Expires) })
	return all
}

// Overview returns the fleet at a glance. It must not be changed.
func (v *View) Overview(ctx context.Context) (*Overview, error) {
	s, err := v.look(ctx)
	if err != nil {
		return nil, err
	}
	return &s.overview, nil
}

// Swarm returns where bytes come from.
func (v *View) Swarm(ctx context.Context) (*Swarm, error) {
	s, err := v.look(ctx)
	if err != nil {
		return nil, err
	}
	torrents := v.Torrents()
	for i := range torrents {
		torrents[i].Copies = v.Copies(torrents[i].Infohash)
	}
	return &Swarm{Torrents: torrents, Bytes: s.overview.Bytes, Sites: s.sites, Throughput: v.Throughput()}, nil
}

// Numbers returns what metrics are made of.
func (v *View) Numbers(ctx context.Context) (*Numbers, error) {
	s, err := v.look(ctx)
	if err != nil {
		return nil, err
	}
	return &Numbers{Overview: &s.overview, Counts: s.counts, Blocked: s.blocked, Bytes: s.bytes, Reports: v.Fleet.Counters()}, nil
}
