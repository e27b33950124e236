package manifest_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
)

// TestModel feeds a machine random sequences of documents, good and bad, with restarts,
// crashes and lost files in between, and holds it to the two promises: what is trusted
// never falls, and nothing is returned that the fleet did not sign for that channel.
func TestModel(t *testing.T) {
	runs := 8
	if testing.Short() {
		runs = 2
	}
	for seed := range runs {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { newModel(t, uint64(seed)).run(100) })
	}
}

type model struct {
	t     *testing.T
	r     *rand.Rand
	f     *mt.Fleet
	trust *manifest.Trust
	saved manifest.Snapshot

	rootKeys int // generation of the root role
	signed   map[manifest.Channel]map[manifest.Digest]bool
	pool     map[manifest.Channel][][]byte // everything ever offered, for replays
	beacons  [][]byte
	sequence map[manifest.Channel]int64
	accepted int
}

func newModel(t *testing.T, seed uint64) *model {
	f := mt.New(t)
	m := &model{
		t: t, r: rand.New(rand.NewPCG(seed, 1)), f: f, trust: f.Trust(),
		signed: map[manifest.Channel]map[manifest.Digest]bool{mt.Stable: {}, mt.Nightly: {}},
		pool:   map[manifest.Channel][][]byte{}, sequence: map[manifest.Channel]int64{},
	}
	m.saved = m.trust.Snapshot()
	return m
}

func (m *model) run(steps int) {
	for range steps {
		before := m.trust.Snapshot().State
		m.f.Now = m.f.Now.Add(time.Duration(m.r.IntN(3600)) * time.Second)
		if m.step() == crash {
			before = m.saved.State // what was trusted in memory alone is gone
		}
		m.fell(before, m.trust.Snapshot().State)
		m.holds()
	}
	if m.accepted == 0 {
		m.t.Error("nothing was ever accepted: the model tests nothing")
	}
}

func (m *model) channel() manifest.Channel {
	if m.r.IntN(2) == 0 {
		return mt.Stable
	}
	return mt.Nightly
}

// outcome of a step, for those who hold the machine to its promises.
type outcome int

const (
	goesOn outcome = iota
	crash
)

func (m *model) step() outcome {
	ch := m.channel()
	switch n := m.r.IntN(20); {
	case n < 7:
		m.sequence[ch] += int64(m.r.IntN(3)) // sometimes the same number again
		m.offer(ch, m.manifest(ch, max(m.sequence[ch], 1)))
	case n < 9: // forged: too few keys, or a stranger's
		forged := [][]string{{"mallory-1", "mallory-2"}, {"release-1"}, {"root-1", "root-2"}, {"ci-9"}}
		env := m.f.Manifest(ch, m.sequence[ch]+5, mt.SignedBy(forged[m.r.IntN(len(forged))]...))
		m.pool[ch] = append(m.pool[ch], env)
		m.offer(ch, env)
	case n < 13: // replayed, in its channel or in the other
		if pool := m.pool[m.channel()]; len(pool) > 0 {
			m.offer(ch, pool[m.r.IntN(len(pool))])
		}
	case n < 15:
		m.beacon()
	case n < 17:
		m.root()
	case n == 17:
		m.saved = m.trust.Snapshot()
	case n == 18:
		m.crash()
		return crash
	case n == 19: // an old root again
		if _, err := m.trust.UpdateRoot(m.f.Roots[m.r.IntN(len(m.f.Roots))]); err == nil {
			m.t.Fatal("an old root was taken")
		}
	}
	return goesOn
}

// crash goes on from the last state that was saved, with documents that are as old,
// newer or lost.
func (m *model) crash() {
	s := m.saved
	if m.r.IntN(2) == 0 {
		now := m.trust.Snapshot()
		s.Roots, s.Manifests, s.Beacons = now.Roots, now.Manifests, now.Beacons
	}
	if m.r.IntN(3) == 0 {
		s.Roots = s.Roots[:1+m.r.IntN(len(s.Roots))]
	}
	if m.r.IntN(3) == 0 {
		s.Manifests = nil
	}
	trust, _, err := manifest.Load(s, m.f.Options())
	if err != nil {
		m.t.Fatal(err)
	}
	m.fell(m.saved.State, trust.Snapshot().State)
	for _, env := range m.f.Roots[trust.RootVersion():] {
		if _, err := trust.UpdateRoot(env); err != nil {
			m.t.Fatalf("catching up: %v", err)
		}
	}
	m.trust = trust
}

func (m *model) manifest(ch manifest.Channel, sequence int64) []byte {
	spec, _ := m.f.Root.Channel(ch)
	env := m.f.Manifest(ch, sequence, mt.WithManifest(func(doc *manifest.Manifest) {
		doc.Release.Notes = fmt.Sprint(m.r.IntN(2)) // two contents a number: a forked publisher
		if spec.Epoch > 1 && m.r.IntN(4) == 0 {
			doc.Epoch = 1 + m.r.Int64N(spec.Epoch)
		}
	}))
	e, err := manifest.ParseEnvelope(env, manifest.TypeManifest)
	if err != nil {
		m.t.Fatal(err)
	}
	m.signed[ch][e.PayloadHash()] = true
	m.pool[ch] = append(m.pool[ch], env)
	return env
}

func (m *model) offer(ch manifest.Channel, env []byte) {
	c, err := m.trust.Begin()
	if err != nil {
		m.t.Fatal(err)
	}
	before := m.trust.Snapshot().State.Channels[ch]
	v, _, err := c.Manifest(ch, env)
	if err != nil {
		if v != nil || m.trust.Snapshot().State.Channels[ch].Order() != before.Order() {
			m.t.Fatalf("refused with %v, and changed something", err)
		}
		return
	}
	m.accepted++
	if !m.signed[ch][v.Hash] {
		m.t.Fatalf("returned %s %s, which nobody signed for it", ch, v.Manifest.Order())
	}
	if v.Manifest.Name() != ch || v.Manifest.Order().Compare(before.Order()) < 0 {
		m.t.Fatalf("returned %s %s after %s", v.Manifest.Name(), v.Manifest.Order(), before.Order())
	}
	if v.Manifest.Order() == before.Order() && !before.ManifestSHA256.IsZero() && v.Hash != before.ManifestSHA256 {
		m.t.Fatalf("returned a second %s", v.Manifest.Order())
	}
	if err := c.Authorize(ch, v.Manifest.Artifacts[0].SHA256); err != nil {
		m.t.Fatalf("just accepted, and not authorised: %v", err)
	}
	if err := c.Authorize(ch, mt.Content("planted")); err == nil {
		m.t.Fatal("authorised what no manifest offers")
	}
}

func (m *model) beacon() {
	pool := m.pool[mt.Stable]
	spec, ok := m.f.Root.Channel(mt.Stable)
	if len(pool) == 0 || !ok || spec.Beacon == nil {
		return
	}
	c, err := m.trust.Begin()
	if err != nil {
		m.t.Fatal(err)
	}
	before := m.trust.Snapshot().State.Channels[mt.Stable].Order()
	env := m.f.Beacon(pool[m.r.IntN(len(pool))], mt.Set("hold", m.r.IntN(2) == 0))
	m.beacons = append(m.beacons, env)
	if m.r.IntN(3) == 0 {
		env = m.beacons[m.r.IntN(len(m.beacons))]
	}
	c.Beacon(mt.Stable, env)
	if after := m.trust.Snapshot().State.Channels[mt.Stable].Order(); after != before {
		m.t.Fatalf("a beacon moved the order from %s to %s", before, after)
	}
}

func (m *model) root() {
	env := m.f.NextRoot(mt.WithRoot(func(r *manifest.Root) {
		switch m.r.IntN(4) {
		case 0:
			r.Channels[0].Epoch++
		case 1:
			id := r.Channels[1].Release.KeyIDs[0]
			delete(r.Keys, id)
			r.Channels[1].Release = m.f.Role(r, 1, fmt.Sprintf("ci-%d", 10+r.Version))
		case 2:
			m.rootKeys++
			for _, id := range r.Root.KeyIDs {
				delete(r.Keys, id)
			}
			r.Root = m.f.Role(r, 2, fmt.Sprintf("root-%d-a", m.rootKeys), fmt.Sprintf("root-%d-b", m.rootKeys))
		}
	}))
	if _, err := m.trust.UpdateRoot(env); err != nil {
		m.t.Fatal(err)
	}
	m.f.Publish(env)
}

// fell fails if anything in after is lower than in before.
func (m *model) fell(before, after manifest.State) {
	m.t.Helper()
	if after.RootVersion < before.RootVersion {
		m.t.Fatalf("root fell from %d to %d", before.RootVersion, after.RootVersion)
	}
	for ch, was := range before.Channels {
		is := after.Channels[ch]
		if is.Order().Compare(was.Order()) < 0 {
			m.t.Fatalf("%s fell from %s to %s", ch, was.Order(), is.Order())
		}
		if is.Order() == was.Order() && !was.ManifestSHA256.IsZero() && is.ManifestSHA256 != was.ManifestSHA256 {
			m.t.Fatalf("%s %s changed its content", ch, is.Order())
		}
	}
	for ch, was := range before.LastEpochs {
		if _, back := m.f.Root.Channel(ch); !back && after.LastEpochs[ch] < was {
			m.t.Fatalf("the last epoch of %s fell from %d", ch, was)
		}
	}
}

// holds checks that whatever is held was signed and is of root's epoch.
func (m *model) holds() {
	for _, ch := range []manifest.Channel{mt.Stable, mt.Nightly} {
		v, ok := m.trust.Held(ch)
		if !ok {
			continue
		}
		spec, _ := m.trust.Root().Channel(ch)
		if !m.signed[ch][v.Hash] || v.Manifest.Epoch != spec.Epoch {
			m.t.Fatalf("holds %s %s, which root no longer stands behind", ch, v.Manifest.Order())
		}
		c, err := m.trust.Begin()
		if err != nil {
			m.t.Fatal(err)
		}
		if got := fault.CodeOf(c.Authorize(ch, v.Manifest.Artifacts[0].SHA256)); got != fault.OK && got != fault.Expired {
			m.t.Fatalf("holds %s %s, and does not authorise it: %s", ch, v.Manifest.Order(), got)
		}
	}
}
